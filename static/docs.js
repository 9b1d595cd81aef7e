// docs.js: starts Swagger UI, and tells it which theme the site has.
const page = document.documentElement;
const system = matchMedia("(prefers-color-scheme: dark)");

function followTheme() {
  const theme = page.dataset.theme ?? (system.matches ? "dark" : "light");
  page.classList.toggle("dark-mode", theme === "dark");
}

followTheme();
system.addEventListener("change", followTheme);
new MutationObserver(followTheme).observe(page, { attributeFilter: ["data-theme"] });

const docs = document.getElementById("docs");
SwaggerUIBundle({
  domNode: docs,
  url: docs.dataset.schema,
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: false, // a token in the browser's storage would outlive the visit
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // the default sends the description's address to swagger.io
});
