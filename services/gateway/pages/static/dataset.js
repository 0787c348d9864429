// The page of a dataset: its readings as charts, loaded piece by piece, and kept up to date while somebody looks.

import { announce, reachable } from "./app.js";
import { Failed, api, pause } from "./api.js";
import { Chart } from "./chart.js";
import { minute, moment, seconds, seriesOf } from "./series.js";

const AT_ONCE = 1000;
const MOST = 20_000;
const POLL = 2_000;
const SLOWEST_POLL = 15_000;
const AFRESH = 15_000;
const TABLE_ROWS = 25;
const LENGTHS = { "1h": 3600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000 };

const place = document.getElementById("charts");
const about = place.dataset;
const address = `/v1/datasets/${about.id}`;
const length = LENGTHS[about.range];
const isOpen = !about.end || seconds(about.end) > Date.now() / 1000;
// The server's clock counts: it made the range.
const skew = length && about.start ? seconds(about.start) + length - Date.now() / 1000 : 0;
const now = () => Date.now() / 1000 + skew;
const byId = (id) => document.getElementById(id);

let rows = [];
let entries = new Set();
let older = null;
let limit = MOST;
let zoomed = null;
let isStale = false;
let freshAt = -Infinity;
let known = { entries: Number(about.entries), last: about.last };

const charts = JSON.parse(about.variables).map(({ tag, name, unit }, index) => {
  const section = [...place.children].find((one) => one.dataset.tag === tag);
  return { tag, chart: new Chart(section, { name, unit, index, view, zoom }) };
});

/** The times shown now. */
function view() {
  return zoomed ?? whole();
}

function whole() {
  const first = rows[0]?.x ?? now() - 3600, last = rows.at(-1)?.x ?? now();
  const span = Math.max(last - first, 1);
  const pad = last > first ? span * 0.01 : 1800;
  let min = length ? now() - length : about.start ? seconds(about.start) : first - pad;
  const max = length ? Math.max(now(), last) : about.end ? seconds(about.end) : last + pad;
  if (older) min = Math.max(min, first);  // before that nothing was loaded: an empty part would look like no data
  return { min, max };
}

function zoom(min, max) {
  const all = whole();
  if (min === undefined || max - min >= all.max - all.min) zoomed = null;
  else if (max - min >= 0.001) {
    const moved = min < all.min ? all.min - min : max > all.max ? all.max - max : 0;
    zoomed = { min: min + moved, max: max + moved };
  }
  draw();
  announce(`Showing ${words()}.`);
}

function words() {
  const { min, max } = zoomed || length || about.start ? view() : { min: rows[0]?.x ?? now(), max: rows.at(-1)?.x ?? now() };
  return `${minute(min)} – ${minute(max)}`;
}

function draw() {
  for (const { tag, chart } of charts) chart.show(seriesOf(rows, tag));
  tellState();
}

function tellState(loading = "") {
  const count = `${rows.length.toLocaleString("en-GB")} ${rows.length === 1 ? "reading" : "readings"}`;
  const kept = about.range === "all" && known.entries > rows.length ? ` of ${known.entries.toLocaleString("en-GB")} readings` : " readings of this range";
  const text = loading || `${words()} · ${older ? `the newest ${rows.length.toLocaleString("en-GB")}${kept}` : count}`;
  byId("state-text").textContent = text;
  byId("state").hidden = false;
  byId("more").hidden = !older || Boolean(loading);
}

/** Take readings in; answers how many were new. */
function take(items) {
  let added = 0;
  for (const item of items) {
    if (entries.has(item.entry)) continue;
    entries.add(item.entry);
    rows.push({ ...item, x: seconds(item.at) });
    added += 1;
  }
  if (added) rows.sort((a, b) => a.x - b.x || a.entry - b.entry);
  if (length) {
    const gone = rows.findIndex(({ x }) => x >= now() - length);
    if (gone > 0) for (const { entry } of rows.splice(0, gone)) entries.delete(entry);
  }
  return added;
}

function asked(more) {
  const start = length ? new Date((now() - length) * 1000).toISOString() : about.start;
  return new URLSearchParams(Object.entries({ start, end: about.end, limit: AT_ONCE, ...more }).filter(([, value]) => value));
}

/** The newest first, a page at a time, drawn as they come. */
async function load() {
  byId("again").hidden = true;
  try {
    do {
      const page = await api(`${address}/readings?${asked({ order: "desc", after: older })}`);
      take(page.items);
      older = page.next;
      if (rows.length <= AT_ONCE || rows.length % 5000 < AT_ONCE) draw();
      if (older) tellState(`Loading … ${rows.length.toLocaleString("en-GB")} readings`);
    } while (older && rows.length < limit);
    draw();
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    reachable(error.status !== 0);
    tellState(`The readings could not be loaded: ${error.message}`);
    byId("again").hidden = false;
    for (const { chart } of charts) if (!rows.length) chart.summary.textContent = "Not loaded.";
  }
}

/** Everything again, shown when it is complete; not more often than every 15 s, however much changes. */
async function loadAfresh() {
  if (Date.now() - freshAt < AFRESH) return;
  freshAt = Date.now();
  const found = [];
  let after = null;
  do {
    const page = await api(`${address}/readings?${asked({ order: "desc", after })}`);
    found.push(...page.items);
    after = page.next;
  } while (after && found.length < limit);
  isStale = false;
  rows = [];
  entries = new Set();
  older = after;
  take(found);
  draw();
}

// -- live

function tellLive(kind, text) {
  byId("live").dataset.kind = kind;
  byId("live").textContent = text;
}

/** What came since the last look; everything again when something else changed than the end. */
async function catchUp(found) {
  const delta = found.entries - known.entries;
  known = { entries: found.entries, last: found.last_entry_at ?? "" };
  byId("entries").textContent = found.entries.toLocaleString("en-GB");
  tellLast(found.last_entry_at);
  if (!document.querySelector("table.readings") && rows.length === 0) return location.reload();
  const since = rows.at(-1)?.at;
  let added = 0, after = null;
  do {
    const page = await api(`${address}/readings?${asked({ order: "asc", after, ...(since && { start: since }) })}`);
    added += take(page.items);
    after = page.next;
  } while (after && added < MOST);
  isStale ||= added !== delta;
  if (added) draw();
  tellTable();
  return undefined;
}

function tellLast(at) {
  if (!at) { byId("last").textContent = "none yet"; return; }
  let time = byId("last").querySelector("time");
  if (!time) {
    time = document.createElement("time");
    byId("last").replaceChildren(time);
  }
  time.dateTime = at;
  time.title = moment(seconds(at));
  if (Math.abs(now() - seconds(at)) < 5) time.textContent = "just now";
}

function tellTable() {
  const table = document.querySelector("table.readings[data-live]");
  if (!table) return;
  const columns = [...table.querySelectorAll("thead th[data-tag], thead th[data-part]")];
  const lines = rows.slice(-TABLE_ROWS).reverse().map((row) => {
    const line = document.createElement("tr");
    const time = Object.assign(document.createElement("time"), { dateTime: row.at, textContent: moment(row.x, false), title: row.at });
    time.dataset.exact = "";
    const cells = [cell(String(row.entry), "number muted"), cell(time)];
    for (const { dataset } of columns) {
      const value = row.values[dataset.tag];
      cells.push(dataset.part ? cell(row[dataset.part] ?? "") : cell(shown(value), typeof value === "string" ? "text" : "number"));
    }
    line.append(...cells);
    return line;
  });
  table.tBodies[0].replaceChildren(...lines);
}

const shown = (value) => value === undefined ? "" : value === null ? "null" : String(value);

function cell(content, kind = "") {
  const made = Object.assign(document.createElement("td"), { className: kind });
  made.append(content);
  return made;
}

async function lookAgain() {
  const found = await api(address);
  if (String(found.version) !== about.version) return location.reload();
  if (found.entries !== known.entries || (found.last_entry_at ?? "") !== known.last) await catchUp(found);
  else if (length && !zoomed) draw();
  if (isStale) {
    await loadAfresh();
    tellTable();
  }
  return undefined;
}

const ENDS = {
  401: "You are signed out: load the page again to sign in.",
  403: "You may not see this dataset any more.",
  404: "This dataset is not there any more.",
};

async function stayLive() {
  let wait = POLL;
  for (;;) {
    await pause(wait);
    while (document.hidden) {
      tellLive("paused", "Paused");
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    }
    try {
      await lookAgain();
      reachable(true);
      tellLive("live", "Live");
      wait = POLL;
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      if (!error.isPassing) return tellLive("ended", ENDS[error.status] ?? error.message);
      reachable(error.status !== 0);
      tellLive("away", "Trying again …");
      wait = Math.min(SLOWEST_POLL, Math.max(wait * 1.5, error.retryAfter * 1000));
    }
  }
}

// -- the page

/** Times of the form in the zone of whoever looks; the server reads them in UTC. */
function localForm() {
  const form = byId("between");
  for (const label of form.querySelectorAll(".zone")) label.textContent = "";
  for (const name of ["start", "end"]) {
    const field = form.elements[name];
    if (field.value) {
      const utc = new Date(`${field.value}Z`);
      field.value = new Date(utc - utc.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
    }
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = ["start", "end"].map((name) => [name, form.elements[name].value]).filter(([, value]) => value);
    const query = new URLSearchParams(given.map(([name, value]) => [name, new Date(value).toISOString()]));
    location.assign(`${location.pathname}?${given.length ? query : "range=all"}`);
  });
}

function tellExactTimes() {
  for (const time of document.querySelectorAll("time[data-exact]")) {
    time.title = time.dateTime;
    time.textContent = moment(seconds(time.dateTime), false);
  }
}

async function begin() {
  localForm();
  tellExactTimes();
  place.hidden = false;
  byId("zoom").hidden = false;
  byId("more").addEventListener("click", () => { limit = rows.length + MOST; load(); });
  byId("again").addEventListener("click", load);
  byId("zoom").addEventListener("click", ({ target }) => {
    const { min, max } = view(), middle = (min + max) / 2, half = (max - min) / 2;
    const factor = { in: 0.5, out: 2 }[target.dataset.zoom];
    if (target.dataset.zoom) factor ? zoom(middle - half * factor, middle + half * factor) : zoom();
  });
  if (known.entries) {
    tellState("Loading …");
    await load();
  }
  if (isOpen) { tellLive("live", "Live"); stayLive(); }
  else tellLive("ended", "Not live: this range has ended");
}

begin();
