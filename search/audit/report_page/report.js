// The report: what is known at once is shown at once, the rest when the file is read that far.

import { showBars } from "./bars.js";
import { loadImages } from "./data.js";
import { byId, h } from "./dom.js";
import { showFlags } from "./flagged.js";
import { searchCreator, showGallery } from "./gallery.js";
import { readyOpened } from "./opened.js";
import { showPlots } from "./plots.js";
import { readyPrinting } from "./printing.js";
import { showTold } from "./told.js";

function fail(error) {
  byId("error").hidden = false;
  byId("error").replaceChildren(
    h("div", {},
      h("p", { class: "error-title" }, "A part of this report cannot be shown"),
      h("p", {}, typeof DecompressionStream === "undefined" ? "Its data need a browser of 2023 or later." : String(error?.message ?? error))),
  );
}

showTold();
showPlots();
showBars(searchCreator);
readyOpened();
readyPrinting();
loadImages()
  .then(({ images, names }) => {
    showGallery(images, names);
    showFlags(images);
    document.documentElement.dataset.ready = "";
  })
  .catch(fail);
