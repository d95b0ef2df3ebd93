// The settings of an answer: how many training images, filters, exactness.

import { byId, h } from "./dom.js";
import { alike, isKnown, meant, offered } from "./names.js";
import { quoted } from "./problems.js";
import { FIELDS, clean, count, images, percent } from "./words.js";

const STEPS = [1, 2, 3, 5, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 750, 1000];
const WAIT_MS = 250; // a slider that moves asks once it rests

export const settings = { k: 50, where: [], groupBy: "creator", exact: false };

let changed = () => {};
let timer = 0;
let shown = null; // the answer that names are offered of

function later() {
  clearTimeout(timer);
  timer = setTimeout(now, WAIT_MS);
}

/** Asks with what is set, a slider that was not asked with yet included. */
function now() {
  clearTimeout(timer);
  timer = 0;
  showInUse();
  changed();
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
    now();
  });
  byId("filter-add").addEventListener("click", addTyped);
  byId("filter-field").addEventListener("change", offerNames);
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
  const typed = field.value.trim();
  if (!typed) return;
  field.value = "";
  const name = byId("filter-field").value;
  const values = meant(name, typed);
  addFilter(name, ...(values.length > 0 ? values : [typed]));
}

export function addFilter(field, ...values) {
  const has = (value) => settings.where.some((one) => one.field === field && one.value === value);
  const added = values.filter((value) => !has(value));
  if (added.length === 0) return;
  settings.where.push(...added.map((value) => ({ field, value })));
  showFilters();
  now();
}

function showK() {
  const slider = byId("k");
  const nearest = STEPS.reduce((best, step, i) =>
    Math.abs(step - settings.k) < Math.abs(STEPS[best] - settings.k) ? i : best, 0);
  if (STEPS[slider.value] !== settings.k) slider.value = nearest;
  slider.setAttribute("aria-valuetext", `${settings.k} training images`);
  byId("k-value").textContent = count(settings.k);
  showInUse();
}

/** What is set, in a line: on narrow screens the settings themselves may be folded. */
function showInUse() {
  const words = [images(settings.k, "image"), ...settings.where.map(({ value }) => clean(value, 60))];
  if (settings.exact) words.push("all compared");
  byId("in-use").textContent = words.join(" · ");
}

function showFilters() {
  const fields = settings.where.map(({ field }) => field);
  byId("filter-help").textContent = "Shares stay shares of the whole training set." +
    (new Set(fields).size < fields.length ? " Of names in one field, any may fit." : "");
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
              now();
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

/** The settings now, on their own. */
export const copied = () => ({ ...settings, where: settings.where.map((one) => ({ ...one })) });

/** The settings that an answer was made with; `exact` where the answer itself does not say. */
export const settingsOf = (answer, exact) => ({
  k: answer.k,
  groupBy: answer.group_by || "creator",
  where: Object.entries(answer.where).flatMap(([field, values]) =>
    values.map((value) => ({ field, value })),
  ),
  exact: answer.exact ?? exact,
});

/** Sets all of them, and asks nothing. */
export function adopt(others) {
  clearTimeout(timer);
  timer = 0;
  Object.assign(settings, others);
  showSettings();
}

/** The same after something failed, unless they were moved since and will be asked with. */
export function putBack(others) {
  if (!timer) adopt(others);
}

/** Names to choose from, and whether there is an image that other settings could be asked for. */
export function showChoices(answer, frozen) {
  shown = answer;
  byId("frozen").hidden = !frozen;
  byId("controls").disabled = frozen;
  offerNames();
  showUnmatched(answer, frozen);
}

function offerNames() {
  const names = shown ? offered(byId("filter-field").value, shown) : [];
  byId("filter-values").replaceChildren(
    ...names.map(([name, share]) =>
      h("option", { value: name }, share === null ? null : percent(share)),
    ),
  );
}

/** Where nothing passes the filters: which name may be written wrongly, and what was meant. */
function showUnmatched(answer, frozen) {
  const place = byId("unmatched");
  const filters = settingsOf(answer).where;
  place.hidden = answer.rows.length > 0 || filters.length === 0;
  if (place.hidden) return;
  const unknown = filters.filter(({ field, value }) => !isKnown(field, value));
  const parts = unknown.map(({ field, value }) => {
    const names = frozen ? [] : alike(field, value);
    const instead = (name) => h("button", { type: "button", class: "quiet small",
      onclick: () => replace(field, value, name) }, h("bdi", {}, name));
    return h("div", {},
      h("p", {}, `No ${FIELDS[field] ?? field} seen so far is written ${quoted(value)}. A filter takes ` +
        "a name exactly as it stands in the training set, capitals included."),
      names.length > 0 ? h("p", { class: "instead" }, "Is it one of these? ", names.map(instead)) : null);
  });
  if (unknown.length === 0) {
    parts.push(h("p", {}, filters.length > 1
      ? "Each name is right, but no training image with influence on this image fits all filters."
      : "The name is right, but none of its training images has influence on this image."));
  }
  place.replaceChildren(...parts);
}

function replace(field, value, name) {
  settings.where = settings.where.filter((one) => one.field !== field || one.value !== value);
  addFilter(field, name);
}
