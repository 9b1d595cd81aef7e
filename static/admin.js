// admin.js: two things that the admin panel lacks. Runs before the first paint, so it is no module.

// Its style sheet wants the word "dark" and does not follow the system. The server writes a choice into the meta tag.
(() => {
  const chosen = document.querySelector('meta[name="color-scheme"]').content;
  const system = matchMedia("(prefers-color-scheme: dark)");

  function apply() {
    const isChosen = chosen === "light" || chosen === "dark";
    const theme = isChosen ? chosen : system.matches ? "dark" : "light";
    document.documentElement.dataset.bsTheme = theme;
    if (isChosen) document.documentElement.dataset.theme = theme;
  }

  apply();
  system.addEventListener("change", apply);
})();

// «Delete person d810e906-...?» is a question nobody can answer: ask with what the row begins with instead.
document.addEventListener("click", (event) => {
  const button = event.target.closest('[data-bs-target="#modal-delete"]');
  const called = button?.closest("tr")?.cells[2]?.textContent.trim();
  if (called) button.dataset.pk = called;
}, true);
