// What was audited and how, in words.

import { report } from "./data.js";
import { byId, h } from "./dom.js";
import { clean, count, images, percent } from "./words.js";

const { summary, limits } = report;
const part = (name) => summary[name] ?? {};

/** Whether a number is there: what an audit could not say is shown as a dash. */
export const known = (value) => typeof value === "number" && Number.isFinite(value);
export const share = (value) => (known(value) ? percent(value) : "–");
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
    Object.entries(values ?? {}).map(([name, value]) => `${clean(name, 60)} ${clean(typeof value === "object" ? JSON.stringify(value) : value, 100)}`).join(", ");
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
    ]),
    named("Calibrator", [
      ["Temperature", known(calibrator.tau) ? `tau ${Number(calibrator.tau.toPrecision(4))}` : ""],
      ["Cut-off", known(calibrator.b) ? `b ${Number(calibrator.b.toPrecision(4))}` : ""],
      ["Fitted", calibrator.fitted === false ? "no: shares rest on default settings" : calibrator.fitted ? h("bdi", {}, `on ${clean(calibrator.fitted_on, 300)}`) : ""],
    ]),
    named("Settings", [
      ["Up to", known(settings.mass) ? `${percent(settings.mass)} of an image's influence is listed, in at most ${count(settings.k ?? 0)} training images` : ""],
      ["Search", settings.exact ? "every training image is compared" : "by the index, see the method"],
      ["Summed by", text((settings.by ?? []).join(", "))],
      ["Left out", text(condition(settings.without))],
      ["Filter", text(condition(settings.where))],
      ["Copies by", text(settings.copy_model)],
      ["Thresholds", text(listed(settings.thresholds))],
    ]),
    named("Versions", Object.entries(versions).map(([name, value]) => [clean(name, 60), text(value)])),
  );
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
    h("p", {}, "Each generated image is compared with the training images of the collection by a model that was tuned for attribution (after Wang et al., “Evaluating Data Attribution for Text-to-Image Models”, ICCV 2023). A calibrator turns the similarities into influence: shares from 0 to 100 % that add up to 100 % over the whole training set. It knows nothing of how a generator was in fact trained, and nothing of training images that are not in the collection. Looking alike is not the same as having been caused by; shares are evidence to weigh, no verdict."),
    part("calibrator").fitted === false ? h("p", {}, "The calibrator of this model was not fitted: the order of the training images holds, the size of their shares rests on default settings.") : null,
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
