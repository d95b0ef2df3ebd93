// The settings of an answer: how many training images, filters, exactness.

import { byId, h } from "./dom.js";
import { FIELDS, clean, count, percent } from "./words.js";

const STEPS = [1, 2, 3, 5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000];
const WAIT_MS = 250; // a slider that moves asks once it rests

export const settings = { k: 50, where: [], groupBy: "creator", exact: false };

let changed = () => {};
let timer = 0;

function later() {
  clearTimeout(timer);
  timer = setTimeout(changed, WAIT_MS);
}

export function readySettings(onChange) {
  changed = onChange;
  const slider = byId("k");
  slider.max = STEPS.length - 1;
  slider.addEventListener("input", () => {
    settings.k = STEPS[slider.value];
    showK();
    later();
  });
  byId("exact").addEventListener("change", (event) => {
    settings.exact = event.target.checked;
    changed();
  });
  byId("filter-add").addEventListener("click", addTyped);
  byId("filter-value").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    addTyped();
  });
  byId("settings").addEventListener("submit", (event) => event.preventDefault());
  showSettings();
}

function addTyped() {
  const field = byId("filter-value");
  const value = field.value.trim();
  if (!value) return;
  field.value = "";
  addFilter(byId("filter-field").value, value);
}

export function addFilter(field, value) {
  if (settings.where.some((one) => one.field === field && one.value === value)) return;
  settings.where.push({ field, value });
  showFilters();
  changed();
}

function showK() {
  const slider = byId("k");
  const nearest = STEPS.reduce((best, step, i) =>
    Math.abs(step - settings.k) < Math.abs(STEPS[best] - settings.k) ? i : best, 0);
  if (STEPS[slider.value] !== settings.k) slider.value = nearest;
  slider.setAttribute("aria-valuetext", `${settings.k} training images`);
  byId("k-value").textContent = count(settings.k);
}

function showFilters() {
  byId("filters").replaceChildren(
    ...settings.where.map((one, i) =>
      h(
        "li",
        {},
        h("bdi", {}, `${FIELDS[one.field] ?? one.field}: ${clean(one.value, 200)}`),
        h(
          "button",
          {
            type: "button",
            "aria-label": `Remove the filter ${clean(one.value, 200)}`,
            onclick: () => {
              settings.where.splice(i, 1);
              showFilters();
              byId("filter-value").focus();
              changed();
            },
          },
          "×",
        ),
      ),
    ),
  );
}

function showSettings() {
  showK();
  showFilters();
  byId("exact").checked = settings.exact;
}

/** Takes over the settings of a kept answer. */
export function adopt(answer) {
  settings.k = answer.k;
  settings.groupBy = answer.group_by || "creator";
  settings.where = Object.entries(answer.where).flatMap(([field, values]) =>
    values.map((value) => ({ field, value })),
  );
  settings.exact = Boolean(answer.settings?.exact);
  showSettings();
}

/** Values to choose from, and whether there is an image that other settings could be asked for. */
export function showChoices(answer, frozen) {
  byId("frozen").hidden = !frozen;
  byId("controls").disabled = frozen;
  byId("filter-values").replaceChildren(
    ...answer.groups.filter((group) => group.value).slice(0, 200)
      .map((group) => h("option", { value: group.value }, percent(group.influence))),
  );
}
