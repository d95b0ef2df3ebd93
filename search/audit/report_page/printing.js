// On paper nothing is folded.

import { byId } from "./dom.js";

export function readyPrinting() {
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const each of folded) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of folded) each.open = false;
    folded = [];
  });
  byId("print").addEventListener("click", async () => {
    // Pictures further down may not be decoded yet, and a print does not wait for them.
    await Promise.allSettled([...document.images].map((image) => image.decode()));
    print();
  });
}
