// The service: requests, its errors in words, and the key it may ask for.

import { byId } from "./dom.js";
import { inWords } from "./problems.js";
import { clean } from "./words.js";

const KEY = "attrib-key";

export class Problem extends Error {
  /**
   * `title` and `detail` are for people; `retry` is seconds until another try makes sense, else
   * null; `passing`: the same image may do another time.
   */
  constructor(title, detail, status = 0, retry = null, passing = false) {
    super(detail || title);
    Object.assign(this, { title, detail, status, retry, passing });
  }
}

let memory = null;

export function key() {
  try {
    return sessionStorage.getItem(KEY) ?? memory;
  } catch {
    return memory;
  }
}

function keep(value) {
  memory = value;
  try {
    if (value) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // Storage may be blocked; the key then lasts as long as the page.
  }
}

let asking = null;
let times = 0; // that a person was asked

/** Asks for the key in a dialog, once however many requests wait; true if one was given. */
function askForKey(refused) {
  asking ??= new Promise((answered) => {
    const dialog = byId("key-dialog");
    const field = byId("key");
    byId("key-words").textContent = refused
      ? "The last key was not accepted. Check it, and try again."
      : "It is kept until this tab is closed.";
    field.value = "";
    // The key counts from here, not from the event: browsers send that with the next frame.
    const settle = (value) => {
      byId("key-cancel").removeEventListener("click", cancel);
      byId("key-form").removeEventListener("submit", submit);
      dialog.removeEventListener("close", closed);
      dialog.close();
      field.value = "";
      keep(value || null);
      asking = null;
      times += 1;
      answered(Boolean(value));
    };
    const cancel = () => settle("");
    const submit = (event) => {
      event.preventDefault();
      settle(field.value.trim());
    };
    // By Escape; open again where the event is that of the dialog before.
    const closed = () => dialog.open || settle("");
    byId("key-cancel").addEventListener("click", cancel);
    byId("key-form").addEventListener("submit", submit);
    dialog.addEventListener("close", closed);
    dialog.showModal();
    field.focus();
  });
  return asking;
}

async function problemOf(response, about) {
  const { status } = response;
  const retry = Number(response.headers.get("Retry-After"));
  let kind = "";
  let detail = "";
  try {
    const problem = await response.json();
    kind = clean(problem.type, 200).split(":").pop();
    detail = clean(problem.detail, 1000);
  } catch {
    // Something in between answered; its status has to do.
  }
  const words = inWords({ kind, detail, status, about });
  const wait = Number.isFinite(retry) && retry > 0 ? retry : null;
  return new Problem(words.title, words.detail, status, wait, words.passing);
}

/** fetch, with the key; Problem for everything but success. `about`: what an image sent is called. */
export async function request(path, options = {}, about = null) {
  let known = times;
  for (;;) {
    const sent = key();
    const headers = new Headers(options.headers);
    if (sent) headers.set("Authorization", `Bearer ${sent}`);
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem(
        "The service cannot be reached.",
        "Check that it is running and that you are connected, then try again.",
      );
    }
    if (response.status === 401) {
      // A key may have come while this request was under way; who declined meanwhile is let be.
      const other = key() && sent !== key();
      if (other || (known === times && (await askForKey(Boolean(sent))))) {
        known = times;
        continue;
      }
      throw new Problem("No key was given.", "This service answers only to those with a key.", 401);
    }
    if (!response.ok) throw await problemOf(response, about);
    return response;
  }
}

export const json = async (path, options, about) => (await request(path, options, about)).json();

/** The answer to an image or an address under the settings. */
export async function attribute({ file, url }, settings, signal) {
  const form = new FormData();
  if (file) form.append("image", file, file.name || "pasted image");
  else form.append("url", url);
  form.append("k", settings.k);
  form.append("group_by", settings.groupBy);
  if (settings.exact) form.append("exact", "true");
  for (const { field, value } of settings.where) form.append("where", `${field}=${value}`);
  const about = file ? file.name || "pasted image" : url;
  return json("/v1/attributions", { method: "POST", body: form, signal }, about);
}

export const kept = (id, signal) =>
  json(`/v1/attributions/${encodeURIComponent(id)}`, { signal });

/** Shows an image of the service; with a key it has to be fetched, as <img> sends none. */
export async function showImage(image, path) {
  if (!/^\/(?!\/)/.test(path ?? "")) return;
  if (!key()) {
    image.src = path;
    return;
  }
  try {
    const blob = await (await request(path)).blob();
    const address = URL.createObjectURL(blob);
    image.addEventListener("load", () => URL.revokeObjectURL(address), { once: true });
    image.src = address;
  } catch {
    image.dispatchEvent(new Event("error"));
  }
}
