// Distributions as bar charts: SVG drawn here, the same numbers as a table below.

import { report } from "./data.js";
import { byId, h } from "./dom.js";
import { decimal, known, share } from "./told.js";
import { count, images } from "./words.js";

const WIDTH = 380;
const HEIGHT = 210;
const INSET = { left: 44, right: 12, top: 20, bottom: 38 };

const PLOTS = [
  ["effective", "Effective sources", "effective sources of an image", false],
  ["remaining", "Remaining influence", "influence that remains beside the listed training images", true],
  ["top", "Influence of the top source", "influence of the most influential training image", true],
];

export function showPlots() {
  byId("plots").replaceChildren(
    ...PLOTS.map(([name, title, axis, shares]) => plot(report.plots[name], title, axis, shares)),
  );
}

function s(tag, properties, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

const number = (value) => String(Number(value.toFixed(2)));

/** "10 % to 15 %", "32 and more" */
function rangeOf({ edges, open }, bin, shares) {
  const end = (value) => (shares ? `${number(value * 100)}\u00a0%` : number(value));
  if (open && bin === edges.length - 1) return `${end(edges[bin])} and more`;
  return `${end(edges[bin])} to ${end(edges[bin + 1])}`;
}

/** Round steps of an axis from 0: at most `most` of them. */
function steps(end, most) {
  const rough = end / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].find((times) => times * power >= rough) * power);
  return Array.from({ length: Math.floor(end / step) + 1 }, (_, i) => i * step);
}

function plot(data, title, axis, shares) {
  const total = data.counts.reduce((sum, each) => sum + each, 0);
  const words = (bin) =>
    `${rangeOf(data, bin, shares)}: ${images(data.counts[bin], "image")} (${share(data.counts[bin] / Math.max(total, 1))})`;
  const middle = shares ? share(data.median) : decimal(data.median);
  const average = shares ? share(data.mean) : decimal(data.mean);
  const idle = `median ${middle}, mean ${average}`;
  const readout = h("p", { class: "plot-readout", "aria-hidden": "true" }, idle);
  const svg = s("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    role: "img",
    "aria-label": `${title}: ${images(total, "image")}, ${idle}. The numbers are in the table below.`,
  });
  draw(svg, data, shares, axis, {
    tell: (bin) => (readout.textContent = words(bin)),
    rest: () => (readout.textContent = idle),
  });
  return h("figure", { class: "plot" },
    h("figcaption", {}, h("h3", {}, title)),
    svg,
    readout,
    h("details", { class: "fold" },
      h("summary", {}, "As a table", h("span", { class: "unseen" }, `: ${title}`)),
      h("table", {},
        h("caption", { class: "unseen" }, `${title}: number of images`),
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, title), h("th", { scope: "col" }, "Images"), h("th", { scope: "col" }, "Share"))),
        h("tbody", {}, data.counts.map((each, bin) =>
          h("tr", {},
            h("th", { scope: "row" }, rangeOf(data, bin, shares)),
            h("td", { class: "number" }, count(each)),
            h("td", { class: "number" }, share(each / Math.max(total, 1)))))))));
}

function draw(svg, data, shares, axis, { tell, rest }) {
  const { edges, counts, open, median } = data;
  const bins = counts.length;
  const right = WIDTH - INSET.right;
  const bottom = HEIGHT - INSET.bottom;
  const most = Math.max(...counts, 1);
  const x = (bin) => INSET.left + ((right - INSET.left) * bin) / bins;
  const y = (value) => bottom - ((bottom - INSET.top) * value) / most;
  for (const step of steps(most, 4)) {
    svg.append(
      s("line", { class: "grid", x1: INSET.left, x2: right, y1: y(step), y2: y(step) }),
      s("text", { class: "tick", x: INSET.left - 6, y: y(step) + 3.5, "text-anchor": "end" }, count(step)),
    );
  }
  counts.forEach((each, bin) => {
    const gap = Math.min(1, (x(1) - x(0)) * 0.1);
    const classes = open && bin === bins - 1 ? "column open-column" : "column";
    svg.append(s("rect", { class: classes, x: x(bin) + gap, width: x(1) - x(0) - 2 * gap, y: y(each), height: bottom - y(each) }));
  });
  svg.append(s("line", { class: "axis", x1: INSET.left, x2: right, y1: bottom, y2: bottom }));
  const even = edges.every((edge, bin) => bin < 2 || Math.abs(edge - edges[bin - 1] - (edges[1] - edges[0])) < 1e-5);
  const every = Math.ceil(bins / (shares ? 5 : 7));
  edges.forEach((edge, bin) => {
    const last = open && bin === bins - 1;
    if (bin % every !== 0 && !last) return;
    if (!last && open && bins - 1 - bin < every * 0.7) return;
    const label = shares ? `${number(edge * 100)} %` : `${last ? "≥ " : ""}${number(edge)}`;
    svg.append(
      s("line", { class: "axis", x1: x(bin), x2: x(bin), y1: bottom, y2: bottom + 4 }),
      s("text", { class: "tick", x: last ? x(bin + 1) : x(bin), y: bottom + 15, "text-anchor": last || x(bin) > right - 8 ? "end" : "middle" }, label),
    );
  });
  svg.append(s("text", { class: "axis-name", x: (INSET.left + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, even ? axis : `${axis} (steps grow)`));
  svg.append(s("text", { class: "axis-name", x: INSET.left - 6, y: 10, "text-anchor": "end" }, "images"));
  if (known(median)) {
    // Within its bin, whatever the widths are.
    const above = edges.findIndex((edge) => edge > median);
    const bin = above < 0 ? edges.length - 1 : Math.max(above - 1, 0);
    const upper = edges[bin + 1];
    const part = upper === undefined ? 0.5 : (median - edges[bin]) / (upper - edges[bin]);
    const at = x(Math.min(bin + Math.max(part, 0), bins));
    const late = at > right - 70;
    svg.append(
      s("line", { class: "median", x1: at, x2: at, y1: INSET.top - 8, y2: bottom }),
      s("text", { class: "median-name", x: at + (late ? -4 : 4), y: INSET.top - 3, "text-anchor": late ? "end" : "start" }, `median ${shares ? share(median) : decimal(median)}`),
    );
  }
  counts.forEach((_, bin) => {
    const hit = s("rect", { class: "hit", x: x(bin), width: x(1) - x(0), y: INSET.top, height: bottom - INSET.top });
    hit.addEventListener("pointerenter", () => tell(bin));
    hit.addEventListener("pointerleave", rest);
    svg.append(hit);
  });
}
