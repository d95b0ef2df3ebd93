// Where a generated image comes from: dropped, pasted, picked, by address, or an example.

import { Problem, json, request, showImage } from "./api.js";
import { byId, h } from "./dom.js";
import { unfit } from "./problems.js";
import { clean, count } from "./words.js";

const FIRST = 12;

/**
 * `take({file} or {url})` is called with what was given, `fail(error)` with what was wrong;
 * `most()` is how many bytes an image may have, or 0 where that is not known (yet).
 */
export function readyIntake(take, fail, most) {
  const picked = (files) => {
    if (files.length > 1) {
      fail(new Problem("One image at a time.", "The page takes one image; attrib query takes many."));
    } else if (files.length === 1) {
      const why = unfit(files[0], most());
      if (why) fail(new Problem(...why));
      else take({ file: files[0] });
    }
  };

  byId("file").addEventListener("change", (event) => {
    picked([...event.target.files]);
    event.target.value = "";
  });

  byId("address").addEventListener("submit", (event) => {
    event.preventDefault();
    const url = byId("url").value.trim();
    if (/^https?:\/\/[^/]/i.test(url)) take({ url });
    else {
      fail(new Problem("That is not an address.", "An address begins with https:// or http://."));
      byId("url").focus();
    }
  });

  document.addEventListener("paste", (event) => {
    const into = event.target.closest?.("input, textarea");
    const files = [...(event.clipboardData?.files ?? [])];
    if (files.length > 0) {
      event.preventDefault();
      picked(files);
    } else if (!into && !document.querySelector("dialog[open]")) {
      const text = event.clipboardData?.getData("text/plain").trim() ?? "";
      if (/^https?:\/\/\S+$/i.test(text)) take({ url: text });
    }
  });

  readyDrop(picked, take);
  showExamples(take, fail);
}

function readyDrop(picked, take) {
  const veil = byId("veil");
  const carries = (event) =>
    ["Files", "text/uri-list"].some((type) => event.dataTransfer?.types.includes(type));
  let depth = 0;
  document.addEventListener("dragenter", (event) => {
    if (!carries(event)) return;
    depth += 1;
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!carries(event)) return;
    depth = Math.max(0, depth - 1);
    veil.hidden = depth === 0;
  });
  document.addEventListener("dragover", (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  document.addEventListener("drop", (event) => {
    depth = 0;
    veil.hidden = true;
    if (!carries(event)) return;
    event.preventDefault();
    const files = [...event.dataTransfer.files];
    if (files.length > 0) picked(files);
    else {
      const url = event.dataTransfer.getData("text/uri-list").split(/\r?\n/).find((line) => /^https?:/i.test(line));
      if (url) take({ url });
    }
  });
}

async function showExamples(take, fail) {
  let examples;
  try {
    examples = await json("/v1/examples");
  } catch {
    return; // Examples are a courtesy: without them the page works as well.
  }
  if (examples.length === 0) return;
  const spread = evenly(examples, FIRST);
  const rest = examples.filter((example) => !spread.includes(example));
  byId("strip").replaceChildren(...spread.map((example) => thumbnail(example, take, fail)));
  const more = byId("more-examples");
  more.hidden = rest.length === 0;
  more.textContent = `Show ${count(rest.length)} more`;
  more.addEventListener("click", () => {
    const added = rest.map((example) => thumbnail(example, take, fail));
    byId("strip").append(...added);
    more.hidden = true;
    added[0].focus();
  });
  byId("examples").hidden = false;
}

/** `number` of the items, from all over the list. */
const evenly = (items, number) =>
  items.length <= number
    ? items
    : Array.from({ length: number }, (_, i) => items[Math.floor((i * items.length) / number)]);

function thumbnail(example, take, fail) {
  const image = h("img", { alt: "", loading: "lazy", width: "64", height: "64" });
  image.addEventListener("error", () => image.remove()); // what is left is empty, not broken
  showImage(image, example.url);
  const choose = async () => {
    try {
      const blob = await (await request(example.url)).blob();
      take({ file: new File([blob], example.name, { type: blob.type }) });
    } catch (error) {
      fail(error);
    }
  };
  return h(
    "button",
    { type: "button", class: "example", "aria-label": `Example ${clean(example.name)}`, onclick: choose },
    image,
  );
}
