// Numbers and methods in words.

/** One printable line of text that others wrote; '' stays ''. */
export function clean(text, limit = 2000) {
  return String(text ?? "")
    .slice(0, limit)
    .replace(/[\p{C}\p{Z}]+/gu, " ")
    .trim();
}

/** Shares add up to 1 but for rounding: less than this is none. */
export const NOTHING = 1e-9;

/** 0..1 as a percentage that never rounds something to nothing, or a part to the whole. */
export function percent(share) {
  const value = Math.min(Math.max(share, 0), 1);
  if (value < NOTHING) return "0 %";
  if (value > 1 - NOTHING) return "100 %";
  if (value < 0.0001) return "< 0.01 %";
  if (value < 0.01) return `${(value * 100).toFixed(2)} %`;
  if (value >= 0.9995) return "> 99.9 %";
  return `${(value * 100).toFixed(1)} %`;
}

/** "41.0 % to 44.2 %", or '' where both ends read alike. */
export function range([low, high]) {
  const ends = [percent(low), percent(high)];
  return ends[0] === ends[1] ? "" : `${ends[0]} to ${ends[1]}`;
}

/** Bytes as "32 MiB", the limit's own unit. */
export const size = (bytes) => `${(bytes / 2 ** 20).toFixed(1).replace(/\.0$/, "")} MiB`;

export const count = (number) => Number(number).toLocaleString("en");

export const images = (number, kind = "training image") =>
  `${count(number)} ${kind}${number === 1 ? "" : "s"}`;

export const FIELDS = { creator: "creator", licence: "licence", dataset: "source" };

export const unknown = (field) => `unknown ${FIELDS[field] ?? field}`;

/** All creators of a row in one line. */
export function creators(row) {
  const names = [...new Set(row.owners.map((owner) => clean(owner.creator)).filter(Boolean))];
  return names.join("; ") || unknown("creator");
}

/** How many images a row stands for: '' for one. */
export function copies(row) {
  if (row.members) return `${count(row.members.length)} near-equal images`;
  return row.owners.length > 1 ? `${count(row.owners.length)} equal copies` : "";
}

/** What a row is called: its caption, else its key; the beginning where that is long. */
export function title(row) {
  const words = clean(row.owners[0].caption) || clean(row.owners[0].key);
  return words.length > 160 ? `${[...words].slice(0, 150).join("").trimEnd()}…` : words;
}

/** The last part of a path or an address. */
export const lastPart = (name) => clean(name).split("/").filter(Boolean).pop() ?? "";

/** How the shares were computed. */
export function methodInWords(answer) {
  const all = images(answer.population);
  if (answer.method === "exact") {
    return `Every one of the ${all} was compared, so nothing is left out of the shares.`;
  }
  if (answer.method === "complete") {
    const support = answer.support === null ? "All" : `All ${count(answer.support)}`;
    return `${support} of the ${all} whose influence is above zero were found; the others carry none.`;
  }
  return (
    `Of the ${all}, the nearest were compared one by one; the influence of the others was ` +
    "estimated from a random sample. The true shares lie within the ranges given, with 95 % confidence."
  );
}

/** What the remaining influence is. */
export function remainingInWords(answer) {
  if (answer.remaining < NOTHING && answer.remaining_interval[1] < NOTHING) {
    return "Nothing remains for other training images.";
  }
  const span = answer.method === "estimated" ? range(answer.remaining_interval) : "";
  const filtered = Object.keys(answer.where).length > 0;
  return (
    `${percent(answer.remaining)}${span ? ` (${span})` : ""} of the influence lies with training ` +
    `images that are not shown${filtered ? ", those that the filter leaves out among them" : ""}.`
  );
}
