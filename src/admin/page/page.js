// Applies what has changed, shows local times, and follows events. Text of strangers comes either as the daemon's own
// escaped HTML, or through textContent.
"use strict";

const REFRESH = 5000;
const TYPING = 120;
const AGAIN = 10000;
const LISTED = 100;
const BEFORE = 15;
const WIDTH = 200;
const TABLE = ["q", "state", "page", "done", "sink_done"];
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

// Shows times in the time zone of the browser: of today without the date.
const today = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const earlier = new Intl.DateTimeFormat(undefined, { dateStyle: "short", timeStyle: "medium" });
function localTime(time) {
  const date = new Date(time.dateTime);
  if (Number.isNaN(date.getTime())) return;
  const isToday = date.toDateString() === new Date().toDateString();
  time.textContent = (isToday ? today : earlier).format(date);
  time.title = time.dateTime;
}
const localTimes = (root) => root.querySelectorAll("time[datetime]").forEach(localTime);

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
    const query = new URLSearchParams(location.search);
    query.set("events", "no");
    const answer = await fetch("/?" + query, { signal: ours.signal });
    if (answer.status === 401) return location.reload();
    if (!answer.ok) throw new Error(answer.statusText);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (asked !== ours) return;
    take(fresh);
    $("lost").hidden = true;
  } catch {
    if (asked !== ours) return;
    $("lost").hidden = false;
    $("verdict").textContent = "Not answering";
    $("verdict").className = "badge bad";
  } finally {
    clearTimeout(limit);
  }
  timer = setTimeout(refresh, REFRESH);
}

function take(fresh) {
  localTimes(fresh);
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
  const all = new URLSearchParams(query);
  // The choice of events stays.
  for (const [name, value] of new URLSearchParams(location.search)) if (!TABLE.includes(name)) all.append(name, value);
  const text = all.toString();
  history.replaceState(null, "", "/" + (text ? "?" + text : ""));
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
  const link = event.target.closest(".choices a, .pager a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const query = new URL(link.href).searchParams;
  $("state").value = query.get("state") ?? "";
  look(query.toString());
  if (link.rel) $("subscriptions").scrollIntoView();
});

$("glance").addEventListener("click", (event) => {
  const link = event.target.closest("#chart-range a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const query = new URLSearchParams(location.search);
  query.set("chart", new URL(link.href).searchParams.get("chart"));
  history.replaceState(null, "", "/?" + query);
  refresh();
});

// Live events, which continue the list of stored ones.
const list = $("tail-list");
const follows = list.hasAttribute("data-follow");
let source = null;
let again = 0;
let last = Number(list.dataset.newest);
let waiting = [];
let drawing = 0;
let paused = false;

// The choice, as its form has it.
function chosen() {
  const query = new URLSearchParams();
  for (const [name, value] of new FormData($("choose"))) if (value.trim()) query.append(name, value.trim());
  return query;
}

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
  if (!follows || paused || document.hidden) return;
  const query = new URLSearchParams(location.search);
  const wanted = new URLSearchParams({ after: last });
  let isAll = true;
  for (const name of ["type", "broadcaster", "sink", "subscription"]) {
    for (const value of query.getAll(name)) if (value) (isAll = false), wanted.append(name, value);
  }
  const ours = (source = new EventSource("/events?" + wanted));
  ours.onopen = () => say(isAll ? "Following all events" : "Following the events that match");
  ours.onmessage = (event) => add(JSON.parse(event.data));
  ours.addEventListener("skipped", (event) => add({ skipped: JSON.parse(event.data).count }));
  ours.addEventListener("unmatched", () => say("No subscription of the file has such a type: no event can match"));
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
  while (list.children.length > LISTED) list.lastElementChild.remove();
}

function passed(count) {
  return element("li", "skipped", `${count.toLocaleString("en")} events passed over: more came than can be shown`);
}

function item(event) {
  const details = element("details");
  const summary = element("summary");
  const time = element("time");
  time.dateTime = event.stored_at;
  localTime(time);
  const body = event.payload.event ?? event.payload.events;
  const text = JSON.stringify(body) ?? "";
  const who = body?.broadcaster_user_login ?? body?.to_broadcaster_user_login;
  summary.append(
    time,
    element("span", "kind", event.metadata.subscription_type),
    element("span", "who", typeof who === "string" ? who.slice(0, 40) : ""),
    element("span", "text", text.length > WIDTH ? text.slice(0, WIDTH) + "…" : text),
  );
  details.append(summary);
  const fill = () => {
    const link = element("a", "", "Event " + event.seq);
    link.href = `/?event=${event.seq}#event`;
    const line = element("p");
    line.append(link);
    details.append(element("pre", "", JSON.stringify(event.payload, null, 2)), line);
  };
  details.addEventListener("toggle", fill, { once: true });
  const made = element("li");
  made.append(details);
  return made;
}

// Another choice: the daemon searches the store, so the page is loaded anew, with the choice of subscriptions kept.
$("choose").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = chosen();
  for (const name of ["q", "state", "chart"]) {
    const value = new URLSearchParams(location.search).get(name);
    if (value) query.append(name, value);
  }
  location.assign("/?" + query + "#events");
});
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

$("pause").hidden = !follows;
localTimes(document);
timer = setTimeout(refresh, REFRESH);
follow();
