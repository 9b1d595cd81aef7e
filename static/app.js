// app.js: small comforts for every page. Each page works without them.

const root = document.documentElement;
const line = document.querySelector("[data-announce]");

// Says something to screen readers. Emptied first, or the same words twice would be said once.
function announce(text) {
  line.textContent = "";
  setTimeout(() => { line.textContent = text; }, 50);
}

document.addEventListener("announce", (event) => announce(event.detail));

// --- Theme -----------------------------------------------------------------------------------------------
// The server keeps the choice in a cookie and writes it into <html data-theme>; this only saves the reload.
document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-theme-form]");
  if (!form || !event.submitter) return;
  event.preventDefault();
  const theme = event.submitter.value;
  if (theme === "auto") root.removeAttribute("data-theme");
  else root.dataset.theme = theme;
  for (const button of document.querySelectorAll("[data-theme-form] button")) {
    button.setAttribute("aria-pressed", String(button.value === theme));
  }
  const body = new FormData(form, event.submitter);
  fetch(form.action, { method: "POST", body, redirect: "manual" }).catch(() => {});
});

// --- Copy ------------------------------------------------------------------------------------------------
// data-copy names the thing around the button; copied is the <pre> or the answer in it.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = button.closest(button.dataset.copy)?.querySelector("pre, [data-copy-source]");
  if (!source) return;
  const isCode = source.localName === "pre";
  const copied = await copy(isCode ? source.textContent : readable(source), isCode ? null : source);
  announce(copied ? "Copied." : "Your browser did not allow copying.");
  if (copied) showTick(button);
});

// The text as it stands on the page, without the bars above the blocks of code.
function readable(element) {
  const bars = element.querySelectorAll(".code > header");
  for (const bar of bars) bar.hidden = true;
  const text = element.innerText.trim();
  for (const bar of bars) bar.hidden = false;
  return text;
}

async function copy(text, element) {
  // navigator.clipboard is missing on http:// addresses other than localhost, for example in a home network.
  if (!navigator.clipboard) return copyBySelection(text);
  try {
    if (element && window.ClipboardItem) await navigator.clipboard.write([withFormatting(text, element)]);
    else await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

// Lists and tables stay lists and tables when they are pasted into a letter.
function withFormatting(text, element) {
  const clone = element.cloneNode(true);
  for (const bar of clone.querySelectorAll(".code > header")) bar.remove();
  return new ClipboardItem({
    "text/plain": new Blob([text], { type: "text/plain" }),
    "text/html": new Blob([clone.innerHTML], { type: "text/html" }),
  });
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const box = document.createElement("textarea");
  box.className = "visually-hidden";
  box.value = text;
  document.body.append(box);
  box.select();
  const copied = document.execCommand("copy");
  box.remove();
  focused?.focus({ preventScroll: true });
  return copied;
}

function showTick(button) {
  const label = button.firstElementChild ? null : button.textContent;
  button.classList.add("is-copied");
  if (label === "Copy") button.textContent = "Copied";
  setTimeout(() => {
    button.classList.remove("is-copied");
    if (label === "Copy") button.textContent = "Copy";
  }, 1600);
}

// --- Times -----------------------------------------------------------------------------------------------
// The server writes UTC. Here each <time> becomes the reader's own clock, in the reader's own kind of English.
const locale = navigator.languages.find((one) => one.startsWith(root.lang)) ?? root.lang;
const format = (options) => new Intl.DateTimeFormat(locale, options);
const exact = format({ dateStyle: "full", timeStyle: "short" });
const clock = format({ hour: "numeric", minute: "2-digit" });
const day = format({ day: "numeric", month: "short" });
const dayAndYear = format({ day: "numeric", month: "short", year: "numeric" });

function localiseTimes(part) {
  const now = new Date();
  for (const time of part.querySelectorAll("time[datetime]")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    time.title = exact.format(moment);
    if (moment.toDateString() === now.toDateString()) time.textContent = clock.format(moment);
    else if (moment.getFullYear() === now.getFullYear()) time.textContent = day.format(moment);
    else time.textContent = dayAndYear.format(moment);
  }
}

localiseTimes(document);
document.addEventListener("inserted", (event) => localiseTimes(event.target));

// --- Dialogs ---------------------------------------------------------------------------------------------
// Browsers of before 2026 do not know <button command>. These lines stand in for it.
if (!("command" in HTMLButtonElement.prototype)) {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[commandfor]");
    const dialog = button && document.getElementById(button.getAttribute("commandfor"));
    if (!dialog) return;
    if (button.getAttribute("command") === "show-modal") dialog.showModal();
    else dialog.close();
  });
}
