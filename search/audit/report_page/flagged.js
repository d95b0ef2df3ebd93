// The flagged images by flag, generated and training image side by side.

import { report, training } from "./data.js";
import { byId, h } from "./dom.js";
import { openImage } from "./opened.js";
import { decimal, flagTitle, known, share, unbroken } from "./told.js";
import { picture } from "./wall.js";
import { clean, count, creators, images, title } from "./words.js";

const FIRST = matchMedia("(max-width: 520px)").matches ? 4 : 8;
const STEP = 24;

// What stands first among the images of a flag, what each is flagged for, and the training image
// that those words are about.
const KINDS = {
  "near-copy": [(image) => -(image.score ?? 0), (image) => `score ${decimal(image.score, 3)}`, (image) => image.copied],
  "one-source": [(image) => -image.top, (image) => `${share(image.top)} from this image`, (image) => image.first],
  "one-creator": [(image) => -image.mainShare, (image) => `${share(image.mainShare)} from ${clean(image.main, 100)}`, (image) => image.ofMain],
  "nothing-close": [(image) => image.similarity ?? -2, (image) => `nearest: similarity ${decimal(image.similarity, 3)}`, (image) => image.first],
  duplicate: [(image) => image.place, () => "alike", () => -1],
};
const OTHER = [(image) => image.place, (image) => `top source ${share(image.top)}`, (image) => image.first];

export function showFlags(all) {
  const byKey = new Map(all.map((image) => [image.key, image]));
  byId("flags").replaceChildren(...report.flags.map((flag) => section(flag, all, byKey)));
}

const told = (value) => (known(value) ? String(value) : typeof value === "object" && value !== null
  ? Object.entries(value).map(([name, each]) => `${name} ${each}`).join(", ")
  : unbroken(clean(value, 1000)));

function section(flag, all, byKey) {
  const about = report.summary.flags[flag] ?? {};
  const [first] = KINDS[flag] ?? OTHER;
  const raised = all.filter((image) => image.flags.includes(flag));
  raised.sort((a, b) => first(a) - first(b) || a.place - b.place);
  const list = h("ul", { class: "pairs" });
  const more = h("button", { type: "button", class: "quiet" });
  const printed = h("span", { class: "print-only" });
  let shown = 0;
  const show = async (number) => {
    const next = raised.slice(shown, shown + number);
    shown += next.length;
    more.hidden = shown >= raised.length;
    printed.textContent = more.hidden ? "" : ` – ${count(shown)} of ${count(raised.length)} printed, as many as are shown on the screen`;
    const left = raised.length - shown;
    more.textContent = left > STEP ? `Show ${count(STEP)} more of ${count(left)}` : `Show the other ${count(left)}`;
    const made = await Promise.all(next.map((image) => pair(image, flag, raised, byKey)));
    list.append(...made);
    return made;
  };
  more.addEventListener("click", async () => (await show(STEP))[0]?.querySelector("button").focus());
  void show(FIRST);
  return h("section", { class: "flag", "aria-label": flagTitle(flag) },
    h("h3", {}, flagTitle(flag), " ", h("span", { class: "flag-count" }, images(raised.length, "image")), printed),
    h("p", { class: "flag-words" }, h("bdi", {}, unbroken(clean(about.definition, 1000)))),
    h("p", { class: "hint" },
      told(about.threshold) ? `Threshold: ${told(about.threshold)}. ` : "",
      told(about.error) ? `Error rate: ${told(about.error).replace(/\.$/, "")}.` : "",
      told(about.measured_by) ? [" Measured by ", h("code", {}, told(about.measured_by)), "."] : ""),
    raised.length > 0 ? list : h("p", { class: "hint none" }, "No image of this gallery."),
    more);
}

async function pair(image, flag, raised, byKey) {
  const [, words, beside] = KINDS[flag] ?? OTHER;
  const twin = flag === "duplicate" ? byKey.get(image.duplicateOf) : null;
  const record = twin ? null : await training(beside(image));
  const right = twin
    ? { picture: twin.picture, name: twin.key, who: "in the gallery" }
    : record
      ? { picture: record.picture, name: title({ owners: [record] }), who: creators({ owners: [record] }) }
      : { picture: -1, name: (flag === "duplicate" && clean(image.duplicateOf, 200)) || "none", who: "" };
  const open = (opened) => h("button", {
    type: "button",
    class: "pair-open",
    "aria-label": `Open ${clean(opened.key, 100)}: ${words(image)}`,
    onclick: () => void openImage(opened, opened === image ? raised : [opened]),
  });
  const left = open(image);
  left.append(picture(image.picture, image.key));
  return h("li", { class: "pair" },
    h("div", { class: "pair-pictures" },
      left,
      h("div", { class: "pair-other" }, picture(right.picture, right.name, twin ? "The other generated image" : "The training image"))),
    h("p", { class: "pair-words" }, h("strong", {}, h("bdi", {}, words(image)))),
    h("p", { class: "pair-names" },
      h("bdi", { class: "one-line" }, clean(image.key, 120)),
      h("bdi", { class: "one-line hint" }, clean(image.prompt, 200)),
      h("bdi", { class: "one-line" }, `${right.name}`),
      h("bdi", { class: "one-line hint" }, right.who)));
}
