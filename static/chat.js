// chat.js: sends a question and shows the answer while it is being written.
//
// The server sends finished, safe HTML in three events; this file only puts it in place:
//   open   the question and the empty answer, and the addresses to follow and to stop it
//   patch  block n of the answer: how much of its HTML stays, and what comes after that
//   done   the line under the answer, and the words for screen readers
// An answer lives on the server. When the connection is cut we ask again, and the answer is drawn anew. Where something
// on the way keeps the stream back, we ask again and again for what there is after a second: some hosts let the server
// write only while somebody asks.
// Without this file the form posts, and the page reloads itself until the answer is there.

const form = document.querySelector("[data-chat-form]");
const log = document.querySelector("[data-chat-log]");
const thread = log.querySelector("[data-chat-thread]");
const jump = document.querySelector("[data-chat-jump]");
const problem = document.querySelector("[data-chat-problem]");
const list = document.querySelector("[data-chat-list]");
const box = form.elements.text;
const send = form.querySelector("[data-chat-send]");
const stop = form.querySelector("[data-chat-stop]");

const LONGEST_SILENCE = 8_000; // the server says something every four seconds, so a quiet line is dead or kept back
const POLL = 100; // between two questions for what there is, each of which waits a second for more
const LONGEST_PAUSE = 15_000; // between two tries to connect again
const PATIENCE = 3_000; // a short cut is mended without a word
const hasKeyboard = !matchMedia("(hover: none) and (pointer: coarse)").matches;

let current = null; // the answer that is being written now, or null
let isKeptBack = false; // by a proxy that gives a stream only at its end

const say = (text) => document.dispatchEvent(new CustomEvent("announce", { detail: text }));

// --- Asking ----------------------------------------------------------------------------------------------

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (event.submitter === stop) stopAnswer();
  else ask(box.value);
});

document.addEventListener("submit", (event) => {
  if (event.target.matches("[data-chat-suggestions]")) {
    event.preventDefault();
    ask(event.submitter.value);
  } else if (event.target.matches("[data-chat-again]")) {
    event.preventDefault();
    write({ url: event.target.action, body: new URLSearchParams(new FormData(event.target)) });
  }
});

box.addEventListener("keydown", (event) => {
  // While a Japanese or Chinese word is being put together, Enter belongs to the keyboard, not to us.
  const isComposing = event.isComposing || event.keyCode === 229;
  if (event.key !== "Enter" || event.shiftKey || isComposing || !hasKeyboard) return;
  event.preventDefault();
  if (current) say("The answer is still being written. Press Escape to stop it.");
  else if (box.value.trim()) form.requestSubmit(send);
});

document.addEventListener("keydown", (event) => {
  const belongsToOther = document.querySelector("dialog[open], :popover-open");
  if (event.key === "Escape" && current && !event.isComposing && !belongsToOther) stopAnswer();
});

// The key tells the server whether it has this question already. Other words need another key.
let lastTried = null;

function ask(text) {
  if (current || !text.trim()) return;
  if (lastTried !== null && lastTried !== text) form.elements.client_key.value = newKey();
  lastTried = text;
  const body = new URLSearchParams(new FormData(form));
  body.set("text", text);
  write({ url: form.action, body, text });
}

// Clears the box only once the server has the question, so that a lost one can be sent again.
function accept(text) {
  lastTried = null;
  if (box.value.trim() === text.trim()) box.value = "";
  form.elements.client_key.value = newKey();
  say("Sent. The assistant is writing.");
}

// crypto.randomUUID() is missing on http:// addresses other than localhost.
function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

async function stopAnswer() {
  if (!current) return;
  current.isStopped = true; // remembered until there is an address to send it to
  stop.disabled = true;
  const url = stop.getAttribute("formaction");
  if (!url) return;
  try {
    const response = await fetch(url, { method: "POST", headers: { Accept: "application/json" } });
    if (!response.ok) throw new Error(response.statusText);
  } catch {
    stop.disabled = false;
    showProblem("The answer could not be stopped. Try again.");
  }
}

// --- The stream ------------------------------------------------------------------------------------------

// Shows one answer from its first word to its last. `text` is the question in the box, if there is one;
// `resume` is the address of an answer that was already being written when this page was loaded.
async function write({ url, body, text, resume }) {
  if (current) return;
  const answer = {
    text, follow: resume, lastId: -1, blocks: [], article: null, isDone: false, isStopped: false,
    isNews: !resume, polls: isKeptBack,
  };
  current = answer;
  showBusy(true);
  hideProblem();
  try {
    if (!resume) {
      const refusal = await post(answer, url, body);
      if (refusal) return showProblem(refusal);
    }
    await keepFollowing(answer);
  } finally {
    current = null;
    answer.article?.removeAttribute("aria-busy");
    showBusy(false);
  }
}

// Returns a sentence if the server did not take the question. One that got no word is sent again: its key makes it one.
async function post(answer, url, body) {
  for (const isLast of [false, true]) {
    const response = await connect(answer, url, { method: "POST", body });
    if (response && !response.ok) return readRefusal(response);
    if (response) await listen(answer, response);
    if (answer.follow) return;
    if (!answer.polls) break;
    if (!isLast && !body.has("client_key")) return location.reload();
  }
  return "The server cannot be reached. Nothing is lost: try again in a moment.";
}

async function readRefusal(response) {
  const { detail } = await response.json().catch(() => ({}));
  return typeof detail === "string" ? detail : `The server answered with error ${response.status}. Try again in a moment.`;
}

function followUnfinished() {
  const unfinished = thread.querySelector("[data-resume]");
  if (unfinished) write({ resume: unfinished.dataset.resume });
}

async function keepFollowing(answer) {
  let pause = answer.lastId < 0 ? 0 : shortestPause(answer);
  let warning = null;
  const connected = () => {
    clearTimeout(warning);
    warning = null;
    hideProblem();
  };
  while (!answer.isDone) {
    const seen = answer.lastId;
    warning ??= setTimeout(showProblem, PATIENCE, "The connection is lost. Connecting again …");
    await waitFor(pause);
    pause = Math.min(Math.max(pause * 2, 500), LONGEST_PAUSE);
    const response = await connect(answer, answer.follow);
    if (response?.ok) await listen(answer, response, connected);
    else if ([401, 403, 404].includes(response?.status)) return giveUp(answer, warning);
    if (answer.lastId > seen || (answer.polls && response?.ok)) pause = shortestPause(answer);
  }
  clearTimeout(warning);
}

const shortestPause = (answer) => (answer.polls ? POLL : 500);

// Signed out or deleted meanwhile, perhaps in another tab. A reload says which, unless this is one.
function giveUp(answer, warning) {
  clearTimeout(warning);
  if (answer.lastId >= 0) location.reload();
  else showProblem("This answer is no longer there. Reload the page.");
}

// null when the network or the server is not there
async function connect(answer, url, options) {
  const headers = { Accept: "text/event-stream" };
  if (answer.polls) headers.Prefer = "wait=1";
  const abort = new AbortController();
  const silence = setTimeout(() => {
    abort.abort();
    answer.polls = isKeptBack = true;
  }, LONGEST_SILENCE);
  const response = await fetch(url, { ...options, headers, signal: abort.signal }).catch(() => null);
  clearTimeout(silence);
  return response;
}

// Reads events until the stream ends or is cut. All that has come is put in place before the page is drawn.
async function listen(answer, response, onFirst) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = null;
  while (!answer.isDone) {
    const silence = setTimeout(() => {
      reader.cancel();
      answer.polls = true;
      isKeptBack ||= rest === null;
    }, LONGEST_SILENCE);
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    clearTimeout(silence);
    if (done) return;
    if (rest === null) onFirst?.();
    const parts = ((rest ?? "") + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) receive(answer, parse(part));
    scrollToEnd();
  }
}

function parse(text) {
  const event = { id: -1, name: "message", data: "" };
  for (const line of text.split("\n")) {
    if (line.startsWith("event: ")) event.name = line.slice(7);
    else if (line.startsWith("data: ")) event.data += line.slice(6);
    else if (line.startsWith("id: ")) event.id = Number(line.slice(4));
  }
  return event;
}

function receive(answer, { id, name, data }) {
  if (!data) return; // a comment that keeps the line alive
  const values = JSON.parse(data);
  if (name === "open") open(answer, values);
  else if (name === "patch") patch(answer, values);
  else if (name === "done") finish(answer, values);
  answer.lastId = Math.max(answer.lastId, id); // how far the answer has come; all of it comes again after a cut
}

// Comes again after each reconnection, so doing it twice must change nothing.
function open(answer, { id, html, stop: stopUrl, follow, url, title, item, replaces }) {
  if (!document.getElementById(id)) {
    if (replaces) document.getElementById(replaces)?.remove();
    document.querySelector("[data-chat-start]")?.remove();
    thread.insertAdjacentHTML("beforeend", html);
    isFollowing = true;
  }
  answer.article = document.getElementById(id);
  answer.article.setAttribute("aria-busy", "true");
  answer.article.querySelector(".tools").replaceChildren(); // one that goes on is not over any more
  answer.blocks = [];
  answer.follow = follow;
  stop.setAttribute("formaction", stopUrl);
  if (answer.text !== undefined) {
    accept(answer.text);
    answer.text = undefined;
  }
  enterConversation(url, title, item);
  if (answer.isNews) otherTabs.postMessage(location.pathname);
  answer.isNews = false;
  if (answer.isStopped) stopAnswer();
}

function patch(answer, { n, keep, html }) {
  const target = answer.article.querySelector(".answer");
  // What has stood here since the page was loaded, or before the cut, comes again from its first block.
  if (answer.blocks.length === 0) target.replaceChildren();
  while (target.children.length <= n) target.append(document.createElement("div"));
  answer.blocks[n] = (answer.blocks[n] ?? "").slice(0, keep) + html;
  putSafely(target.children[n], answer.blocks[n]);
}

function finish(answer, { html, announce }) {
  const tools = answer.article.querySelector(".tools");
  tools.innerHTML = html;
  tools.dispatchEvent(new Event("inserted", { bubbles: true }));
  answer.article.removeAttribute("aria-busy");
  answer.article.removeAttribute("data-resume");
  answer.isDone = true;
  say(announce);
}

// The server has cleaned what the model wrote. Where the browser can clean as well, it does so once more.
function putSafely(element, html) {
  if (element.setHTML) element.setHTML(html, { sanitizer: {} });
  else element.innerHTML = html;
}

// A new chat gets its address with its first answer; forms with data-path have waited for it.
function enterConversation(url, title, item) {
  for (const waiting of document.querySelectorAll("form[data-path]")) {
    waiting.action = url + waiting.dataset.path;
    waiting.removeAttribute("data-path");
  }
  const hidden = document.querySelector("[data-chat-menu][hidden]");
  if (hidden) {
    hidden.hidden = false;
    hidden.querySelector("[name=title]").value = title;
    document.querySelector("[data-chat-title]").textContent = title;
    document.title = title + document.title.slice(document.title.lastIndexOf(" · "));
    history.replaceState(null, "", url);
  }
  if (item) moveToTop(item);
}

function moveToTop(item) {
  const holder = document.createElement("template");
  holder.innerHTML = item;
  const element = holder.content.firstElementChild;
  document.getElementById(element.id)?.remove();
  for (const link of list.querySelectorAll("[aria-current]")) link.removeAttribute("aria-current");
  list.prepend(element);
}

// --- Cuts ------------------------------------------------------------------------------------------------

let wakeUp = () => {};
const waitFor = (milliseconds) => new Promise((resolve) => {
  wakeUp = resolve;
  setTimeout(resolve, milliseconds);
});

addEventListener("online", () => {
  isKeptBack = false;
  wakeUp();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  wakeUp();
  catchUp();
});

// --- Other tabs ------------------------------------------------------------------------------------------

// A question that was asked in another tab, or on another device before we come back to this one, is shown here, too.
const otherTabs = new BroadcastChannel("chat");
otherTabs.addEventListener("message", ({ data: path }) => { if (path === location.pathname) catchUp(); });

async function catchUp() {
  if (current || location.search) return;
  const response = await fetch(location.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!response?.ok || response.redirected || current) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.querySelector("[data-chat-thread]");
  if (current || !fresh || describe(fresh) === describe(thread)) return;
  document.querySelector("[data-chat-start]")?.remove();
  thread.replaceChildren(...fresh.children);
  followUnfinished();
  scrollToEnd();
}

// Which messages there are, and which of them is being written.
const describe = (thread) =>
  Array.from(thread.querySelectorAll(".message"), ({ id, dataset }) => id + ("resume" in dataset ? "…" : "")).join();

// --- What a person sees ----------------------------------------------------------------------------------

function showBusy(isBusy) {
  const hadFocus = [send, stop, document.body].includes(document.activeElement);
  send.hidden = isBusy;
  stop.hidden = !isBusy;
  stop.disabled = false;
  if (!isBusy) stop.removeAttribute("formaction");
  // On a phone the focus would open the keyboard over the answer.
  if (hadFocus && hasKeyboard) box.focus({ preventScroll: true });
}

function showProblem(sentence) {
  problem.querySelector("span").textContent = sentence;
  problem.hidden = false;
}

function hideProblem() {
  problem.hidden = true;
}

// The page follows the text as long as the reader is at its end; scrolling up is a wish to stay.
let isFollowing = true;
let lastTop = 0;
const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 60;

function scrollToEnd() {
  if (isFollowing) log.scrollTop = log.scrollHeight;
}

log.addEventListener("scroll", () => {
  if (isAtEnd()) isFollowing = true;
  else if (log.scrollTop < lastTop) isFollowing = false;
  lastTop = log.scrollTop;
  jump.hidden = isFollowing;
}, { passive: true });

jump.addEventListener("click", () => {
  isFollowing = true;
  scrollToEnd();
  if (hasKeyboard) box.focus({ preventScroll: true });
});

new ResizeObserver(scrollToEnd).observe(log); // the box grows, the phone's keyboard comes

// --- Start -----------------------------------------------------------------------------------------------

scrollToEnd();
followUnfinished();
