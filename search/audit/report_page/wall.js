// The wall of one generated image: its training images, area in proportion to influence, and the
// remaining influence as a tile of its own.

import { showPicture } from "./data.js";
import { h } from "./dom.js";
import { share } from "./told.js";
import { snapped, tilesOf } from "./treemap.js";
import { clean, count, creators, images, title } from "./words.js";

const LEAST = 30; // pixels: a training image with a shorter side is folded with the others
const LABEL = { width: 60, height: 36 };
const NAME = { width: 120, height: 84 };
const WHOLE = 240; // pixels: from this side on the whole image is shown, not its middle

/** A small picture, or the name of what has none. */
export function picture(number, name, alt = "") {
  if (number < 0) {
    const words = h("span", { class: "no-picture" }, h("bdi", {}, clean(name, 80) || "no picture"));
    if (alt) {
      words.setAttribute("role", "img");
      words.setAttribute("aria-label", `${alt} (no picture)`);
    }
    return words;
  }
  const image = h("img", { alt, decoding: "async", draggable: "false" });
  showPicture(image, number);
  return image;
}

/** Fills `place` for its width; `choose(row)` is called for the training image that is chosen. */
export function fillWall(place, { rows, more, rest, remaining }, choose) {
  const width = place.clientWidth;
  if (width === 0) return;
  const height = Math.round(width < 560 ? width * 1.1 : Math.min(width * 0.5, 420));
  place.style.height = `${height}px`;
  const all = more > 0 ? [...rows, { influence: rest, more }] : rows;
  // The rest may be larger than the smallest shown: what is folded must come last.
  const order = [...all].sort((a, b) => b.influence - a.influence);
  const tiles = tilesOf(order, remaining, width, height, LEAST);
  place.replaceChildren(...tiles.map((tile) => h("li", {}, draw(tile, choose))));
}

const sources = (row) => row.more ?? 1;

function draw(tile, choose) {
  const box = snapped(tile.box);
  const fits = (least) => box.width >= least.width && box.height >= least.height;
  const single = tile.kind === "row" && !tile.row.more;
  const made = h(single ? "button" : "div", single ? { type: "button", class: "tile" } : { class: `tile ${tile.kind === "remaining" ? "remaining" : "folded"}` });
  Object.assign(made.style, {
    left: `${box.x}px`,
    top: `${box.y}px`,
    width: `${box.width}px`,
    height: `${box.height}px`,
  });
  made.dataset.influence = tile.influence;
  const label = fits(LABEL) ? h("span", { class: "share", "aria-hidden": "true" }, share(tile.influence)) : null;
  if (single) {
    const { row } = tile;
    const first = row.owners[0];
    const words = `${row.rank}. ${share(row.influence)}: ${title(row)}, by ${creators(row)}`;
    made.setAttribute("aria-label", words);
    made.title = words;
    const shown = picture(first.picture, fits(NAME) ? title(row) : " ");
    shown.classList.toggle("whole", Math.min(box.width, box.height) >= WHOLE);
    made.append(shown);
    const records = row.owners.length + row.moreOwners;
    if (records > 1 && fits(LABEL)) made.append(h("span", { class: "copies", "aria-hidden": "true" }, `× ${count(records)}`));
    if (fits(NAME)) made.append(h("span", { class: "who", "aria-hidden": "true" }, h("bdi", {}, creators(row))));
    made.addEventListener("click", () => choose(row));
  } else {
    const folded = tile.kind === "row" ? [tile.row] : (tile.rows ?? []);
    const number = folded.reduce((sum, row) => sum + sources(row), 0);
    const words = tile.kind === "remaining"
      ? `Remaining influence: ${share(tile.influence)}`
      : `${images(number, "smaller training image")}: ${share(tile.influence)} together`;
    made.title = words;
    made.append(h("span", { class: "unseen" }, words));
    if (fits(LABEL)) {
      const short = tile.kind === "remaining" ? (fits(NAME) ? "remaining" : "") : `+ ${count(number)}`;
      if (short) made.append(h("span", { class: "count", "aria-hidden": "true" }, short));
    }
  }
  if (label) made.append(label);
  return made;
}
