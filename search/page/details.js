// One training image: whole picture, owners, numbers.

import { showImage } from "./api.js";
import { byId, h, outwardLink } from "./dom.js";
import { clean, copies, count, creators, percent, range, title, unknown } from "./words.js";

const OWNERS = 20;

/** Opens the dialog on a row; `filter(field, value)` shows only images like it, null if it cannot. */
export function showDetails(answer, row, filter) {
  const dialog = byId("details");
  const close = () => dialog.close();
  const facts = h("dl", { class: "facts" });
  const fact = (name, ...values) => facts.append(h("div", {}, h("dt", {}, name), h("dd", {}, ...values)));
  const number = (one) => {
    const span = answer.method === "estimated" ? range(one.interval) : "";
    return [h("strong", {}, percent(one.influence)), span ? ` (${span})` : ""];
  };
  fact("Influence", ...number(row), row.members ? " together" : "");
  fact("Similarity", row.similarity.toFixed(4), row.members ? ", of the most influential" : "");
  if (!row.members) identity(row, fact);

  const shown = row.owners.slice(0, OWNERS);
  const only = filter && ((field, value) => (dialog.close(), filter(field, value)));
  const records = row.members
    ? row.members.flatMap((one) => {
        const its = one.owners.filter((owner) => shown.includes(owner));
        return its.length > 0 ? [member(one, its, number(one), only)] : [];
      })
    : shown.map((owner) => record(owner, row, only));
  const more = row.owners.length - shown.length;
  dialog.replaceChildren(
    h("div", { class: "details-head" },
      h("p", { class: "rank" },
        `Training image ${row.rank} of ${count(answer.given ?? answer.rows.length)}`),
      h("button", { type: "button", class: "quiet", onclick: close }, "Close")),
    h("div", { class: "details-body" },
      picture(row),
      h("div", { class: "details-text" },
        h("h2", { id: "details-title" }, h("bdi", {}, title(row))),
        facts,
        copies(row) ? h("h3", {}, `${copies(row)}, each with its record`) : null,
        records,
        more > 0 ? h("p", { class: "hint" }, `and ${count(more)} more; the JSON has them all.`) : null,
        h("div", { class: "actions" }, step(answer, row, -1, filter), step(answer, row, 1, filter)))),
  );
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function picture(row) {
  const none = () =>
    h("div", { class: "details-none" },
      h("p", {}, "No picture of this training image is kept here."));
  const frame = h("div", { class: "details-picture" });
  if (!row.thumbnail) {
    frame.append(none());
    return frame;
  }
  const image = h("img", { alt: `Training image: ${title(row)}, by ${creators(row)}` });
  image.addEventListener("error", () => image.replaceWith(none()));
  showImage(image, row.thumbnail);
  frame.append(image);
  return frame;
}

function identity(row, fact) {
  if (row.width > 0) fact("Size", `${count(row.width)} × ${count(row.height)} pixels`);
  if (row.sha256) fact("SHA-256", h("code", {}, row.sha256));
}

/** One of several near-equal images, with what is its own. */
function member(row, owners, number, only) {
  const facts = h("dl", { class: "facts" });
  identity(row, (name, value) => facts.append(h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  const image = row.thumbnail ? h("img", { alt: "" }) : h("span", { class: "no-picture" });
  image.addEventListener("error", () => image.replaceWith(h("span", { class: "no-picture" })));
  if (row.thumbnail) showImage(image, row.thumbnail);
  return h(
    "section",
    { class: "member", "aria-label": `Training image ${row.rank}` },
    image,
    h("p", {}, ...number, h("span", { class: "hint" }, ` similarity ${row.similarity.toFixed(4)}`)),
    facts,
    owners.map((owner) => record(owner, row, only)),
  );
}

function record(owner, row, filter) {
  const list = h("dl", { class: "facts" });
  const only = (field) =>
    filter && owner[field]
      ? h(
          "button",
          {
            type: "button",
            class: "quiet small",
            "aria-label": `Show only ${clean(owner[field])}`,
            onclick: () => filter(field, owner[field]),
          },
          "only these",
        )
      : null;
  const fact = (name, value, ...rest) =>
    list.append(h("div", {}, h("dt", {}, name), h("dd", {}, value, " ", ...rest.filter(Boolean))));
  fact("Creator", h("bdi", {}, clean(owner.creator) || unknown("creator")), only("creator"));
  fact("Licence", h("bdi", {}, clean(owner.licence) || unknown("licence")), only("licence"));
  if (owner.dataset) fact("Source", h("bdi", {}, clean(owner.dataset)), only("dataset"));
  if (owner.caption && clean(owner.caption) !== title(row)) fact("Caption", h("bdi", {}, clean(owner.caption)));
  if (owner.url) fact("Link", outwardLink(clean(owner.url)));
  fact("Key", h("bdi", {}, h("code", {}, clean(owner.key))));
  return list;
}

function step(answer, row, by, filter) {
  const next = answer.rows[answer.rows.indexOf(row) + by];
  return h(
    "button",
    {
      type: "button",
      class: "quiet",
      disabled: !next,
      onclick: () => {
        showDetails(answer, next, filter);
        const buttons = byId("details").querySelectorAll(".actions button");
        const same = buttons[by < 0 ? 0 : 1];
        (same.disabled ? buttons[by < 0 ? 1 : 0] : same).focus();
      },
    },
    by < 0 ? "Previous" : "Next",
  );
}

/** A click beside the dialog closes it. */
export function readyDetails() {
  const dialog = byId("details");
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
