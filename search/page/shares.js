// Shares by creator, licence or source as a bar chart.

import { byId, h } from "./dom.js";
import { FIELDS, NOTHING, clean, count, images, percent, range, unknown } from "./words.js";

const FIRST = 8;

/** `change(field)` asks for other groups, `filter(field, value)` for the images of one. */
export function readyShares(change) {
  byId("group-by").replaceChildren(
    ...Object.entries(FIELDS).map(([field, name]) =>
      h(
        "button",
        { type: "button", "data-field": field, "aria-pressed": "false", onclick: () => change(field) },
        name[0].toUpperCase() + name.slice(1),
      ),
    ),
  );
}

export function showShares(answer, { filter, frozen }) {
  for (const button of byId("group-by").children) {
    button.setAttribute("aria-pressed", String(button.dataset.field === answer.group_by));
    button.disabled = frozen && button.dataset.field !== answer.group_by;
  }
  const groups = answer.groups;
  const shown = groups.slice(0, groups.length > FIRST + 2 ? FIRST : groups.length);
  const others = groups.slice(shown.length);
  const list = h("ul", { class: "bars" }, shown.map((group) => bar(answer, group, filter, frozen)));
  const parts = [list];
  if (others.length > 0) {
    const sum = others.reduce((total, group) => total + group.influence, 0);
    const more = h(
      "button",
      {
        type: "button",
        class: "quiet",
        onclick: () => {
          const added = others.slice(0, 500).map((group) => bar(answer, group, filter, frozen));
          list.append(...added);
          more.remove();
          added[0].querySelector("button, .bar-name")?.focus();
        },
      },
      `${count(others.length)} more, ${percent(sum)} together`,
    );
    parts.push(more);
  }
  if (answer.groups_remaining > NOTHING) {
    const why = Object.keys(answer.where).length > 0
      ? "that the filter leaves out"
      : "that were not looked up one by one";
    const words = `${percent(answer.groups_remaining)} lies with training images ${why}.`;
    parts.push(h("p", { class: "hint" }, words));
  }
  if (groups.length === 0) parts.splice(0, 1, h("p", { class: "hint" }, "No shares to show."));
  byId("shares").replaceChildren(...parts);
}

function bar(answer, group, filter, frozen) {
  const name = clean(group.value, 300) || unknown(answer.group_by);
  const fill = h("span", { class: "fill" });
  fill.style.width = `${Math.min(100, group.influence * 100)}%`;
  const span = answer.method === "estimated" ? range(group.interval) : "";
  const label =
    group.value === "" || frozen
      ? h("bdi", { class: "bar-name", tabindex: "-1" }, name)
      : h(
          "button",
          {
            type: "button",
            class: "as-text bar-name",
            title: "Show only these training images",
            onclick: () => filter(answer.group_by, group.value),
          },
          h("bdi", {}, name),
        );
  return h(
    "li",
    {},
    h("div", { class: "bar-head" },
      label,
      h("span", { class: "bar-number" }, percent(group.influence)),
      h("span", { class: "hint" }, `${span ? `${span}, ` : ""}${images(group.images, "image")}`)),
    h("div", { class: "track", "aria-hidden": "true" }, fill),
  );
}
