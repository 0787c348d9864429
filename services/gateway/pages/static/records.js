// Files cut into records, and records into requests: what the file says stays as it is written there.

const MOST_RECORDS = 1000;
const MOST_CHARACTERS = 330_000;  // of at most three bytes each: below the mebibyte the server takes
const WHOLE_NUMBER = /^-?\d+,\d+$/;

export class Unreadable extends Error {}

/** The text of a file, piece by piece; `told` hears how many bytes were read. */
export async function* textOf(file, told = () => {}) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let read = 0;
  const reader = file.stream().getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      const text = decoder.decode(value, { stream: !done });
      read += value?.length ?? 0;
      told(read);
      if (text) yield text;
      if (done) return;
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new Unreadable("The file is not UTF-8: save it as UTF-8 first (in a spreadsheet: “CSV UTF-8”).");
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** Lines without their end. */
async function* lines(text) {
  let held = "", number = 0;
  for await (const part of text) {
    const found = (held + part).split("\n");
    held = found.pop();
    for (const line of found) yield { number: ++number, line: line.endsWith("\r") ? line.slice(0, -1) : line };
  }
  if (held) yield { number: number + 1, line: held };
}

/** Whether a quoted value goes on behind this line; a quotation mark within a value opens nothing. */
function leftOpen(line, inside, mark) {
  if (!line.includes('"')) return inside;
  let i = 0, open = inside, start = !inside;
  while (i < line.length) {
    if (open) {
      if (line[i] !== '"') i += 1;
      else if (line[i + 1] === '"') i += 2;
      else { open = false; i += 1; }
    } else {
      if (start && line[i] === '"') open = true;
      start = line[i] === mark;
      i += 1;
    }
  }
  return open;
}

/** Records of a CSV: `first` and `last` line of each, and its text; empty lines are none. */
export async function* csvRecords(text, mark = ",") {
  let held = [], first = 0, size = 0, inside = false;
  for await (const { number, line } of lines(text)) {
    if (!held.length) first = number;
    held.push(number === 1 ? line.replace(/^\uFEFF/, "") : line);
    size += line.length;
    inside = leftOpen(held.at(-1), inside, mark);
    if (inside && size > MOST_CHARACTERS) break;
    if (inside) continue;
    const record = held.join("\n");
    held = [];
    size = 0;
    if (record) yield { first, last: number, text: record };
  }
  if (held.length) throw new Unreadable(`Line ${first}: a quotation mark is opened and not closed.`);
}

/** The values of a record as they are written, with their quotation marks. */
export function cells(record, mark = ",") {
  if (!record.includes('"')) return record.split(mark);
  const found = [];
  let start = 0, open = false;
  for (let i = 0; i <= record.length; i++) {
    if (i === record.length || (!open && record[i] === mark)) { found.push(record.slice(start, i)); start = i + 1; open = false; }
    else if (open && record[i] === '"') { if (record[i + 1] === '"') i += 1; else open = false; }
    else if (i === start && record[i] === '"') open = true;
  }
  return found;
}

/** A value without its quotation marks. */
export const unquoted = (cell) => cell.startsWith('"') && cell.endsWith('"') && cell.length > 1 ? cell.slice(1, -1).replaceAll('""', '"') : cell;

/** A value as a CSV with commas has it; with semicolons around it 21,5 is a number. */
export function cell(text, mark) {
  if (mark === "," || text.startsWith('"')) return text;
  if (mark === ";" && WHOLE_NUMBER.test(text)) return text.replace(",", ".");
  return /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** What separates the values of a header. */
export function markOf(header) {
  const counts = [",", ";", "\t"].map((mark) => ({ mark, count: cells(header, mark).length }));
  return counts.reduce((best, one) => one.count > best.count ? one : best).mark;
}

/** Lines of NDJSON. */
export async function* lineRecords(text) {
  for await (const { number, line } of lines(text)) {
    if (line.trim()) yield { first: number, last: number, text: line };
  }
}

/** The readings of a JSON document, a list or one object, by their number from 1. */
export async function* jsonRecords(text) {
  let depth = 0, inside = false, escaped = false, held = "", number = 0, base;
  for await (const part of text) {
    let start = 0;
    for (let i = 0; i < part.length; i++) {
      const sign = part[i];
      if (inside) {
        if (escaped) escaped = false;
        else if (sign === "\\") escaped = true;
        else if (sign === '"') inside = false;
      } else if (sign === '"') inside = true;
      else if (sign === "[" || sign === "{") {
        base ??= sign === "[" ? 1 : 0;
        if (depth === base) { held = ""; start = i; }
        depth += 1;
      } else if (sign === "]" || sign === "}") {
        depth -= 1;
        if (depth === base) {
          number += 1;
          yield { first: number, last: number, text: held + part.slice(start, i + 1) };
          held = "";
          start = i + 1;
        }
      }
    }
    if (depth > (base ?? 0)) held += part.slice(start);
    if (held.length > MOST_CHARACTERS) throw new Unreadable(`Reading ${number + 1} is too long.`);
  }
  if (depth) throw new Unreadable("The JSON ends in the middle: is the file complete?");
}

/** Records gathered for requests. */
export async function* batches(records, after) {
  let held = [], size = 0;
  for await (const record of records) {
    if (record.last <= after) continue;
    if (held.length && (held.length >= MOST_RECORDS || size + record.text.length > MOST_CHARACTERS)) {
      yield held;
      held = [];
      size = 0;
    }
    if (record.text.length > MOST_CHARACTERS) throw new Unreadable(`Line ${record.first} is too long.`);
    held.push(record);
    size += record.text.length + 1;
  }
  if (held.length) yield held;
}

/** 106 bits that tell one file and its options from others; it protects nothing. */
export function fingerprint(text) {
  const half = (seed) => {
    let a = 0xdeadbeef ^ seed, b = 0x41c6ce57 ^ seed;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      a = Math.imul(a ^ code, 2654435761);
      b = Math.imul(b ^ code, 1597334677);
    }
    a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
    b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
    return (4294967296 * (2097151 & b) + (a >>> 0)).toString(16).padStart(14, "0");
  };
  return half(0) + half(1);
}
