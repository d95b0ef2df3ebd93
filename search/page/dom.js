// Elements, built without markup: whatever comes from an answer is a text node or an attribute.

export const byId = (id) => document.getElementById(id);

/** An element with properties (class, on..., aria-..., any attribute) and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** A link out of the page, of http and https only; anything else is its text. */
export function outwardLink(address) {
  let url;
  try {
    url = new URL(address);
  } catch {
    return h("span", { class: "address-text" }, address);
  }
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    return h("span", { class: "address-text" }, address);
  }
  return h(
    "a",
    { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow", class: "address-text" },
    address,
  );
}

/** Says something to screen readers, once, even if it is what was said last. */
export function announce(words) {
  const live = byId("live");
  live.textContent = "";
  setTimeout(() => (live.textContent = words), 60);
}
