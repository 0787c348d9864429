// The log as it is said: a switch that follows it, rests while nobody looks, and says when the line is cut.

import { ago, reachable } from "./app.js";
import { Failed, api } from "./api.js";

const MOST_ROWS = 500;
const MISSED = 500;
const LATE = 1000; // milliseconds: lines of services come a fifth of a second after they were said
const BADGES = { warning: "warn", error: "bad", critical: "bad" };
const NOT_BRIEF = ["time", "request_id", "trace_id", "frame", "frame_id"];
const WAITING = ["Connecting…", "The connection is lost. Trying again…"];

const live = document.getElementById("live");
const state = document.getElementById("live-state");
const button = document.getElementById("live-switch");
const panel = document.getElementById("lines");
const body = panel.querySelector("tbody");
const mould = document.getElementById("line");
const asked = live.dataset;

let source = null;
let wanted = false;
let newest = null;
let broken = 0;
const seen = new Set();

function query(more = {}) {
  const fields = { service: asked.service, level: asked.level, q: asked.q, ...more };
  return new URLSearchParams(Object.entries(fields).filter(([, text]) => text));
}

const keyOf = (line) => [line.at, line.service, line.event, line.request_id, text(line.fields.frame ?? "")].join("|");
const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function rowOf(line) {
  const row = mould.content.cloneNode(true).querySelector("tr");
  const part = (name) => row.querySelector(`[data-part="${name}"]`);
  const moment = new Date(line.at);
  const time = Object.assign(document.createElement("time"), { dateTime: line.at, textContent: ago(moment) });
  time.title = moment.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
  row.cells[0].append(time);
  part("level").textContent = line.level;
  part("level").className = `badge ${BADGES[line.level] ?? ""}`;
  part("service").textContent = line.service;
  part("event").textContent = line.event;
  const facts = Object.entries({ time: line.at, request_id: line.request_id, trace_id: line.trace_id, ...line.fields })
    .filter(([, value]) => value !== "" && value !== null);
  const brief = facts.filter(([name, value]) => !NOT_BRIEF.includes(name) && text(value).length < 120 && !text(value).includes("\n"));
  part("brief").textContent = brief.map(([name, value]) => `${name}=${text(value)}`).join("  ");
  for (const [name, value] of facts) {
    const fact = document.createElement("div");
    fact.append(Object.assign(document.createElement("dt"), { textContent: name }));
    fact.append(Object.assign(document.createElement("dd"), { textContent: text(value) }));
    part("fields").append(fact);
  }
  const request = part("request");
  if (line.request_id) {
    request.href = `/logs?${new URLSearchParams({ request_id: line.request_id })}`;
    request.title = line.request_id;
    part("id").textContent = line.request_id.slice(0, 8);
  } else {
    request.remove();
  }
  row.className = "fresh";
  row.dataset.key = keyOf(line);
  return row;
}

function add(line) {
  const key = keyOf(line);
  if (seen.has(key) || (asked.request && line.request_id !== asked.request)) return;
  seen.add(key);
  if (newest === null || line.at > newest) newest = line.at;
  panel.hidden = false;
  document.getElementById("none")?.remove();
  body.prepend(rowOf(line));
  while (body.rows.length > MOST_ROWS) body.lastElementChild.remove();
  if (seen.size > 4 * MOST_ROWS) seen.delete(seen.values().next().value);
}

function tellGap(words) {
  const row = document.createElement("tr");
  row.className = "gap";
  const cell = Object.assign(document.createElement("td"), { colSpan: 5, textContent: words });
  row.append(cell);
  body.prepend(row);
}

/** What was said while nobody followed comes from the log itself. */
async function catchUp() {
  if (newest === null) return;
  try {
    const since = new Date(Date.parse(newest) - LATE).toISOString();
    const page = await api(`/v1/logs?${query({ since, request_id: asked.request, order: "asc", limit: MISSED })}`);
    page.items.forEach(add);
    if (page.next) tellGap("More was said meanwhile than fits here: load this page again to see it all.");
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
  }
}

function say(words) {
  state.textContent = words;
}

function open() {
  if (source || !wanted || document.hidden) return;
  say(WAITING[broken ? 1 : 0]);
  const mine = source = new EventSource(`/v1/logs/live?${query()}`);
  mine.onopen = () => {
    broken = 0;
    reachable(true);
    say("Following the log.");
    catchUp();
  };
  mine.onmessage = (event) => add(JSON.parse(event.data));
  mine.addEventListener("skipped", (event) => tellGap(`${JSON.parse(event.data).lines} more lines at once: narrow the filter to see them live.`));
  mine.addEventListener("lost", () => say("The server has lost its broker. Lines come as soon as it is back."));
  mine.addEventListener("end", () => { close(); retry(); });
  mine.onerror = () => {
    if (mine !== source) return;
    close();
    retry();
  };
}

function close() {
  source?.close();
  source = null;
}

/** Ask why before asking again: without a session every further try would be refused as well. */
async function retry() {
  if (!wanted) return;
  broken += 1;
  say(WAITING[1]);
  try {
    await api("/v1/logs?limit=1");
    reachable(true);
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    if (error.status === 401 || error.status === 403) {
      turn(false);
      say("Your session is over. Sign in again to follow.");
      return;
    }
    reachable(error.status !== 0);
  }
  setTimeout(open, Math.min(1000 * 2 ** Math.min(broken, 4), 15_000));
}

function turn(on) {
  wanted = on;
  button.setAttribute("aria-pressed", String(on));
  if (on) {
    open();
  } else {
    close();
    broken = 0;
    say("");
  }
}

button.addEventListener("click", () => turn(!wanted));
document.addEventListener("visibilitychange", () => {
  if (!wanted) return;
  if (document.hidden) {
    close();
    say("Resting while nobody looks.");
  } else {
    open();
  }
});

for (const row of body.rows) {
  seen.add(row.dataset.key);
  const at = row.querySelector("time")?.dateTime;
  if (at && (newest === null || at > newest)) newest = at;
}
if (new URLSearchParams(location.search).has("after")) live.remove();
else live.hidden = false;
