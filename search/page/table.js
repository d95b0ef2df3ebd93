// The same rows as text.

import { byId, h } from "./dom.js";
import { copies, creators, percent, range, title, unknown, clean } from "./words.js";

export function showTable(answer, open) {
  const estimated = answer.method === "estimated";
  // What a rights-holder looks for first: on a phone the rest is scrolled to.
  const heads = ["#", "Influence", ...(estimated ? ["95 % range"] : [])];
  heads.push("Training image", "Creator", "Licence", "Similarity", "Copies");
  const line = (row) =>
    h(
      "tr",
      {},
      h("td", { class: "number" }, String(row.rank)),
      h("td", { class: "number" }, percent(row.influence)),
      estimated ? h("td", { class: "number" }, range(row.interval) || "-") : null,
      h(
        "th",
        { scope: "row" },
        h("button", { type: "button", class: "as-text", onclick: () => open(row) }, title(row)),
      ),
      h("td", {}, h("bdi", {}, creators(row))),
      h("td", {}, h("bdi", {}, clean(row.owners[0].licence) || unknown("licence"))),
      h("td", { class: "number" }, row.similarity.toFixed(3)),
      h("td", { class: "number" }, row.members ? copies(row) : String(row.owners.length)),
    );
  const last = h(
    "tr",
    {},
    h("td"),
    h("td", { class: "number" }, percent(answer.remaining)),
    estimated ? h("td", { class: "number" }, range(answer.remaining_interval) || "-") : null,
    h("th", { scope: "row", colspan: "5" }, "remaining influence: training images not shown"),
  );
  byId("table-view").replaceChildren(
    h(
      "table",
      {},
      h("caption", { class: "unseen" }, "Training images by influence"),
      h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", {}, answer.rows.map(line)),
      h("tfoot", {}, last),
    ),
  );
}
