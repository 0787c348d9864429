// Import: the browser reads the file in pieces, sends them in order, and goes on where an interrupted import stopped.

import { Failed, api, once, pause } from "./api.js";
import { Unreadable, batches, cell, cells, csvRecords, fingerprint, jsonRecords, lineRecords, markOf, textOf, unquoted } from "./records.js";

const SAMPLE_BYTES = 64 * 1024;
const SAMPLES = 5;
const SHOWN_LINES = 50;
const KEPT_LINES = 100_000;
const PARTS = { id: "its own id", status: "status", latitude: "latitude", longitude: "longitude", elevation: "elevation", entry: "entry (passed over)" };
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$/;
const TIME_NAME = /^(at|time|date|datetime|date.?time|timestamp|created_at|zeit|datum)$/i;
const KINDS = { csv: "text/csv; charset=utf-8", ndjson: "application/x-ndjson", json: "application/json" };
const FORMATS = [
  [/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/, "", true],
  [/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?$/, "", false],
  [/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/, "%Y-%m-%d %H:%M:%S", false],
  [/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+$/, "%Y-%m-%d %H:%M:%S.%f", false],
  [/^\d{4}-\d\d-\d\d \d\d:\d\d$/, "%Y-%m-%d %H:%M", false],
  [/^\d{4}-\d\d-\d\dT\d\d:\d\d$/, "%Y-%m-%dT%H:%M", false],
  [/^\d{4}\/\d\d\/\d\d \d\d:\d\d$/, "%Y/%m/%d %H:%M", false],
  [/^\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d$/, "%Y/%m/%d %H:%M:%S", false],
  [/^\d\d?\.\d\d?\.\d{4} \d\d?:\d\d$/, "%d.%m.%Y %H:%M", false],
  [/^\d\d?\.\d\d?\.\d{4} \d\d?:\d\d:\d\d$/, "%d.%m.%Y %H:%M:%S", false],
  [/^\d\d?\/\d\d?\/\d{4} \d\d?:\d\d$/, "%m/%d/%Y %H:%M", false],
  [/^\d\d?\/\d\d?\/\d{4} \d\d?:\d\d:\d\d$/, "%m/%d/%Y %H:%M:%S", false],
  [/^\d{4}-\d\d-\d\d$/, "%Y-%m-%d", false],
];

const byId = (id) => document.getElementById(id);
const place = byId("import");
const address = `/v1/datasets/${place.dataset.id}`;
const form = byId("options");
let variables = JSON.parse(place.dataset.variables);
let version = place.dataset.version;
let source = null;  // the file, its kind and its columns
let stopping = null;
let outcome = null;

const made = (name, properties = {}, ...parts) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...parts);
  return element;
};
const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en-GB")} ${number === 1 ? one : many}`;

function size(bytes) {
  for (const [unit, length] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (bytes >= length) return `${(bytes / length).toFixed(1)} ${unit}`;
  return count(bytes, "byte");
}

function say(id, text) {
  byId(id).textContent = text;
  byId(id).hidden = !text;
}

// -- the file and its columns

function kindOf(text) {
  const begin = text.replace(/^\uFEFF/, "").trimStart();
  if (begin.startsWith("[")) return "json";
  if (!begin.startsWith("{")) return "csv";
  try {
    JSON.parse(begin.slice(0, begin.indexOf("\n") >>> 0));
    return "ndjson";
  } catch {
    return "json";
  }
}

function recordsOf(text, kind, mark) {
  if (kind === "csv") return csvRecords(text, mark);
  return kind === "ndjson" ? lineRecords(text) : jsonRecords(text);
}

/** The first records; what is cut off at the end of the sample is none. */
async function sample(text, kind, mark, isWhole) {
  const found = [];
  try {
    for await (const record of recordsOf((async function* () { yield text; })(), kind, mark)) {
      found.push(record.text);
      if (found.length > 200) break;
    }
  } catch (error) {
    if (!(error instanceof Unreadable) || isWhole) throw error;
    return found;
  }
  if (!isWhole && found.length > 1 && found.length <= 200) found.pop();
  return found;
}

async function choose(file) {
  say("file-wrong", "");
  form.hidden = true;
  byId("running").hidden = true;
  if (!file) return;
  try {
    const isWhole = file.size <= SAMPLE_BYTES;
    // A sample may end in the middle of a character.
    const text = new TextDecoder("utf-8", { fatal: isWhole }).decode(await file.slice(0, SAMPLE_BYTES).arrayBuffer());
    if (!text.trim()) throw new Unreadable("The file is empty: choose one with readings in it.");
    const kind = kindOf(text);
    const mark = kind === "csv" ? markOf(text.replace(/^\uFEFF/, "").split("\n", 1)[0].trimEnd()) : ",";
    const first = await sample(text, kind, mark, isWhole);
    source = { file, kind, mark, ends: `${text.slice(0, 20_000)}\0${await file.slice(-20_000).text()}` };
    if (kind === "csv") columnsOfCsv(first); else columnsOfJson(first);
    show();
  } catch (error) {
    if (error instanceof TypeError) say("file-wrong", "The file is not UTF-8: save it as UTF-8 first (in a spreadsheet: “CSV UTF-8”).");
    else if (error instanceof Unreadable || error.name === "NotReadableError") say("file-wrong", error.message);
    else throw error;
  }
}

function columnsOfCsv([header = "", ...records]) {
  const names = cells(header, source.mark).map((name) => unquoted(name).trim());
  if (names.includes("") || new Set(names).size < names.length) throw new Unreadable("The first line must give every column a name of its own.");
  const rows = records.slice(0, SAMPLES).map((record) => cells(record, source.mark).map(unquoted));
  source.columns = names.map((name, index) => ({ name, samples: rows.map((row) => row[index] ?? "") }));
  let time = source.columns.find(({ name }) => TIME_NAME.test(name)) ?? source.columns.find(({ samples }) => samples[0] && guess(samples[0]));
  for (const column of source.columns) column.becomes = becomes(column.name, column === time);
}

function columnsOfJson(records) {
  const found = new Map();
  for (const text of records) {
    let values = {};
    try { values = JSON.parse(text).values ?? {}; } catch { /* the server says what is wrong with it */ }
    for (const [tag, value] of Object.entries(values)) {
      if (!found.has(tag)) found.set(tag, []);
      if (found.get(tag).length < SAMPLES) found.get(tag).push(String(value));
    }
  }
  source.columns = [...found].map(([name, samples]) => ({ name, samples, becomes: becomes(name, false) }));
}

function becomes(name, isTime) {
  if (isTime) return "time";
  if (name in PARTS && source.kind === "csv") return `part:${name}`;
  return variables.some(({ tag, retired }) => tag === name && !retired) ? `tag:${name}` : `new:${name}`;
}

const guess = (text) => FORMATS.find(([form]) => form.test(text.trim()));

function show() {
  byId("size").textContent = `${source.file.name}, ${size(source.file.size)}`;
  byId("mapping").replaceChildren(...source.columns.map((column, index) => made("tr", {},
    made("th", { scope: "row", id: `column-${index}` }, made("code", { textContent: column.name })),
    made("td", { className: "samples muted" }, column.samples.filter(Boolean).slice(0, 3).join(" · ")),
    made("td", {}, source.kind === "csv" ? selection(column, index) : column.name))));
  byId("columns").hidden = !source.columns.length;
  form.elements.time_format.closest(".field").hidden = source.kind !== "csv";
  guessTimes();
  tellUnknown();
  form.hidden = false;
}

function selection(column, index) {
  const option = (value, text) => made("option", { value, textContent: text, selected: column.becomes === value });
  const current = variables.filter(({ retired }) => !retired);
  const isKnown = current.some(({ tag }) => tag === column.name);
  const select = made("select", {},
    option("time", "the time"),
    ...current.map(({ tag, name }) => option(`tag:${tag}`, name && name !== tag ? `${tag} (${name})` : tag)),
    ...(isKnown || column.name in PARTS ? [] : [option(`new:${column.name}`, `a new variable “${column.name}”`)]),
    ...Object.entries(PARTS).map(([part, words]) => option(`part:${part}`, words)),
    option("skip", "nothing, leave it out"));
  select.setAttribute("aria-labelledby", `column-${index}`);
  select.addEventListener("change", () => { column.becomes = select.value; guessTimes(); tellUnknown(); });
  return select;
}

function guessTimes() {
  const time = source.columns.find(({ becomes: role }) => role === "time");
  const found = time?.samples[0] ? guess(time.samples[0]) : undefined;
  form.elements.time_format.value = found?.[1] ?? "";
  if (!form.elements.timezone.value && found && !found[2]) form.elements.timezone.value = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";
}

const unknown = () => source.columns.filter(({ becomes: role }) => role.startsWith("new:"));

function tellUnknown() {
  const names = unknown().map(({ name }) => name);
  byId("unknown").hidden = !names.length;
  const isCsv = source.kind === "csv";
  // A column can be called otherwise on its way; what a document calls its values stays.
  const never = isCsv ? [] : names.filter((name) => !TAG.test(name));
  const has = isCsv ? count(names.length, "column has", "columns have") : count(names.length, "name has", "names have");
  const refused = never.length ? ` “${never.join("”, “")}” cannot be a tag: readings with it are refused.` : "";
  byId("unknown-text").textContent = `${has} no variable yet: ${names.join(", ")}.${refused}`;
  byId("add-variables").hidden = names.length === never.length;
  const used = source.columns.map(({ becomes: role }) => role).filter((role) => role !== "skip");
  const twice = used.find((role, index) => used.indexOf(role) !== index);
  const noTime = isCsv && !used.includes("time");
  say("options-wrong", twice ? "Two columns become the same: choose another for one of them." : noTime ? "No column is the time: every reading would get the time of the import." : "");
  byId("begin").disabled = Boolean((isCsv && names.length) || twice);
}

/** A name as a tag: what a tag cannot have becomes an underscore. */
const tagOf = (name) => TAG.test(name) ? name : name.normalize("NFKD").replace(/[^A-Za-z0-9_.-]+/g, "_").replace(/^[.-]+/, "").slice(0, 64) || "value";

async function addVariables() {
  const fresh = unknown().filter(({ name }) => source.kind === "csv" || TAG.test(name)).map((column) => ({ column, tag: tagOf(column.name) }));
  try {
    const now = await api(address);
    const kept = now.variables.filter(({ retired }) => !retired).map(({ tag, name, unit }) => ({ tag, name, unit }));
    const tags = new Set(kept.map(({ tag }) => tag));
    const added = [...new Set(fresh.map(({ tag }) => tag))].filter((tag) => !tags.has(tag)).map((tag) => {
      const before = now.variables.find((one) => one.tag === tag);
      const named = fresh.find((one) => one.tag === tag).column.name;
      return { tag, name: before?.name ?? (named === tag ? "" : named.slice(0, 200)), unit: before?.unit ?? "" };
    });
    const headers = { "Content-Type": "application/json", "If-Match": `"${now.version}"`, "Idempotency-Key": once() };
    const changed = await api(address, { method: "PATCH", headers, body: JSON.stringify({ variables: [...kept, ...added] }) });
    ({ variables, version } = changed);
    for (const { column, tag } of fresh) column.becomes = `tag:${tag}`;
    show();
  } catch (error) {
    if (!(error instanceof Failed)) throw error;
    say("options-wrong", `The variables could not be added: ${error.errors[0]?.message ?? error.message}`);
  }
}

// -- sending

function plan() {
  const { kind, mark, columns, file, ends } = source;
  const options = { timezone: form.elements.timezone.value.trim(), ...(kind === "csv" && { time_format: form.elements.time_format.value.trim() }) };
  const params = Object.fromEntries(Object.entries(options).filter(([, value]) => value));
  const kept = columns.map((column, index) => ({ index, role: column.becomes })).filter(({ role }) => role !== "skip");
  const header = kept.map(({ role }) => role === "time" ? "at" : role.slice(role.indexOf(":") + 1)).join(",");
  const isWhole = kept.length === columns.length && mark === ",";
  const said = JSON.stringify([file.name, file.size, file.lastModified, header, params, ends]);
  const record = (text) => {
    if (isWhole) return text;
    const found = cells(text, mark);
    // A line with too many or too few values goes as it is: the server says so.
    return found.length === columns.length ? kept.map(({ index }) => cell(found[index], mark)).join(",") : text;
  };
  return { kind, params, header, record, name: `page-${fingerprint(said)}` };
}

/** The body of a request, and for each record the line of the body it begins at. */
function bodyOf(records, { kind, header, record }) {
  if (kind === "json") return { body: `[${records.map(({ text }) => text).join(",")}]`, starts: records.map((_, index) => index) };
  const texts = kind === "csv" ? [header, ...records.map(({ text }) => record(text))] : records.map(({ text }) => text);
  const starts = [];
  let line = 1;
  for (const text of texts) { starts.push(line); line += text.split("\n").length; }
  return { body: texts.join("\n"), starts: kind === "csv" ? starts.slice(1) : starts };
}

function lineOf(index, starts, records) {
  let found = 0;
  while (found + 1 < starts.length && starts[found + 1] <= index) found += 1;
  return records[found].first;
}

async function post(records, planned, signal) {
  const { body, starts } = bodyOf(records, planned);
  const query = new URLSearchParams({ ...planned.params, source: planned.name, position: records.at(-1).last });
  const headers = { "Content-Type": KINDS[planned.kind], "Idempotency-Key": once() };
  for (let wait = 1; ; wait = Math.min(wait * 2, 15)) {
    try {
      const written = await api(`${address}/readings?${query}`, { method: "POST", headers, body, signal });
      counted(written.entries.length, written.skipped ?? 0, written.rejected ?? [], starts, records);
      return;
    } catch (error) {
      if (!(error instanceof Failed)) throw error;
      if (error.code === "malformed" && records.length > 1) {
        const middle = records.length >> 1;
        await post(records.slice(0, middle), planned, signal);
        await post(records.slice(middle), planned, signal);
        return;
      }
      if (error.code === "malformed") { counted(0, 0, [{ index: starts[0], message: error.message }], starts, records); return; }
      if (error.code === "nothing_stored") { counted(0, 0, error.errors.map((one) => ({ ...one, index: Number(one.path) })), starts, records); return; }
      if (!error.isPassing) throw error;
      const seconds = Math.max(wait, error.retryAfter);
      say("progress-text", `${error.message} Trying again in ${count(seconds, "second")}; nothing is lost or stored twice.`);
      await pause(seconds * 1000, signal);
      signal.throwIfAborted();
    }
  }
}

function counted(stored, skipped, rejected, starts, records) {
  outcome.stored += stored;
  outcome.skipped += skipped;
  outcome.refused += rejected.length;
  for (const one of rejected) {
    if (outcome.lines.length < KEPT_LINES) outcome.lines.push({ line: lineOf(Number(one.index), starts, records), code: one.code ?? "malformed", message: one.message });
  }
  outcome.line = records.at(-1).last;
  tell();
}

function tell() {
  byId("stored").textContent = outcome.stored.toLocaleString("en-GB");
  byId("refused").textContent = outcome.refused.toLocaleString("en-GB");
  byId("skipped").textContent = outcome.skipped.toLocaleString("en-GB");
  byId("skipped-fact").hidden = !outcome.skipped;
  byId("progress").value = source.file.size ? Math.min(1, outcome.read / source.file.size) : 1;
  byId("refusals").hidden = !outcome.lines.length;
  const lines = byId("lines");
  for (const { line, message } of outcome.lines.slice(lines.children.length, SHOWN_LINES)) {
    lines.append(made("tr", {}, made("td", { className: "line", textContent: line }), made("td", { textContent: message })));
  }
  say("lines-more", outcome.refused > SHOWN_LINES ? `These are the first ${SHOWN_LINES} of ${outcome.refused.toLocaleString("en-GB")}: the list to download has ${outcome.refused > KEPT_LINES ? `the first ${KEPT_LINES.toLocaleString("en-GB")}` : "all of them"}.` : "");
}

function reportOf(lines) {
  const quoted = (text) => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const rows = lines.map(({ line, code, message }) => `${line},${code},${quoted(message)}`);
  return URL.createObjectURL(new Blob([["line,code,message", ...rows].join("\n")], { type: "text/csv" }));
}

async function run(label = "") {
  const planned = plan();
  if (label) planned.name = `page-${fingerprint(planned.name + label)}`;
  stopping = new AbortController();
  const { signal } = stopping;
  outcome ??= { stored: 0, refused: 0, skipped: 0, lines: [], line: 0, read: 0 };
  begun();
  try {
    const { position } = await api(`${address}/imports/${planned.name}`, { signal });
    outcome.line = position;
    say("progress-text", position ? `Going on after line ${position.toLocaleString("en-GB")} …` : "Reading …");
    const text = textOf(source.file, (read) => { outcome.read = read; });
    const records = recordsOf(text, source.kind, source.mark);
    if (planned.kind === "csv") await records.next();  // the header
    for await (const batch of batches(records, position)) {
      await post(batch, planned, signal);
      say("progress-text", `${planned.kind === "json" ? "Reading" : "Line"} ${outcome.line.toLocaleString("en-GB")} …`);
    }
    outcome.read = source.file.size;
    ended(position);
  } catch (error) {
    if (error.name === "AbortError") interrupted(`Stopped after line ${outcome.line.toLocaleString("en-GB")}. What was stored stays; going on starts behind it.`);
    else if (error instanceof Unreadable || error instanceof Failed || error.name === "NotReadableError") interrupted(error.status === 401 ? "You are signed out. Sign in in another tab, then go on here." : error.errors?.[0]?.message ?? error.message);
    else throw error;
  }
}

function begun() {
  form.hidden = true;
  byId("choose").hidden = true;
  byId("paste").hidden = true;
  byId("running").hidden = false;
  byId("running").dataset.state = "running";
  byId("progress-title").textContent = `Importing ${source.file.name}`;
  byId("cancel").hidden = false;
  for (const id of ["go-on", "see", "another"]) byId(id).hidden = true;
  byId("progress-title").focus();
  tell();
}

function ended(position) {
  tell();
  byId("running").dataset.state = "ended";
  byId("progress-title").textContent = `${source.file.name} is imported`;
  const isRepeated = position > 0 && !outcome.stored && !outcome.refused;
  const text = isRepeated
    ? "Everything in this file was imported before with the same choices: nothing was stored again."
    : `${count(outcome.stored, "reading")} stored${outcome.refused ? `, ${count(outcome.refused, "line")} refused. The list below says why: correct them, and import only those` : ""}.`;
  say("progress-text", text);
  byId("cancel").hidden = true;
  for (const id of ["see", "another"]) byId(id).hidden = false;
  tellReport();
}

function interrupted(text) {
  tell();
  byId("running").dataset.state = "stopped";
  byId("progress-title").textContent = `${source.file.name} is not complete`;
  say("progress-text", text);
  byId("cancel").hidden = true;
  for (const id of ["go-on", "see", "another"]) byId(id).hidden = false;
  tellReport();
}

function tellReport() {
  if (outcome.lines.length) byId("report").href = reportOf(outcome.lines);
}

function another() {
  outcome = null;
  byId("lines").replaceChildren();
  byId("file").value = "";
  byId("running").hidden = true;
  byId("choose").hidden = false;
  byId("paste").hidden = false;
  byId("file").focus();
}

// -- the page

byId("zones").append(...(Intl.supportedValuesOf?.("timeZone") ?? []).map((value) => made("option", { value })));
byId("file").addEventListener("change", ({ target }) => choose(target.files[0]));
// The same file, mended meanwhile, counts as chosen again.
byId("file").addEventListener("click", ({ target }) => { target.value = ""; });
byId("choose").addEventListener("dragover", (event) => { event.preventDefault(); byId("choose").classList.add("over"); });
byId("choose").addEventListener("dragleave", () => byId("choose").classList.remove("over"));
byId("choose").addEventListener("drop", (event) => {
  event.preventDefault();
  byId("choose").classList.remove("over");
  byId("file").files = event.dataTransfer.files;
  choose(event.dataTransfer.files[0]);
});
byId("add-variables").addEventListener("click", addVariables);
form.addEventListener("submit", (event) => { event.preventDefault(); run(); });
byId("cancel").addEventListener("click", () => stopping?.abort());
byId("go-on").addEventListener("click", () => run());
byId("another").addEventListener("click", another);
addEventListener("beforeunload", (event) => { if (byId("running").dataset.state === "running" && !byId("running").hidden) event.preventDefault(); });
place.hidden = false;
if (byId("file").files[0]) choose(byId("file").files[0]);
