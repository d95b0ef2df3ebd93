// All images of the gallery: searched, sorted, a page at a time.

import { report } from "./data.js";
import { byId, h } from "./dom.js";
import { openImage } from "./opened.js";
import { decimal, flagTitle, share } from "./told.js";
import { picture } from "./wall.js";
import { clean, count, images, unknown } from "./words.js";

const PAGE = 50;
const MOST = 2000; // images that can be shown, and so printed, on one page

// What is sorted by: [name, words, value, greatest first?]
const SORTS = [
  ["order", "Order of the gallery", (image) => image.place, false],
  ["key", "Key", null, false],
  ["remaining", "Remaining influence", (image) => image.remaining, true],
  ["effective", "Effective sources", (image) => image.effective, true],
  ["top", "Top influence", (image) => image.top, true],
  ["similarity", "Similarity", (image) => image.similarity, true],
];
const HEADS = [
  [null, "Picture", "unseen"], ["key", "Image"], ["remaining", "Remaining"], ["effective", "Effective sources"],
  ["top", "Top influence"], ["similarity", "Similarity"], [null, "Main creator"], [null, "Flags"],
];

let all = [];
let names = []; // of creators
let texts = []; // what is searched beside those names, by place
let plainNames = [];
let found = [];
// `creator` is the name of the one that the list is of, null for none; `size` the images of a page.
const state = { words: "", flag: "", creator: null, sort: "order", down: false, page: 0, size: PAGE };

const plain = (text) => text.normalize("NFKC").toLowerCase();

/** The list is there from now on. */
export function showGallery(loaded, creators) {
  [all, names] = [loaded, creators];
  plainNames = names.map(plain);
  texts = all.map((image) => plain([image.key, image.prompt, ...image.flags, ...image.flags.map(flagTitle)].join("\n")));
  const option = (value, words) => h("option", { value }, words);
  byId("flag").replaceChildren(
    option("", "any or none"),
    option("*", "any flag"),
    ...report.flags.map((flag) => option(flag, flagTitle(flag))),
  );
  byId("sort").replaceChildren(...SORTS.map(([name, words]) => option(name, words)));
  byId("finder").addEventListener("submit", (event) => event.preventDefault());
  byId("words").addEventListener("input", () => change({ words: byId("words").value }));
  byId("flag").addEventListener("change", () => change({ flag: byId("flag").value }));
  byId("sort").addEventListener("change", () => sortBy(byId("sort").value));
  byId("order").addEventListener("click", () => change({ down: !state.down }));
  change({});
}

/** Lists the images that a creator has influence on, and goes there: exactly those of that name,
 *  while words are searched for anywhere. */
export function searchCreator(name) {
  byId("words").value = "";
  byId("flag").value = "";
  change({ words: "", flag: "", creator: name });
  byId("only").querySelector("button")?.focus({ preventScroll: true });
  byId("images").scrollIntoView();
}

function showOnly() {
  byId("only").hidden = state.creator === null;
  byId("only").replaceChildren(
    h("span", {}, "Images that ", h("strong", {}, h("bdi", {}, clean(state.creator, 300) || "(blank)")), " has influence on, however little."), " ",
    h("button", {
      type: "button",
      class: "quiet small",
      onclick: () => {
        change({ creator: null });
        byId("words").focus({ preventScroll: true });
      },
    }, "All images"),
  );
}

function sortBy(name) {
  const down = name === state.sort ? !state.down : SORTS.find(([each]) => each === name)[3];
  byId("sort").value = name;
  change({ sort: name, down });
}

function change(to) {
  Object.assign(state, { page: 0 }, to);
  if (!("page" in to) && !("size" in to)) search();
  if ("creator" in to) showOnly();
  show();
}

/** Whether an image has all words: in its texts, but for those that one creator's name has. */
function matching(terms) {
  const marked = new Map(); // words -> which creators have all of them
  const having = (words) => {
    const key = words.join(" ");
    if (!marked.has(key)) marked.set(key, Uint8Array.from(plainNames, (name) => words.every((word) => name.includes(word))));
    return marked.get(key);
  };
  return (image) => {
    const others = terms.filter((term) => !texts[image.place].includes(term));
    if (others.length === 0) return true;
    const creators = having(others);
    return image.influencers.some((number) => creators[number] === 1);
  };
}

function search() {
  const matches = matching(plain(state.words).split(/\s+/).filter(Boolean));
  const creator = names.indexOf(state.creator);
  found = all.filter(
    (image) =>
      (state.creator === null || image.influencers.includes(creator)) &&
      matches(image) &&
      (state.flag === "" || (state.flag === "*" ? image.flags.length > 0 : image.flags.includes(state.flag))),
  );
  const [, , value] = SORTS.find(([name]) => name === state.sort);
  const sign = state.down ? -1 : 1;
  // What has no value comes last, whichever way.
  const compare = value
    ? (a, b) => {
        const [one, other] = [value(a), value(b)];
        if (one === null || other === null) return (one === null) - (other === null) || a.place - b.place;
        return sign * (one - other) || a.place - b.place;
      }
    : (a, b) => sign * (a.key < b.key ? -1 : a.key > b.key ? 1 : 0) || a.place - b.place;
  found.sort(compare);
}

function show() {
  const pages = Math.max(Math.ceil(found.length / state.size), 1);
  state.page = Math.min(Math.max(state.page, 0), pages - 1);
  const first = state.page * state.size;
  const shown = found.slice(first, first + state.size);
  const some = found.length === all.length ? "" : ` of ${count(all.length)}`;
  const which = found.length > state.size ? `, ${count(first + 1)} to ${count(first + shown.length)} shown` : "";
  byId("found").textContent = found.length === 0
    ? "No image has all of these words. Search for fewer of them, or another flag."
    : `${images(found.length, "image")}${some}${which}`;
  // A print must not pass for the whole gallery.
  byId("printed").textContent = shown.length === all.length
    ? ""
    : ` – ${shown.length === 0 ? "none" : `${count(first + 1)} to ${count(first + shown.length)}`} of ${count(found.length)} printed` +
      (found.length === all.length ? "" : ` that were searched for, among ${count(all.length)}`);
  const order = byId("order");
  order.textContent = state.down ? "Greatest first" : "Least first";
  if (state.sort === "order" || state.sort === "key") order.textContent = state.down ? "Last to first" : "First to last";
  byId("heads").replaceChildren(...HEADS.map(headCell));
  byId("rows").replaceChildren(...shown.map(line));
  byId("pages").replaceChildren(...pager(pages));
}

function headCell([name, words, className]) {
  if (!name) return h("th", { scope: "col" }, h("span", { class: className }, words));
  const chosen = state.sort === name;
  const mark = chosen ? (state.down ? " ↓" : " ↑") : "";
  return h("th", { scope: "col", class: name === "key" ? null : "number", "aria-sort": chosen ? (state.down ? "descending" : "ascending") : null },
    h("button", {
      type: "button",
      class: "as-text",
      onclick: () => {
        sortBy(name);
        byId("heads").querySelector(`[data-sort="${name}"]`).focus();
      },
      "data-sort": name,
    }, words, h("span", { "aria-hidden": "true" }, mark)),
    h("span", { class: "print-only" }, `${words}${mark}`));
}

function line(image) {
  const open = () => void openImage(image, found);
  const key = clean(image.key, 200) || "(no key)";
  const number = (label, words) => h("td", { class: "number", "data-label": label }, words);
  // The picture opens, too, for a pointer; the name is what the keyboard goes to.
  const small = h("div", { class: "small-picture" }, picture(image.picture, ""));
  small.addEventListener("click", open);
  return h("tr", {},
    h("td", { class: "cell-picture" }, small),
    h("th", { scope: "row" },
      h("button", { type: "button", class: "as-text open", onclick: open }, h("bdi", {}, key)),
      h("bdi", { class: "prompt hint" }, clean(image.prompt, 300))),
    number("Remaining", share(image.remaining)),
    number("Effective sources", decimal(image.effective)),
    number("Top influence", share(image.top)),
    number("Similarity", decimal(image.similarity, 3)),
    h("td", { class: "cell-creator", "data-label": "Main creator" },
      h("bdi", {}, clean(image.main, 120) || unknown("creator")),
      image.main ? h("span", { class: "hint" }, " ", share(image.mainShare)) : null),
    h("td", { class: "cell-flags" }, image.flags.length > 0
      ? h("ul", { class: "flags" }, image.flags.map((flag) => h("li", {}, flagTitle(flag))))
      : null));
}

function pager(pages) {
  const whole = h("button", {
    type: "button",
    class: "quiet",
    onclick: () => {
      change({ size: state.size === PAGE ? MOST : PAGE });
      byId("images-title").scrollIntoView();
      byId("pages").querySelector("button:last-of-type")?.focus({ preventScroll: true });
    },
  }, state.size === PAGE ? `Show all ${count(found.length)} on one page` : `Show ${count(PAGE)} a page`);
  const sized = found.length > PAGE && (found.length <= MOST || state.size > PAGE) ? [whole] : [];
  if (pages === 1) return sized;
  const go = (to, words, label) =>
    h("button", {
      type: "button", class: "quiet", disabled: to < 0 || to >= pages || to === state.page, "aria-label": label,
      onclick: () => {
        change({ page: to });
        byId("images-title").scrollIntoView();
        byId("rows").querySelector("button")?.focus({ preventScroll: true });
      },
    }, words);
  return [
    go(0, "First", "First page"),
    go(state.page - 1, "Previous", "Previous page"),
    h("span", {}, `Page ${count(state.page + 1)} of ${count(pages)}`),
    go(state.page + 1, "Next", "Next page"),
    go(pages - 1, "Last", "Last page"),
    ...sized,
  ];
}
