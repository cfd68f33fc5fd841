// Before anything is painted: the theme that was chosen, so that a dark page never flashes white.
(() => {
  const chosen = localStorage.getItem("tidegate-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
