// Where things stand on a narrow screen: the settings right above the wall, folded until they are
// wanted, so that the wall is seen while they change; what is taken along, below it. They are moved,
// not only drawn elsewhere: the keyboard goes through them in the order in which they are seen.

import { byId } from "./dom.js";

const narrow = matchMedia("(max-width: 860px)"); // as in style.css

export function readyPlaces() {
  const [settings, fold, tools] = ["settings", "settings-fold", "tools"].map(byId);
  let open = false; // on a narrow screen; on a wide one they are always seen
  const place = () => {
    const focused = document.activeElement;
    if (narrow.matches) byId("wall-view").before(settings);
    else byId("rail").append(settings);
    if (narrow.matches) byId("table-view").after(tools);
    else byId("bar-of-tools").append(tools);
    fold.open = narrow.matches ? open : true;
    if (focused !== document.activeElement) focused.focus(); // moving takes the focus away
  };
  fold.addEventListener("toggle", () => {
    if (narrow.matches) open = fold.open;
  });
  narrow.addEventListener("change", place);
  place();
}
