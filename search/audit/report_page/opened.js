// One generated image, opened: its wall of sources, and all that is known of each.

import { details } from "./data.js";
import { announce, byId, h } from "./dom.js";
import { decimal, facts, flagTitle, share, span } from "./told.js";
import { fillWall, picture } from "./wall.js";
import { clean, count, images, title, unknown } from "./words.js";

let list = []; // the images as searched and sorted, for going on to the next
let current = null;
let redraw = () => {};

/** Opens the dialog; `among` are the images that "next" and "previous" go through. */
export async function openImage(image, among) {
  list = among;
  const dialog = byId("opened");
  if (!dialog.open) dialog.showModal();
  await show(image);
  byId("opened-title").focus();
}

async function show(image) {
  current = image;
  const dialog = byId("opened");
  const answer = await details(image);
  if (current !== image) return; // another one was asked for while this was unpacked
  const wall = h("ul", { class: "wall", "aria-label": "Training images, area in proportion to influence" });
  const cards = h("ol", { class: "sources" }, answer.rows.map((row) => card(row, image.method)), rest(answer));
  dialog.replaceChildren(
    head(image),
    h("div", { class: "opened-body" },
      about(image, answer),
      h("div", { class: "opened-sources" },
        wall,
        h("h3", {}, answer.rows.length > 0 ? "Sources" : "No sources"),
        cards)),
  );
  dialog.scrollTop = 0;
  redraw = () =>
    fillWall(wall, answer, (row) => {
      const chosen = cards.children[row.rank - 1];
      chosen.scrollIntoView({ block: "center" });
      chosen.focus();
    });
  redraw();
}

function head(image) {
  const at = list.indexOf(image);
  const go = (to, words, label) =>
    h("button", { type: "button", class: "quiet", disabled: !list[to], "aria-label": label, onclick: () => step(to) }, words);
  return h("div", { class: "details-head" },
    h("div", {},
      h("h2", { id: "opened-title", tabindex: "-1" }, h("bdi", {}, clean(image.key, 300))),
      h("p", { class: "opened-prompt" }, text(image.prompt))),
    h("div", { class: "actions" },
      go(at - 1, "←", "Previous image"),
      go(at + 1, "→", "Next image"),
      h("button", { type: "button", class: "quiet", onclick: () => byId("opened").close() }, "Close")));
}

async function step(to) {
  if (!list[to]) return;
  await show(list[to]);
  byId("opened-title").focus();
  announce(`Image ${count(to + 1)} of ${count(list.length)}: ${clean(list[to].key, 100)}`);
}

const text = (value, limit = 2000) => (clean(value, limit) ? h("bdi", {}, clean(value, limit)) : "");
const spread = (interval, method) => (method === "estimated" ? span(interval) : "");

function about(image, answer) {
  const interval = spread(answer.interval, image.method);
  return h("div", { class: "opened-about" },
    h("figure", { class: "query" },
      h("div", { class: "query-frame" }, picture(image.picture, image.key, "The generated image"))),
    image.flags.length > 0 ? h("ul", { class: "flags", "aria-label": "Flags" }, image.flags.map((flag) => h("li", {}, flagTitle(flag)))) : null,
    facts([
      ["Remaining", `${share(image.remaining)}${interval ? ` (${interval})` : ""}`],
      ["Effective sources", decimal(image.effective)],
      ["Sources", count(image.sources ?? 0)],
      ["Main creator", image.main ? h("bdi", {}, `${clean(image.main, 300)}, ${share(image.mainShare)}`) : ""],
      ["Method", image.method],
      ["With influence", answer.support === null ? "" : images(answer.support)],
      ["Copy of", answer.copied ? text(title({ owners: [answer.copied] })) : text(answer.copyOf)],
      ["Copy score", image.score === null ? "" : decimal(image.score, 3)],
      ["Like", text(image.duplicateOf)],
      ["Note", text(answer.note)],
      ["File", text(answer.path)],
      ["Size", answer.width ? `${answer.width} × ${answer.height}` : ""],
      ["SHA-256", answer.sha256 ? h("code", {}, answer.sha256) : ""],
      ["Metadata", answer.metadata && answer.metadata !== "{}" ? h("code", {}, clean(answer.metadata)) : ""],
    ]));
}

function card(row, method) {
  const first = row.owners[0];
  const interval = spread(row.interval, method);
  const several = row.owners.length > 1;
  return h("li", { class: "source", tabindex: "-1" },
    h("div", { class: "source-picture" }, picture(first.picture, title(row))),
    h("div", {},
      h("p", { class: "source-head" },
        h("span", { class: "rank" }, `${row.rank}.`), " ",
        h("strong", {}, share(row.influence)),
        interval ? h("span", { class: "hint" }, ` (${interval})`) : null,
        h("span", { class: "hint" }, `similarity ${decimal(row.similarity, 3)}`)),
      several ? h("p", { class: "hint" }, `${count(row.owners.length + row.moreOwners)} equal images; influence shared evenly among them`) : null,
      row.owners.map(owner),
      row.moreOwners > 0 ? h("p", { class: "hint" }, `and ${images(row.moreOwners, "more record")} in attributions.parquet`) : null));
}

function owner(record) {
  return h("div", { class: "owner" },
    clean(record.caption) ? h("p", { class: "source-caption" }, h("bdi", {}, clean(record.caption))) : null,
    facts([
      ["Key", text(record.key)],
      ["Creator", text(record.creator) || unknown("creator")],
      ["Licence", text(record.licence) || unknown("licence")],
      ["Source", text(record.dataset)],
      // Text, not a link: where it leads is not this report's to vouch for.
      ["Link", clean(record.url) ? h("span", { class: "address-text" }, clean(record.url)) : ""],
      ["File", text(record.path)],
    ]));
}

function rest(answer) {
  const lines = [];
  if (answer.more > 0) {
    lines.push(h("li", { class: "source source-rest" },
      h("div", { class: "source-picture" }, h("span", { class: "folded swatch" })),
      h("p", {}, h("strong", {}, share(answer.rest)), ` with ${images(answer.more, "more training image")}, in attributions.parquet`)));
  }
  lines.push(h("li", { class: "source source-rest" },
    h("div", { class: "source-picture" }, h("span", { class: "remaining swatch" })),
    h("p", {}, h("strong", {}, share(answer.remaining)), " remaining influence, given to no training image")));
  return lines;
}

/** Arrow keys, a click beside the dialog, and another width. */
export function readyOpened() {
  const dialog = byId("opened");
  dialog.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    void step(list.indexOf(current) + by);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    current = null;
    redraw = () => {};
    dialog.replaceChildren();
  });
  let width = 0;
  new ResizeObserver(() => {
    if (!dialog.open || dialog.clientWidth === width) return;
    width = dialog.clientWidth;
    redraw();
  }).observe(dialog);
}
