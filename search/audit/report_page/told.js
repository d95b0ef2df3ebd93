// What was audited and how, in words.

import { report } from "./data.js";
import { byId, h } from "./dom.js";
import { clean, count, images, percent, range } from "./words.js";

const { summary, limits } = report;
const part = (name) => summary[name] ?? {};
const fitted = Boolean(part("calibrator").fitted_on);

/** Whether the model was tuned for attribution; null where the audit does not tell. */
function tuned() {
  const { tuned_on: on } = part("model");
  return typeof on === "string" ? on !== "" : null;
}

/** Whether a number is there: what an audit could not say is shown as a dash. */
export const known = (value) => typeof value === "number" && Number.isFinite(value);
/** Numbers stay on a line with their sign. */
export const unbroken = (words) => words.replace(/ %/g, "\u00a0%").replace(/([<>]) /g, "$1\u00a0");
export const share = (value) => (known(value) ? unbroken(percent(value)) : "–");
/** "41.0 % to 44.2 %", or '' where both ends read alike. */
export const span = (interval) => unbroken(range(interval));
export const decimal = (value, places = 1) => (known(value) ? value.toFixed(places) : "–");

export const flagTitle = (name) => clean(part("flags")[name]?.title, 200) || name;

/** "creator = A or B, licence = C" */
function condition(where) {
  const fields = Object.entries(where ?? {}).filter(([, values]) => values?.length > 0);
  return fields.map(([field, values]) => `${field} = ${values.map((v) => clean(v, 300)).join(" or ")}`).join(", ");
}

export function showTold() {
  const { gallery, totals, collection, model } = Object.fromEntries(
    ["gallery", "totals", "collection", "model"].map((name) => [name, part(name)]),
  );
  const name = clean(gallery.name, 300) || "a gallery";
  document.title = `Attribution audit of ${name}`;
  byId("title").replaceChildren("Attribution audit of ", h("bdi", {}, name));
  byId("lead").replaceChildren(
    `${images(gallery.images ?? 0, "generated image")} compared with the ` +
      `${images(collection.images ?? totals.training_images ?? 0)} of the collection `,
    h("bdi", {}, clean(collection.name, 300) || "without a name"),
    ", with the attribution model ",
    h("bdi", {}, clean(model.name, 300) || "without a name"),
    report.rejected > 0 ? `. ${images(report.rejected, "more image")} could not be used.` : ".",
  );
  showAsIf();
  showCaveat();
  showFigures();
  showAudited();
  showRejects();
  showMethod();
  byId("version").textContent = clean(part("versions").attrib, 40);
}

function showAsIf() {
  const without = condition(part("settings").without);
  const where = condition(part("settings").where);
  if (!without && !where) return;
  byId("as-if").hidden = false;
  byId("as-if").replaceChildren(
    h("strong", {}, without ? "As if training images were not there. " : "Filtered. "),
    without ? `All numbers are computed as if the training images with ${without} were not in the collection${part("left_out").images ? ` (${count(part("left_out").images)} left out, ${count(part("left_out").remaining)} remain)` : ""}. ` : "",
    where ? `Only training images with ${where} are shown; the others are in the remaining influence.` : "",
  );
}

/** What makes the shares weaker than those of other audits is said where they are read first. */
function showCaveat() {
  const weaker = [
    tuned() === false ? "The model was not tuned for attribution." : "",
    fitted ? "" : "The size of the shares rests on default settings, not on a calibrator that was fitted on examples.",
  ];
  byId("weaker").textContent = weaker.filter(Boolean).join(" ");
}

function showFigures() {
  const totals = part("totals");
  const { mean, median } = report.plots.remaining;
  const flagged = report.flags.map((flag) => `${count(totals.flags?.[flag] ?? 0)} ${flagTitle(flag).toLowerCase()}`);
  const tiles = [
    [count(totals.images ?? 0), "generated images", ""],
    [share(totals.remaining_mean ?? mean), "remaining influence", `mean; median ${share(median)}`],
    [decimal(totals.effective_sources_median ?? report.plots.effective.median), "effective sources", "median of an image"],
    [share(totals.top_influence_median ?? report.plots.top.median), "of the most influential training image", "median of an image"],
    [count(totals.training_images ?? 0), "training images with influence", `of ${count(part("collection").images ?? 0)} in the collection`],
    ["", "Flagged", flagged],
  ];
  byId("figures").replaceChildren(
    ...tiles.map(([number, words, more]) =>
      Array.isArray(more)
        ? h("li", { class: "figure figure-list" }, h("span", { class: "figure-words" }, words), h("ul", {}, more.map((line) => h("li", {}, line))))
        : h("li", { class: "figure" }, h("span", { class: "figure-number" }, number), h("span", { class: "figure-words" }, words), more ? h("span", { class: "hint" }, more) : null),
    ),
  );
}

/** Terms and what they are; nothing where there is nothing to tell. */
export function facts(pairs) {
  const told = pairs.filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return h("dl", { class: "facts" }, told.map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))));
}

const code = (text) => (text ? h("code", {}, clean(text, 300)) : "");

function showAudited() {
  const [gallery, model, calibrator, collection, settings, versions] = [
    "gallery", "model", "calibrator", "collection", "settings", "versions",
  ].map(part);
  const index = collection.index ?? {};
  const named = (title, pairs) => h("div", {}, h("h3", {}, title), facts(pairs));
  const text = (value) => (clean(value, 500) ? h("bdi", {}, clean(value, 500)) : "");
  const listed = (values) =>
    Object.entries(values ?? {}).map(([name, value]) => `${clean(name, 60).replaceAll("_", " ")} ${clean(typeof value === "object" ? JSON.stringify(value) : value, 100)}`).join(", ");
  byId("audited-facts").replaceChildren(
    named("Gallery", [
      ["Name", text(gallery.name)],
      ["Images", count(gallery.images ?? 0)],
      ["Not usable", count(report.rejected)],
      ["Inputs", gallery.inputs_sha256 ? h("span", {}, "SHA-256 ", code(gallery.inputs_sha256)) : ""],
    ]),
    named("Collection of training images", [
      ["Name", text(collection.name)],
      ["Images", count(collection.images ?? 0)],
      ["Index", text(listed(index))],
    ]),
    named("Attribution model", [
      ["Name", text(model.name)],
      ["Fingerprint", code(model.fingerprint)],
      ["Features", code(model.feature_fingerprint)],
      ["Tuned", tuned() === null ? "" : tuned() ? h("bdi", {}, `on ${clean(model.tuned_on, 300)}`) : "no: its features are those of a general image model"],
    ]),
    named("Calibrator", [
      ["Fall-off", fallOff(calibrator)],
      ["Cut-off", cutOff(calibrator)],
      ["Fitted", fitted ? h("bdi", {}, `on ${clean(calibrator.fitted_on, 300)}`) : "no: shares rest on default settings"],
    ]),
    named("Settings", [
      ["Up to", known(settings.mass) ? `${given(settings.mass)} of an image's influence is listed, in at most ${count(settings.k ?? 0)} training images` : ""],
      ["Search", searched(settings)],
      ["Summed by", text((settings.by ?? []).join(", "))],
      ["Left out", text(condition(settings.without))],
      ["Filter", text(condition(settings.where))],
      ["Copies", clean(settings.copy_model, 100) ? h("bdi", {}, `compared by ${clean(settings.copy_model, 100)}`) : "compared by the edges of the pictures"],
      ["Flags from", thresholds(settings)],
    ]),
    named("Versions", Object.entries(versions).map(([name, value]) => [clean(name, 60), text(value)])),
  );
}

/** Four digits; a small number as a power of ten, so without a row of zeros. */
function short(value) {
  if (value === 0 || Math.abs(value) >= 0.001) return String(Number(value.toPrecision(4)));
  const [digits, power] = value.toExponential(2).split("e");
  const raised = [...power].map((sign) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign] ?? (sign === "-" ? "⁻" : "")).join("");
  return `${digits}\u00a0×\u00a010${raised}`;
}

function fallOff({ tau }) {
  if (!known(tau)) return "";
  return `a training image whose similarity is ${short(tau)} lower carries about a third (37\u00a0%) as much (tau ${short(tau)})`;
}

function cutOff({ tau, b }) {
  if (!known(b) || !known(tau)) return "";
  if (b >= 0) return `none: every training image carries a little at least (b ${short(b)})`;
  return `a training image whose similarity is ${short(-tau * Math.log(-b))} below the nearest one's carries nothing (b ${short(b)})`;
}

function searched(settings) {
  const { methods = {}, images: all } = part("totals");
  if (settings.exact || (all > 0 && methods.exact === all)) return "every training image was compared with each generated image";
  const ways = Object.entries(methods).filter(([, number]) => number > 0).map(([name, number]) => `${name} for ${images(number, "image")}`);
  return `the nearest training images were looked up in an index (${ways.join(", ")}; what that means stands under Method)`;
}

/** A share that somebody set: as it was set. */
const given = (value) => `${Number((value * 100).toPrecision(6))}\u00a0%`;

// What the values of `settings.thresholds` are of.
const FROM = {
  near_copy: (value, settings) => (settings.copy_model ? `cosine ${value}` : `score ${value}`),
  one_source: (value) => `${given(value)} of the influence`,
  one_creator: (value) => `${given(value)} of the influence`,
  nothing_close: (value) => `similarity below ${value}`,
  duplicate: (value) => `up to ${value} of 256 bits apart`,
};

function thresholds(settings) {
  const place = ([name]) => report.flags.indexOf(name.replaceAll("_", "-"));
  const used = Object.entries(settings.thresholds ?? {}).filter(([name]) => name !== "look_from");
  if (used.length === 0) return "";
  used.sort((a, b) => place(a) - place(b));
  const line = ([name, value]) => {
    const title = flagTitle(name.replaceAll("_", "-"));
    if (!known(value)) return `${title}: not raised, no threshold is known`;
    return `${title}: ${FROM[name]?.(value, settings) ?? clean(JSON.stringify(value), 100)}`;
  };
  const from = settings.thresholds.look_from;
  const looked = `Pictures were compared for near-copies ${known(from) ? `from a similarity of ${from} on` : "whatever their similarity"}`;
  return h("ul", { class: "plain-list" }, [...used.map(line), looked].map((words) => h("li", {}, words)));
}

function showRejects() {
  if (report.rejected === 0) return;
  const more = report.rejected - report.rejects.length;
  byId("rejects").replaceChildren(
    h("details", { class: "fold" },
      h("summary", {}, `${images(report.rejected, "image")} that could not be used`),
      h("div", { class: "table-view", tabindex: "0", role: "region", "aria-label": "Images that could not be used" },
        h("table", {},
          h("thead", {}, h("tr", {}, ["Image", "Reason", "Detail"].map((name) => h("th", { scope: "col" }, name)))),
          h("tbody", {}, report.rejects.map((line) =>
            h("tr", {},
              h("th", { scope: "row" }, h("bdi", {}, clean(line.image, 300) || clean(line.path, 300))),
              h("td", {}, h("bdi", {}, clean(line.reason, 300))),
              h("td", {}, h("bdi", {}, clean(line.detail, 500)))))))),
      more > 0 ? h("p", { class: "hint" }, `${images(more, "more image")} in rejects.parquet.`) : null),
  );
}

const MODELS = new Map([
  [true, "a model that was tuned for attribution"],
  [false, "a general image model that was not tuned for attribution"],
  [null, "an attribution model"],
]);

function showMethod() {
  const { methods = {} } = part("totals");
  const how = {
    exact: "every training image was compared with it, so nothing is left out of its shares",
    complete: "every training image whose influence is above zero was found; the others carry none",
    estimated: "the nearest training images were compared one by one and the influence of the others was estimated from a random sample; its shares have a range that holds the true value with 95 % confidence",
  };
  const used = Object.entries(how).filter(([name]) => methods[name] > 0);
  const left = leftOut();
  const parts = [
    h("p", {}, clean(summary.limits, 2000) || "A similarity-based estimate, not a causal proof."),
    h("p", {}, `Each generated image is compared with the training images of the collection by ${MODELS.get(tuned())}. The method is that of Wang et al. (“Evaluating Data Attribution for Text-to-Image Models”, ICCV 2023)${tuned() === false ? ", without its tuning" : ""}. A calibrator${fitted ? "" : ", which was not fitted on examples here,"} turns the similarities into influence: shares from 0 to 100 % that add up to 100 % over the whole training set. It knows nothing of how a generator was in fact trained, and nothing of training images that are not in the collection. Looking alike is not the same as having been caused by; shares are evidence to weigh, no verdict.`),
    h("h3", {}, "How each image was answered"),
    h("ul", { class: "listed" }, used.map(([name, words]) => h("li", {}, h("strong", {}, name), ` (${images(methods[name], "image")}): ${words}.`))),
    h("h3", {}, "Words"),
    facts([
      ["Remaining influence", "what is left of 100 % beside the training images that are listed for an image: many small shares, or what lies outside of the listed mass. It is shown everywhere and given to nobody."],
      ["Effective sources", "as how many equally influential sources an image's influence is spread: the exponential of the entropy of its shares, the remaining influence counting as one more source."],
      ["Similarity", "cosine of the features of the generated and the training image, at most 1."],
      ["Equal images", "training images with the same bytes are one source; its influence is shared evenly among its records."],
      ["Intervals of shares", "bootstrap over the gallery's images (95 %): how much a share would move with another gallery of the same kind. They do not cover what the model gets wrong."],
      ["Unknown", "influence of training images that have no value recorded."],
    ]),
    left.length > 0 ? h("h3", {}, "What this page leaves out") : null,
    left.length > 0 ? h("ul", { class: "listed" }, left.map((line) => h("li", {}, line))) : null,
    h("h3", {}, "Files beside this page"),
    facts([
      ["attributions.parquet", "every generated image with each of its training images"],
      ["images.parquet", "every generated image: remaining influence, sources, flags"],
      ["creators.parquet", "the shares over the gallery, with intervals"],
      ["rejects.parquet", "images that could not be used, and why"],
      ["summary.json", "totals, settings, fingerprints and versions"],
      ["manifest.json", "size and SHA-256 of each of these files and of this page: whether one was changed"],
      ["manifest.sig", "where the audit was signed: the signature over manifest.json"],
    ]),
  ];
  byId("method-words").replaceChildren(...parts.filter(Boolean));
}

function leftOut() {
  const lines = [`Of each image the ${count(limits.sources)} most influential training images are shown; the others are in attributions.parquet.`];
  for (const [kind, words] of [["generated", "generated image"], ["training", "training image"]]) {
    const told = limits[kind];
    if (told.left_out > 0) lines.push(`${images(told.left_out, words)} ${told.left_out === 1 ? "has" : "have"} no small picture, to keep the file small (${count(told.shown)} have one).`);
    if (told.missing > 0) lines.push(`Of ${images(told.missing, words)} no picture was kept, or it could not be read.`);
  }
  for (const field of report.shares) {
    if (field.others > 0) lines.push(`Of ${count(field.known)} values of ${clean(field.field, 60)} the largest ${count(limits.shares)} are shown; the others are in creators.parquet.`);
  }
  lines.push(`Texts longer than ${count(limits.text)} characters are cut, and small pictures have at most ${limits.side} pixels (more where flagged).`);
  return lines;
}
