// Series of values for charts: numbers out of readings, gaps, thinning that keeps every extreme, figures.

const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const GAP_STEPS = 5;
const exactTime = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short",
});
const withoutZone = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
});
const toMinutes = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
const plain = new Intl.NumberFormat("en-GB", { maximumSignificantDigits: 12 });

/** RFC 3339 as seconds, to the microsecond. */
export function seconds(text) {
  const fraction = /\.(\d+)/.exec(text);
  const whole = Date.parse(fraction ? text.replace(fraction[0], "") : text) / 1000;
  return fraction ? whole + Number(`0.${fraction[1]}`) : whole;
}

/** Seconds as a time in the browser's zone, as exact as it is; the zone's name unless told otherwise. */
export function moment(x, zone = true) {
  const text = (zone ? exactTime : withoutZone).format(new Date(Math.floor(x) * 1000));
  const fraction = (Math.round((x - Math.floor(x)) * 1e6) / 1e6).toString().slice(1);
  return fraction ? text.replace(/(\d\d:\d\d:\d\d)/, `$1${fraction}`) : text;
}

/** The same to the minute. */
export const minute = (x) => toMinutes.format(new Date(x * 1000));

/** A number as people read it: 12,345.6 */
export function number(value) {
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-6 || size >= 1e15) ? String(value) : plain.format(value);
}

/** A value of a reading as a number; a text that reads as one counts. undefined: it is none. */
function numeric(value) {
  if (typeof value === "number") return value;
  if (typeof value === "string" && NUMBER.test(value.trim())) return Number(value);
  return undefined;
}

/** The numbers of a variable in order of time (null where it said null), and its texts, newest first. */
export function seriesOf(rows, tag) {
  const xs = [], ys = [], texts = [];
  for (const row of rows) {
    const value = row.values[tag];
    if (value === undefined) continue;
    const found = value === null ? null : numeric(value);
    if (found === undefined) texts.push({ x: row.x, text: value });
    else { xs.push(row.x); ys.push(found); }
  }
  texts.reverse();
  return { xs, ys, texts, gap: gapOf(xs) };
}

/** Longer than this between two values is a gap: five times the step that nine of ten keep to. */
function gapOf(xs) {
  const steps = [];
  const every = Math.max(1, Math.floor(xs.length / 2000));
  for (let i = every; i < xs.length; i += every) steps.push(xs[i] - xs[i - 1]);
  if (steps.length < 3) return Infinity;
  steps.sort((a, b) => a - b);
  return steps[Math.floor(steps.length * 0.9)] * GAP_STEPS || Infinity;
}

/** The first index whose x is not before `x`. */
export function indexOf(xs, x) {
  let low = 0, high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1; else high = middle;
  }
  return low;
}

/** What to draw between two times: every value, or with more than `most` the first, least, greatest and last of each pixel. */
export function drawn(series, min, max, pixels, most = 5000) {
  const from = Math.max(0, indexOf(series.xs, min) - 1);
  const to = Math.min(series.xs.length, indexOf(series.xs, max) + 2);
  const kept = to - from <= most ? undefined : extremes(series, from, to, min, (max - min) / Math.max(1, pixels));
  const count = kept ? kept.length : to - from;
  const xs = [], ys = [];
  for (let n = 0; n < count; n++) {
    const i = kept ? kept[n] : from + n;
    // Between two neighbours that are far apart the line ends.
    if (i > from && series.xs[i] - series.xs[i - 1] > series.gap) {
      xs.push((series.xs[i] + series.xs[i - 1]) / 2);
      ys.push(null);
    }
    xs.push(series.xs[i]);
    ys.push(series.ys[i]);
  }
  return { data: [xs, ys], isThinned: kept !== undefined };
}

function extremes({ xs, ys, gap }, from, to, min, width) {
  const kept = [];
  let i = from;
  while (i < to) {
    const column = Math.floor((xs[i] - min) / width);
    let least = -1, greatest = -1, last = i;
    const marks = new Set([i]);
    for (; i < to && Math.floor((xs[i] - min) / width) === column; i++) {
      last = i;
      if (ys[i] === null) { marks.add(i); continue; }
      if (least < 0 || ys[i] < ys[least]) least = i;
      if (greatest < 0 || ys[i] > ys[greatest]) greatest = i;
      if (i > from && xs[i] - xs[i - 1] > gap) { marks.add(i - 1); marks.add(i); }
    }
    for (const one of [least, greatest, last]) if (one >= 0) marks.add(one);
    kept.push(...[...marks].sort((a, b) => a - b));
  }
  return kept;
}

/** Count, least, greatest and last number between two times; undefined when there is none. */
export function figures({ xs, ys }, min, max) {
  let count = 0, least = Infinity, greatest = -Infinity, last;
  for (let i = indexOf(xs, min); i < xs.length && xs[i] <= max; i++) {
    if (ys[i] === null) continue;
    count += 1;
    if (ys[i] < least) least = ys[i];
    if (ys[i] > greatest) greatest = ys[i];
    last = i;
  }
  return count ? { count, least, greatest, last: ys[last], at: xs[last] } : undefined;
}
