// The data of the report: what stands in the file as JSON, and the blocks that are unpacked when
// they are needed. What comes of them is text by others.

import { byId } from "./dom.js";

/** Summary, shares, plots: what is shown at once. */
export const report = JSON.parse(byId("report").textContent);

const KEPT = 64; // unpacked blocks of a kind
const METHODS = ["exact", "complete", "estimated"];

const stopped = () => document.readyState !== "loading";
const pause = () => new Promise((resolve) => setTimeout(resolve, 25));

/** The text of a block, once the browser has read that far into the file. */
async function textOf(id) {
  for (;;) {
    const element = byId(id);
    if (element && (element.nextElementSibling || stopped())) return element.textContent;
    if (!element && stopped()) throw new Error("The file is cut off: a part of its data is missing.");
    await pause();
  }
}

async function unpack(id) {
  const letters = atob(await textOf(id));
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/** Keeps the values used last. */
function keeping(make) {
  const kept = new Map();
  return (key) => {
    const value = kept.has(key) ? kept.get(key) : make(key);
    kept.delete(key);
    kept.set(key, value);
    if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    return value;
  };
}

const block = keeping(unpack);

async function item(name, place) {
  const { size } = report.blocks[name];
  return (await block(`${name}-${Math.floor(place / size)}`))[place % size];
}

async function all(name) {
  const { items, size } = report.blocks[name];
  const parts = [];
  for (let n = 0; n * size < items; n++) parts.push(await unpack(`${name}-${n}`));
  return parts.flat();
}

/** Numbers from what each is above the one before. */
function summed(steps) {
  let sum = 0;
  return Uint32Array.from(steps, (step) => (sum += step));
}

/** All images of the gallery, each with what is searched, sorted by and shown in the list; and the
 *  names of creators that `influencers` (all with influence on an image) are numbers of. */
export async function loadImages() {
  const names = await all("names");
  const images = (await all("index")).map((of, place) => ({
    place,
    key: of[0],
    prompt: of[1],
    picture: of[2],
    flags: report.flags.filter((_, bit) => of[3] & (1 << bit)),
    remaining: of[4],
    effective: of[5],
    top: of[6],
    similarity: of[7],
    method: METHODS[of[8]] ?? "unknown",
    sources: of[9],
    main: names[of[10]] ?? "",
    mainShare: of[11],
    influencers: summed(of[12]),
    copied: of[13][0],
    first: of[13][1],
    ofMain: of[13][2],
    duplicateOf: of[14],
    score: of[15],
  }));
  return { images, names };
}

/** A training image by its place; null where there is none. */
export async function training(place) {
  if (place < 0) return null;
  const [id, key, dataset, creator, licence, url, path, caption, picture] = await item("training", place);
  return { id, key, dataset, creator, licence, url, path, caption, picture };
}

/** What the wall of an image needs. */
export async function details(image) {
  const of = await item("details", image.place);
  const rows = await Promise.all(
    of[11].map(async ([similarity, influence, low, high, owners, moreOwners], i) => ({
      rank: i + 1,
      similarity,
      influence,
      interval: [low, high],
      owners: await Promise.all(owners.map(training)),
      moreOwners,
    })),
  );
  return {
    path: of[0],
    width: of[1],
    height: of[2],
    metadata: of[3],
    remaining: image.remaining,
    interval: [of[4], of[5]],
    support: of[6],
    note: of[7],
    copyOf: of[8],
    copied: await training(of[9]),
    sha256: of[10],
    rows,
    more: of[12],
    rest: of[13],
  };
}

const pictureLines = keeping((id) => byId(id).textContent.split("\n"));

/** Shows a small picture as soon as the file is read that far. */
export function showPicture(image, number) {
  const { size } = report.blocks.pictures;
  const id = `pictures-${Math.floor(number / size)}`;
  const set = () => (image.src = `data:image/webp;base64,${pictureLines(id)[number % size]}`);
  if (byId(id)?.nextElementSibling || stopped()) set();
  else void textOf(id).then(set);
}
