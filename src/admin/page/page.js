// Takes over what has changed, and follows events. Whatever strangers wrote comes either as the daemon's own
// escaped HTML, or through textContent.
"use strict";

const REFRESH = 5000;
const TYPING = 120;
const AGAIN = 10000;
const LISTED = 100;
const BEFORE = 15;
const WIDTH = 200;
const $ = (id) => document.getElementById(id);

// Makes `old` like `fresh`, touching only what differs: focus, selection and scrolling stay.
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    // What somebody has unfolded stays so.
    if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const [before, after] = [[...old.childNodes], [...fresh.childNodes]];
  after.forEach((node, index) => (index < before.length ? morph(before[index], node) : old.append(node)));
  before.slice(after.length).forEach((node) => node.remove());
}

let asked = null;
let timer = 0;

// Fetches the page as the address has it; a later call ends an earlier one.
async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  asked?.abort();
  const ours = (asked = new AbortController());
  const limit = setTimeout(() => ours.abort(), AGAIN);
  try {
    const answer = await fetch("/" + location.search, { signal: ours.signal });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(answer.statusText);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (asked !== ours) return;
    take(fresh);
    $("lost").hidden = true;
  } catch {
    if (asked !== ours) return;
    $("lost").hidden = false;
  } finally {
    clearTimeout(limit);
  }
  timer = setTimeout(refresh, REFRESH);
}

function take(fresh) {
  const [verdict, found] = [$("verdict").textContent, $("found").textContent];
  for (const old of document.querySelectorAll("[data-live]")) {
    const part = fresh.getElementById(old.id);
    if (part) morph(old, part);
  }
  document.title = fresh.title;
  if ($("verdict").textContent !== verdict) $("announce").textContent = $("verdict").textContent;
  else if ($("found").textContent !== found) $("announce").textContent = $("found").textContent;
}

// Another view of the table, without leaving the page.
function look(query) {
  history.replaceState(null, "", "/" + (query ? "?" + query : ""));
  refresh();
}

function searched() {
  const fields = new URLSearchParams();
  if ($("q").value.trim()) fields.set("q", $("q").value);
  if ($("state").value) fields.set("state", $("state").value);
  return fields.toString();
}

let typing = 0;
$("q").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => look(searched()), TYPING);
});
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  look(searched());
});
$("rows").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const query = new URL(link.href).searchParams;
  $("state").value = query.get("state") ?? "";
  look(query.toString());
  if (link.rel) $("subscriptions").scrollIntoView();
});

// The live tail.
const list = $("tail-list");
let source = null;
let again = 0;
let last = Math.max(0, Number(list.dataset.newest) - BEFORE);
let waiting = [];
let drawing = 0;
let paused = false;

function say(text) {
  if ($("tail-state").textContent !== text) $("tail-state").textContent = text;
}

function close() {
  source?.close();
  source = null;
  clearTimeout(again);
}

function follow() {
  close();
  if (paused || document.hidden) return;
  const query = new URLSearchParams({ after: last });
  const type = $("type").value.trim();
  if (type) query.set("type", type);
  const ours = (source = new EventSource("/events?" + query));
  ours.onopen = () => say(type ? "Following " + type : "Following all types");
  ours.onmessage = (event) => add(JSON.parse(event.data));
  ours.addEventListener("skipped", (event) => add({ skipped: JSON.parse(event.data).count }));
  ours.onerror = () => {
    if (ours !== source) return;
    say("Not connected, trying again");
    // A browser tries again by itself unless it was refused.
    if (ours.readyState === EventSource.CLOSED) again = setTimeout(follow, AGAIN);
  };
}

function add(event) {
  if (event.seq) last = event.seq;
  waiting.push(event);
  waiting.splice(0, waiting.length - LISTED);
  drawing ||= requestAnimationFrame(draw);
}

function element(name, kind, text) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

function draw() {
  drawing = 0;
  const items = document.createDocumentFragment();
  for (const event of waiting.splice(0).reverse()) items.append(event.skipped ? passed(event.skipped) : item(event));
  list.prepend(items);
  while (list.children.length > LISTED) list.lastChild.remove();
}

function passed(count) {
  return element("li", "skipped", `${count.toLocaleString("en")} events passed over: more came than can be shown`);
}

function item(event) {
  const details = element("details");
  const summary = element("summary");
  const time = element("time", "", event.stored_at.slice(11, 19));
  time.dateTime = event.stored_at;
  const body = event.payload.event ?? event.payload.events;
  const text = JSON.stringify(body) ?? "";
  const who = body?.broadcaster_user_name ?? body?.to_broadcaster_user_name;
  summary.append(
    time,
    element("span", "kind", event.metadata.subscription_type),
    element("span", "who", typeof who === "string" ? who.slice(0, 40) : ""),
    element("span", "text", text.length > WIDTH ? text.slice(0, WIDTH) + "…" : text),
  );
  details.append(summary);
  details.addEventListener(
    "toggle",
    () => details.append(element("pre", "", JSON.stringify({ seq: event.seq, ...event.metadata, ...event.payload }, null, 2))),
    { once: true },
  );
  const made = element("li");
  made.append(details);
  return made;
}

let choosing = 0;
$("type").addEventListener("input", () => {
  clearTimeout(choosing);
  choosing = setTimeout(follow, 3 * TYPING);
});
$("tail").addEventListener("submit", (event) => event.preventDefault());
$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  say(paused ? "Paused" : "Connecting");
  follow();
});
document.addEventListener("visibilitychange", () => {
  refresh();
  follow();
});

$("tail").hidden = false;
timer = setTimeout(refresh, REFRESH);
follow();
