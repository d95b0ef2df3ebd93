// The page: one image at a time, its answer, and other settings for it.

import { Problem, attribute, json, kept, showImage } from "./api.js";
import { announce, byId, h } from "./dom.js";
import { readyDetails, showDetails } from "./details.js";
import { copy, csv, drawPicture, fileName, save } from "./exports.js";
import { readyIntake } from "./intake.js";
import { learn } from "./names.js";
import { findNear, folded, readyNear, showNear } from "./near.js";
import { readyPlaces } from "./places.js";
import { addFilter, adopt, copied, putBack, readySettings, settings, settingsOf, showChoices } from "./settings.js";
import { readyShares, showShares } from "./shares.js";
import { showTable } from "./table.js";
import { readyWall, showWall } from "./wall.js";
import { clean, creators, images, lastPart, methodInWords, percent, remainingInWords, title } from "./words.js";

const given = new Map(); // id of an answer -> {image, exact} that it was asked for with
const answers = new Map(); // id of an answer -> the answer
// What is shown: its answer, and its image as {file} or {url}, null where that is not here.
let answer = null;
let image = null;
// What is asked for, {image, settings, fresh}: it becomes what is shown with its answer, not before.
let wanted = null;
let running = null; // the AbortController of the request under way
let mostBytes = 0; // of an image, as the service says

/* Asking ------------------------------------------------------------------------------------- */

/** Another image; the filters were meant for the last one. */
function take(next) {
  byId("details").close();
  ask({ image: next, settings: { ...copied(), where: [] }, fresh: true });
}

/** The image that is shown, or is being asked for, with the settings as they are now. */
function askAnew() {
  const about = wanted?.image ?? image;
  if (about) ask({ image: about, settings: copied(), fresh: Boolean(wanted?.fresh) });
}

async function ask(next) {
  wanted = next;
  adopt(next.settings);
  const { fresh } = next;
  const signal = begin(fresh ? "Looking for the training images behind it" : "Asking anew");
  try {
    const found = await attribute(next.image, next.settings, signal);
    given.set(found.id, { image: next.image, exact: next.settings.exact });
    remember(found);
    await findNear(found, () => lookAgain(found));
    if (signal.aborted) return;
    const place = `#a=${found.id}`;
    if (location.hash !== place) history[fresh ? "pushState" : "replaceState"](null, "", place);
    show(found, next.image, fresh);
  } catch (error) {
    if (failed(error, () => ask(next), signal)) stay();
  } finally {
    finish(signal);
  }
}

/** What was asked for did not come: the page stays with what it shows, settings included. */
function stay() {
  wanted = null;
  if (answer) putBack(asked(answer));
}

const asked = (found) => settingsOf(found, given.get(found.id)?.exact ?? false);

/** Shows what the address says: an answer that is kept, or the beginning. */
async function follow() {
  const id = /^#a=([\w-]+)$/.exec(location.hash)?.[1];
  hideError();
  byId("details").close();
  if (!id) {
    running?.abort();
    beginning();
    return;
  }
  if (answer?.id === id && !byId("answer").hidden) return;
  const open = (found) => {
    adopt(asked(found));
    show(found, given.get(id)?.image ?? null, true);
  };
  running?.abort(); // an answer that is under way would take the place of this one
  wanted = null;
  if (answers.has(id)) {
    open(answers.get(id));
    return;
  }
  const signal = begin("Fetching the answer");
  try {
    const found = await kept(id, signal);
    remember(found);
    await findNear(found, () => lookAgain(found));
    if (!signal.aborted) open(found);
  } catch (error) {
    const gone = new Problem(
      "This answer is no longer kept.",
      "The service keeps the latest answers only. Give the image again to get it anew.",
      404,
    );
    if (failed(error.status === 404 ? gone : error, error.status === 404 ? null : follow, signal)) {
      beginning();
    }
  } finally {
    finish(signal);
  }
}

function remember(found) {
  learn(found);
  answers.delete(found.id);
  answers.set(found.id, found);
  // An image of a few megabytes stays with each: only the latest are kept.
  while (answers.size > 30) {
    const oldest = answers.keys().next().value;
    answers.delete(oldest);
    given.delete(oldest);
  }
}

/* Waiting and errors ------------------------------------------------------------------------- */

function begin(words) {
  running?.abort();
  running = new AbortController();
  hideError();
  byId("waiting-words").textContent = `${words} …`;
  byId("waiting").hidden = false;
  byId("result").setAttribute("aria-busy", "true");
  announce(words);
  return running.signal;
}

function finish(signal) {
  if (signal !== running?.signal) return;
  byId("waiting").hidden = true;
  byId("result").setAttribute("aria-busy", "false");
}

/** Says what went wrong; true unless it went wrong with what nobody waits for any more. */
function failed(error, again, signal) {
  if (error.name === "AbortError" || (signal && signal !== running?.signal)) return false;
  const words = error instanceof Problem ? error : new Problem("That did not work.", error.message);
  // The same again can only help where the service, not the image, was the matter.
  const helps = again && (words.passing || words.status === 0 || words.status >= 429 || words.status === 401);
  const button = helps ? h("button", { type: "button", onclick: again }, "Try again") : null;
  byId("error").replaceChildren(
    h("div", {},
      h("p", { class: "error-title" }, words.title),
      words.detail ? h("p", {}, words.detail) : null,
      words.retry ? h("p", {}, `The service asks to wait ${words.retry} s.`) : null),
    h("div", { class: "actions" }, button,
      h("button", { type: "button", class: "quiet", onclick: hideError }, "Dismiss")),
  );
  byId("error").hidden = false;
  byId("error").scrollIntoView({ block: "nearest" });
  return true;
}

function hideError() {
  byId("error").hidden = true;
  byId("error").replaceChildren();
}

/* Showing ------------------------------------------------------------------------------------ */

function beginning() {
  answer = null;
  image = null;
  wanted = null;
  document.title = "attrib: who influenced this image?";
  byId("answer").hidden = true;
  byId("another").hidden = true;
  byId("intake").hidden = false;
}

function show(found, from, fresh) {
  answer = found;
  image = from;
  wanted = null;
  const frozen = image === null;
  const filter = frozen ? null : addFilter;
  const name = lastPart(found.query) || "the image";
  byId("intake").hidden = true;
  byId("answer").hidden = false;
  byId("another").hidden = false;
  document.title = `${name}: attrib`;
  if (fresh) showQuery(found, name);
  showHeadline(found);
  showMethod(found);
  showChoices(found, frozen);
  showShares(found, { filter, frozen });
  showImages();
  const first = found.rows[0];
  const top = first ? ` Most influential: ${title(first)} by ${creators(first)}, ${percent(first.influence)}.` : "";
  const unmatched = byId("unmatched").hidden ? "" : ` ${byId("unmatched").innerText}`;
  announce(`${byId("headline").textContent} ${byId("summary").textContent}${top}${unmatched}`);
  if (fresh) {
    scrollTo({ top: 0 });
    byId("headline").focus({ preventScroll: true });
  }
}

/** The wall and the table, near-equal images folded or not. */
function showImages() {
  const looked = folded(answer);
  const filter = image === null ? null : addFilter;
  const open = (row) => showDetails(looked, row, filter);
  showNear(answer);
  showTable(looked, open);
  showWall(looked, open);
}

/** Once more, if it is still this answer: what is near-equal became known late. */
function lookAgain(found) {
  if (answer === found) showImages();
}

let shownFile = null; // object URL of the query image

function showQuery(found, name) {
  const picture = byId("query-image");
  byId("query-name").textContent = name;
  if (shownFile) URL.revokeObjectURL(shownFile);
  shownFile = image?.file ? URL.createObjectURL(image.file) : null;
  const seen = (is) => {
    picture.hidden = !is;
    byId("query-none").hidden = is;
  };
  const fromService = () => {
    picture.onerror = () => seen(false); // it was asked for with features, say
    showImage(picture, `/v1/attributions/${encodeURIComponent(found.id)}/query`);
  };
  seen(true);
  // A format that the service reads and this browser does not: the service's copy is a PNG or JPEG.
  picture.onerror = fromService;
  if (shownFile) picture.src = shownFile;
  else fromService();
}

function showHeadline(found) {
  const shown = found.rows.reduce((sum, row) => sum + row.influence, 0);
  const filtered = Object.keys(found.where).length > 0;
  if (found.rows.length === 0) {
    byId("headline").textContent = filtered
      ? "No training image with influence passes the filter"
      : "No training image carries influence";
  } else {
    const verb = found.rows.length === 1 ? "carries" : "carry";
    byId("headline").textContent =
      `${images(found.rows.length)} ${verb} ${percent(shown)} of the influence`;
  }
  byId("summary").textContent = remainingInWords(found);
}

function showMethod(found) {
  const { calibrator } = found;
  const parts = [h("p", {}, methodInWords(found))];
  if (found.note) parts.push(h("p", {}, clean(found.note)));
  parts.push(
    h("p", {}, calibrator.fitted
      ? `How similarity becomes influence was fitted on ${clean(calibrator.fitted_on) || "pairs with a known answer"}.`
      : "How similarity becomes influence was not fitted: the shares rest on default settings, so trust their order more than their size."),
    h("p", { class: "hint" }, "Model ", h("code", {}, clean(found.model)),
      ", fingerprint ", h("code", {}, clean(found.fingerprint).slice(0, 16))),
  );
  byId("method").replaceChildren(...parts);
}

function view(table) {
  byId("view-wall").setAttribute("aria-pressed", String(!table));
  byId("view-table").setAttribute("aria-pressed", String(table));
  byId("wall-view").hidden = table;
  byId("table-view").hidden = !table;
}

/* Taking along ------------------------------------------------------------------------------- */

const TOOLS = {
  "copy-link": async () => copy(new URL(`/#a=${answer.id}`, location.href).href),
  "copy-json": async () => copy(JSON.stringify(answer, null, 2)),
  "save-csv": async () => save(new Blob(["\ufeff", csv(answer)], { type: "text/csv" }), fileName(answer, "csv")),
  "save-picture": async () => save(await drawPicture(folded(answer), byId("query-image")), fileName(answer, "png")),
};

function readyTools() {
  for (const [id, act] of Object.entries(TOOLS)) {
    const button = byId(id);
    const words = button.textContent;
    button.addEventListener("click", async () => {
      try {
        await act();
        button.textContent = id.startsWith("copy") ? "Copied" : "Saved";
        announce(id.startsWith("copy") ? "Copied" : "Saved");
        setTimeout(() => (button.textContent = words), 1600);
      } catch (error) {
        failed(error, null);
      }
    });
  }
}

async function showCollection() {
  try {
    const info = await json("/v1/info");
    mostBytes = info.limits?.max_bytes ?? 0;
    byId("collection").textContent = images(info.images);
  } catch {
    // Said with the first answer instead.
  }
}

/* Beginning ---------------------------------------------------------------------------------- */

readyWall();
readyDetails();
readyTools();
readyNear(() => {
  showImages();
  announce(byId("near-count").textContent);
});
readyPlaces();
readySettings(askAnew);
readyShares((field) => {
  settings.groupBy = field;
  if (answer?.group_by !== field || wanted) askAnew();
});
readyIntake(take, (error) => failed(error, null), () => mostBytes);
byId("give-again").addEventListener("click", () => byId("file").click());
byId("view-wall").addEventListener("click", () => view(false));
byId("view-table").addEventListener("click", () => view(true));
byId("method-title").tabIndex = -1;
const home = (event) => {
  event.preventDefault();
  if (location.hash) history.pushState(null, "", "/");
  follow();
  byId("main").focus({ preventScroll: true });
  scrollTo({ top: 0 });
};
byId("home").addEventListener("click", home);
byId("another").addEventListener("click", home);
addEventListener("popstate", follow);
addEventListener("hashchange", follow);
showCollection();
follow();
