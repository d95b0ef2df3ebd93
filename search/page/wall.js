// The wall: training images whose area is their influence.

import { showImage } from "./api.js";
import { byId, h } from "./dom.js";
import { snapped, tilesOf } from "./treemap.js";
import { copies, count, creators, images, percent, range, title } from "./words.js";

const LEAST = 30; // pixels: a training image with a shorter side is folded with the others
const LABEL = { width: 64, height: 40 }; // smallest tile that carries its percentage
const MUCH = 0.25; // remaining influence from which on the shown images can be seen alone
const WHOLE = 240; // pixels: from this side on the whole image is shown, not its middle
const NAME = { width: 130, height: 96 }; // smallest tile that names the creator

let answer = null;
// What is shown: rows from one on (above 0 while looking into folded ones), and whether they stand
// alone, without the remaining influence, on a scale of their own.
let view = { from: 0, alone: false };
const back = []; // the views that this one was entered from
let open = () => {};
const pictures = new Map(); // path of a thumbnail -> <img>, so that laying out anew loads nothing
const missing = new Set(); // paths of thumbnails that could not be had

/** Shows the answer; `onOpen(row)` is called for the training image that is chosen. */
export function showWall(next, onOpen) {
  if (answer?.id !== next.id) {
    pictures.clear();
    missing.clear();
  }
  answer = next;
  open = onOpen;
  view = { from: 0, alone: false };
  back.length = 0;
  layOut();
}

function size(wall) {
  const width = wall.clientWidth;
  const height = width < 560 ? Math.round(width * 1.3) : Math.round(Math.min(width * 0.62, 620));
  return { width, height };
}

function layOut(focus = null) {
  const wall = byId("wall");
  if (!answer || wall.clientWidth === 0) return;
  const { width, height } = size(wall);
  wall.style.height = `${height}px`;
  const rows = answer.rows.slice(view.from);
  const tiles = tilesOf(rows, view.alone ? 0 : answer.remaining, width, height, LEAST);
  const had = focus ?? (wall.contains(document.activeElement) ? 0 : null);
  wall.replaceChildren(...tiles.map((tile) => h("li", {}, button(tile))));
  const buttons = [...wall.querySelectorAll("button")];
  if (buttons.length > 0) buttons[0].tabIndex = 0;
  if (had !== null && buttons[had]) buttons[had].focus();
  showZoom();
  showFold(tiles.find(({ kind }) => kind === "folded"));
  byId("alone").hidden = view.alone || rows.length === 0 || answer.remaining < MUCH;
  tell(null);
}

/** The way into the folded tile where that is too thin to hit. */
function showFold(tile) {
  const into = byId("fold");
  into.hidden = !tile;
  if (!tile) return;
  into.textContent = `Enlarge the ${count(tile.rows.length)} smaller images (${percent(tile.influence)})`;
  into.onclick = () => enter(tile.rows[0]);
}

function showZoom() {
  const bar = byId("zoomed");
  bar.hidden = !view.alone;
  if (!view.alone) return;
  const inside = answer.rows.slice(view.from);
  const share = inside.reduce((sum, row) => sum + row.influence, 0);
  bar.replaceChildren(
    h("button", { type: "button", class: "quiet", onclick: leave }, "Back"),
    h(
      "span",
      {},
      `Enlarged: ${images(inside.length, view.from > 0 ? "smaller image" : "image")}, ` +
        `${percent(share)} together`,
    ),
  );
}

function enter(row) {
  back.push(view);
  view = { from: answer.rows.indexOf(row), alone: true };
  layOut(0);
}

function leave() {
  const entered = view.from > 0 ? ".folded" : ".tile";
  view = back.pop();
  layOut();
  choose(byId("wall").querySelector(entered) ?? byId("wall").querySelector(".tile"));
}

const fits = ({ width, height }, least) => width >= least.width && height >= least.height;

function button(tile) {
  const box = snapped(tile.box);
  const made = h("button", { type: "button", class: `tile ${tile.kind}`, tabindex: "-1" });
  Object.assign(made.style, {
    left: `${box.x}px`,
    top: `${box.y}px`,
    width: `${box.width}px`,
    height: `${box.height}px`,
  });
  made.dataset.influence = tile.influence;
  const label = fits(box, LABEL) ? h("span", { class: "share" }, percent(tile.influence)) : null;
  if (tile.kind === "row") {
    const { row } = tile;
    made.dataset.rank = row.rank;
    made.setAttribute("aria-label", inWords(row));
    const shown = picture(row, fits(box, NAME));
    const whole = Math.min(box.width, box.height) >= WHOLE;
    shown.classList.toggle("whole", whole);
    made.append(shown);
    if (row.owners.length > 1 && fits(box, LABEL)) {
      const number = row.members ? `≈ ${count(row.members.length)}` : `× ${count(row.owners.length)}`;
      made.append(h("span", { class: "copies" }, number));
    }
    if (fits(box, NAME)) made.append(h("span", { class: "who" }, creators(row)));
    made.addEventListener("click", () => open(row));
  } else if (tile.kind === "folded") {
    const words = `${images(tile.rows.length, "smaller image")}`;
    made.setAttribute("aria-label", `${words}, ${percent(tile.influence)} together. Enlarge them.`);
    if (fits(box, LABEL)) made.append(h("span", { class: "count" }, `+ ${count(tile.rows.length)}`));
    made.addEventListener("click", () => enter(tile.rows[0]));
  } else {
    made.setAttribute("aria-label", `Remaining influence, not shown: ${percent(tile.influence)}`);
    if (fits(box, NAME)) made.append(h("span", { class: "count" }, "remaining"));
    made.addEventListener("click", () => {
      byId("method").scrollIntoView({ block: "nearest" });
      byId("method-title").focus();
    });
  }
  if (label) made.append(label);
  made.addEventListener("mouseenter", () => tell(tile));
  made.addEventListener("focus", () => tell(tile));
  return made;
}

/** The thumbnail, or what stands for it: never an image of another host. */
function picture(row, named) {
  if (!row.thumbnail || missing.has(row.thumbnail)) return noPicture(row, named);
  let image = pictures.get(row.thumbnail);
  if (!image) {
    // Low, so that another question does not queue behind hundreds of these.
    image = h("img", { alt: "", decoding: "async", draggable: "false", fetchpriority: "low" });
    image.addEventListener("error", () => {
      missing.add(row.thumbnail);
      const where = image.closest(".tile"); // as wide as it is now, not when it was asked for
      if (where) image.replaceWith(noPicture(row, fits(where.getBoundingClientRect(), NAME)));
    });
    pictures.set(row.thumbnail, image);
    showImage(image, row.thumbnail);
  }
  return image;
}

const noPicture = (row, named) =>
  h("span", { class: "no-picture" }, named ? h("bdi", {}, title(row)) : null);

function inWords(row) {
  const many = copies(row) ? `, ${copies(row)}` : "";
  return `${row.rank}. ${percent(row.influence)}: ${title(row)}, by ${creators(row)}${many}`;
}

/** The line below the wall: what is under the pointer or has the focus. */
function tell(tile) {
  const readout = byId("readout");
  if (!tile) {
    const hint = answer.rows.length > 0 ? "Point at an image, or choose one." : "";
    readout.replaceChildren(h("span", { class: "hint" }, hint));
  } else if (tile.kind === "row") {
    const { row } = tile;
    const span = answer.method === "estimated" ? range(row.interval) : "";
    readout.replaceChildren(
      h("strong", {}, percent(row.influence)),
      span ? h("span", { class: "hint" }, span) : "",
      h("bdi", { class: "readout-title" }, title(row)),
      h("bdi", { class: "hint" }, creators(row)),
      h("span", { class: "hint" }, `similarity ${row.similarity.toFixed(3)}`),
      row.members ? h("span", { class: "hint" }, copies(row)) : "",
    );
  } else {
    const words =
      tile.kind === "folded"
        ? `${images(tile.rows.length, "image")} too small to see here: choose to enlarge`
        : "remaining influence: training images that are not shown";
    readout.replaceChildren(h("strong", {}, percent(tile.influence)), h("span", {}, words));
  }
}

function choose(tile) {
  for (const other of byId("wall").querySelectorAll("button")) other.tabIndex = -1;
  tile.tabIndex = 0;
  tile.focus();
}

/** Arrow keys, pointer and width. */
export function readyWall() {
  byId("alone").addEventListener("click", () => enter(answer.rows[0]));
  const wall = byId("wall");
  wall.addEventListener("keydown", (event) => {
    const tiles = [...wall.querySelectorAll("button")];
    const at = tiles.indexOf(document.activeElement);
    if (at === -1) return;
    const to = {
      ArrowRight: at + 1,
      ArrowDown: at + 1,
      ArrowLeft: at - 1,
      ArrowUp: at - 1,
      Home: 0,
      End: tiles.length - 1,
    }[event.key];
    if (event.key === "Escape" && view.alone) leave();
    if (to === undefined) return;
    event.preventDefault();
    choose(tiles[Math.min(Math.max(to, 0), tiles.length - 1)]);
  });
  wall.addEventListener("mouseleave", () => tell(null));
  let width = 0;
  new ResizeObserver(() => {
    if (wall.clientWidth === width) return;
    width = wall.clientWidth;
    layOut();
  }).observe(wall);
}
