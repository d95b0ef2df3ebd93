// Shares over the gallery by creator, licence or another field: bars with their intervals, a table.

import { report } from "./data.js";
import { byId, h } from "./dom.js";
import { known, share, span } from "./told.js";
import { FIELDS, clean, count, images, unknown } from "./words.js";

const FIRST = 12;
const name = (field) => FIELDS[field] ?? clean(field, 60);
const heading = (field) => name(field)[0].toUpperCase() + name(field).slice(1);

// Over one image there is nothing to draw again and again from.
const only = (report.summary.totals?.images ?? 0) === 1;

/** `search(name)` lists the images of a creator. */
export function showBars(search) {
  const fields = report.shares;
  if (fields.length === 0) {
    byId("shares-view").replaceChildren(h("p", { class: "hint" }, "No shares were summed up."));
    return;
  }
  // All fields are in the page, one of them shown: a print has every one.
  byId("shares-view").replaceChildren(...fields.map((field) => view(field, search)));
  byId("fields").replaceChildren(
    ...fields.map(({ field }) =>
      h("button", { type: "button", "aria-pressed": "false", "data-field": field, onclick: () => choose(field) }, heading(field)),
    ),
  );
  byId("shares-words").textContent =
    (only
      ? "The share of influence in the one image of the gallery, so without an interval. "
      : "The mean share of influence over all images of the gallery. Lines at a bar's end: 95\u00a0% bootstrap interval over images. ") +
    "What remains, and what has no value recorded, are rows of their own.";
  choose(fields[0].field);
}

function choose(field) {
  for (const button of byId("fields").children) {
    button.setAttribute("aria-pressed", String(button.dataset.field === field));
  }
  for (const each of byId("shares-view").children) {
    each.classList.toggle("not-chosen", each.dataset.field !== field);
  }
}

function title(line, field) {
  if (line.kind === "remaining") return "Remaining influence";
  if (line.kind === "unknown") return unknown(field)[0].toUpperCase() + unknown(field).slice(1);
  return clean(line.value, 300) || "(blank)";
}

function view(data, search) {
  const { field, values } = data;
  const most = Math.max(...values.map((line) => line.share_high ?? line.share), 1e-9);
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1].find((end) => end >= most) ?? 1;
  const bars = values.map((line) => bar(line, field, step, search));
  // What is no value of the field is seen without asking for more.
  const late = bars.filter((_, place) => place >= FIRST && values[place].kind === "known");
  for (const each of late) each.classList.add("late");
  const list = h("ul", { class: "bars" }, bars);
  const more = late.length > 0
    ? h("button", {
        type: "button",
        class: "quiet",
        onclick: () => {
          for (const each of late) each.classList.remove("late");
          more.remove();
          late[0].querySelector("button, .bar-name").focus();
        },
      }, `Show ${count(late.length)} more`)
    : null;
  const others = data.others > 0
    ? h("p", { class: "hint" }, `${count(data.others)} more in creators.parquet, ${share(data.others_share)} together.`)
    : null;
  return h("div", { class: only ? "share-view without-intervals" : "share-view", "data-field": field },
    h("h3", { class: "print-only" }, `By ${name(field)}`),
    h("p", { class: "scale hint", "aria-hidden": "true" }, h("span", {}, share(0)), h("span", {}, share(step))),
    list,
    more,
    others,
    table(data, field));
}

function interval(line) {
  if (only || !known(line.share_low) || !known(line.share_high)) return "";
  return span([line.share_low, line.share_high]) || "the same, rounded";
}

function bar(line, field, end, search) {
  const fill = h("span", { class: line.kind === "known" ? "fill" : `fill fill-${line.kind}` });
  fill.style.width = `${(line.share / end) * 100}%`;
  if (line.share === 0) fill.style.minWidth = "0";
  const spread = !only && known(line.share_low) && known(line.share_high);
  const whisker = spread ? h("span", { class: "whisker" }) : "";
  if (spread) {
    whisker.style.left = `${(line.share_low / end) * 100}%`;
    whisker.style.width = `${((line.share_high - line.share_low) / end) * 100}%`;
  }
  const named = h("bdi", {}, title(line, field));
  const label = field === "creator" && line.kind === "known"
    ? h("button", { type: "button", class: "as-text bar-name", title: "List the images that this creator has influence on", onclick: () => search(line.value) }, named)
    : h("span", { class: "bar-name", tabindex: "-1" }, named);
  return h("li", { class: `share-bar share-${line.kind}` },
    h("div", { class: "bar-head" },
      label,
      h("span", { class: "bar-number" }, share(line.share)),
      h("span", { class: "hint" }, interval(line) || (only ? "no interval (one image)" : "no interval"))),
    h("div", { class: "track", "aria-hidden": "true" }, fill, whisker));
}

function table({ values }, field) {
  const heads = [heading(field), "Share", "95\u00a0% interval", "Images", "Top source of", "Training images"];
  return h("details", { class: "fold" },
    h("summary", {}, "As a table", h("span", { class: "unseen" }, `: shares by ${name(field)}`)),
    h("div", { class: "table-view", tabindex: "0", role: "region", "aria-label": `Shares by ${name(field)}` },
      h("table", {},
        h("thead", {}, h("tr", {}, heads.map((head, i) => h("th", { scope: "col", class: i > 0 ? "number" : null }, head)))),
        h("tbody", {}, values.map((line) =>
          h("tr", {},
            h("th", { scope: "row" }, h("bdi", {}, title(line, field))),
            h("td", { class: "number" }, share(line.share)),
            h("td", { class: "number" }, interval(line) || "–"),
            h("td", { class: "number" }, count(line.images ?? 0)),
            h("td", { class: "number" }, line.kind === "remaining" ? "–" : images(line.top_of ?? 0, "image")),
            h("td", { class: "number" }, line.kind === "remaining" ? "–" : count(line.training_images ?? 0))))))));
}
