// Light or dark: the system's, or the one chosen here. A classic script in the head, so that the
// page is never painted in the wrong one first.
(() => {
  "use strict";
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem("attrib-theme");
  } catch {
    // Storage may be blocked; the choice then lasts as long as the page.
  }

  const dark = () => (chosen ? chosen === "dark" : system.matches);

  function apply() {
    document.documentElement.dataset.theme = dark() ? "dark" : "light";
    const button = document.getElementById("theme");
    if (button) button.textContent = dark() ? "Light" : "Dark";
    if (button) button.setAttribute("aria-label", `Use ${dark() ? "light" : "dark"} colours`);
  }

  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      chosen = dark() ? "light" : "dark";
      try {
        localStorage.setItem("attrib-theme", chosen);
      } catch {
        // As above.
      }
      apply();
    });
  });
})();
