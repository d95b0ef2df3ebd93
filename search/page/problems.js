// What the service refused, in words: its short names for programs as titles for people.

import { clean, size } from "./words.js";

const OTHER_FILE = "Give a PNG, JPEG or WebP file.";
const SAVE_IT = "Save the image and give the file instead.";

// End of a problem's type -> [title, what to do]; `it` is the file or the address.
const OF_IMAGES = {
  "not-an-image": (it) => [`${it} is not an image.`, OTHER_FILE],
  "empty-file": (it) => [`${it} is empty.`, OTHER_FILE],
  "unreadable-file": (it) => [`${it} cannot be read.`, OTHER_FILE],
  "truncated-image": (it) => [`${it} is cut off.`, "Its end is missing: get the file anew."],
  "broken-image-data": (it) => [`${it} is damaged.`, "Get the file anew, or save it in another format."],
  "more-bytes-than-the-limit": (it) => [`${it} is too large.`, "Give a smaller file of it."],
  "more-pixels-than-the-limit": (it) => [`${it} has too many pixels.`, "Give a smaller size of it."],
  "not-a-web-address": (it) => [`${it} is not a web address.`, "An address begins with https:// or http://."],
  "not-a-public-address": (it) => [`${it} is not on the public web.`, `The service fetches from there only. ${SAVE_IT}`],
  "dead-link": (it) => [`There is nothing at ${it}.`, SAVE_IT],
  "refused-by-the-server": (it) => [`${it} may not be fetched.`, `Its server refuses. ${SAVE_IT}`],
  "opted-out": (it) => [`${it} may not be fetched.`, SAVE_IT],
  "too-many-redirects": (it) => [`${it} leads from one address to the next.`, SAVE_IT],
  "no-connection": (it) => [`${it} cannot be reached.`, "Check the address, or save the image and give the file."],
  "server-error": (it) => [`The server of ${it} failed.`, "Try again, or save the image and give the file."],
  "too-many-requests": (it) => [`The server of ${it} is busy.`, "Try again later, or save the image and give the file."],
  "broken-off": (it) => [`Sending ${it} was broken off.`, "Try again."],
};

const OF_THE_SERVICE = {
  busy: "The service is busy.",
  "not-ready": "The service is still starting.",
  "index-failed": "The search index does not answer.",
  "folder-busy": "The service is at work on its data.",
  "not-possible-now": "The service cannot do this now.",
  "too-many-requests": "The service is busy.",
  "model-mismatch": "Model and index of the service do not belong together.",
  "wrong-host": "The service does not answer under this address.",
};

// Those of an image that may be gone with another try.
const PASSING = ["no-connection", "timed-out", "server-error", "too-many-requests", "broken-off"];

/** The name of a file, or an address, in quotes and not too long. */
export function quoted(name) {
  const words = [...clean(name, 500)];
  return `“${words.length > 60 ? `${words.slice(0, 40).join("")}…${words.slice(-16).join("")}` : words.join("")}”`;
}

/** {title, detail, passing}; `about`: the name of the image that was sent, or null. */
export function inWords({ kind, detail, status, about }) {
  const it = about ? quoted(about) : "The image";
  const said = clean(detail, 1000);
  const bad = status >= 400 && status < 500 && status !== 429;
  if (bad && kind === "timed-out") {
    return { title: `${it} did not come in time.`, detail: told(said, kind, SAVE_IT), passing: true };
  }
  if (bad && Object.hasOwn(OF_IMAGES, kind)) {
    const [title, help] = OF_IMAGES[kind](it);
    return { title, detail: told(said, kind, help), passing: PASSING.includes(kind) };
  }
  if (Object.hasOwn(OF_THE_SERVICE, kind)) return { title: OF_THE_SERVICE[kind], detail: said, passing: false };
  return { title: byStatus(status, kind, it, Boolean(about)), detail: said, passing: false };
}

function byStatus(status, kind, it, sent) {
  if (status === 429) return "The service is busy.";
  if (kind === "timed-out" || status === 504) return "The answer took too long.";
  if (status === 413) return `${it} is too large.`;
  if (status === 404) return "The service has nothing there.";
  if (status === 502 || status === 503) return "The service cannot answer now.";
  if (status >= 500) return "The service failed.";
  return sent ? `The service does not take ${it}.` : "The service does not take this.";
}

/** What to do, and what the service said where that is more than the problem's name. */
function told(said, kind, help) {
  const name = kind.replaceAll("-", " ");
  const more = said.toLowerCase().startsWith(name) ? said.slice(name.length).replace(/^[:\s]+/, "") : said;
  return more ? `${help} (${more})` : help;
}

/** Why a file cannot be sent at all: a title and what to do; null if it can. */
export function unfit(file, most) {
  const it = quoted(file.name || "The pasted image");
  if (file.type && !file.type.startsWith("image/")) {
    return [`${it} is not an image.`, `It is ${clean(file.type, 100)}. ${OTHER_FILE}`];
  }
  if (file.size === 0) return OF_IMAGES["empty-file"](it);
  if (most && file.size > most) {
    return [`${it} is too large.`, `It has ${size(file.size)}; this service takes up to ${size(most)}.`];
  }
  return null;
}
