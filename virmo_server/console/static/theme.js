// Before the first paint: the theme that the operator chose on this browser, or the system's.
"use strict";
(() => {
  const chosen = localStorage.getItem("virmo-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
