// One chart of one variable: uPlot in the page's colours, with a cursor and a range it shares with its neighbours.

import { announce } from "./app.js";
import { drawn, figures, minute, moment, number } from "./series.js";

const HEIGHT = 216;
const STEP = 0.2;
const TIMES = [
  [31536000, "{YYYY}", null, null, null, null, null, null, 1],
  [2419200, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [86400, "{D} {MMM}", "\n{YYYY}", null, null, null, null, null, 1],
  [60, "{HH}:{mm}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{D} {MMM} {YYYY}", null, "\n{D} {MMM}", null, null, null, 1],
  [0.001, ":{ss}.{fff}", "\n{D} {MMM} {HH}:{mm}", null, "\n{D} {MMM} {HH}:{mm}", null, "\n{HH}:{mm}", null, 1],
];

/** A token of the stylesheet as the colour it is now. */
function colour(token) {
  const probe = document.createElement("span");
  probe.style.color = `var(${token})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

export class Chart {
  /** `section` has a place for each part; `view()` is the range all show, `zoom(min, max)` asks for another, without arguments for the whole. */
  constructor(section, { name, unit, index, view, zoom }) {
    this.section = section;
    this.name = name;
    this.unit = unit;
    this.view = view;
    this.zoom = zoom;
    this.token = `--series-${index % 6 + 1}`;
    this.place = section.querySelector(".plot");
    this.summary = section.querySelector(".summary");
    this.readout = section.querySelector(".readout");
    this.series = { xs: [], ys: [], texts: [], gap: Infinity };
    this.place.addEventListener("keydown", (event) => this.onKey(event));
    this.place.addEventListener("blur", () => this.leave());
    new ResizeObserver(() => this.resize()).observe(this.place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.paint(); this.plot?.redraw(false); });
  }

  /** Show these values in the range of the view. */
  show(series) {
    this.series = series;
    this.draw();
  }

  draw() {
    const { min, max } = this.view();
    const hasNumbers = this.series.xs.length > 0;
    this.place.hidden = !hasNumbers;
    if (hasNumbers && this.place.clientWidth) {
      this.plot ??= this.make();
      const { data, isThinned } = drawn(this.series, min, max, this.place.clientWidth);
      this.plot.setData(data);
      this.section.dataset.points = data[0].length;
      this.section.dataset.thinned = isThinned;
      this.section.dataset.drawn = Number(this.section.dataset.drawn ?? 0) + 1;
    }
    this.told = figures(this.series, min, max);
    this.tellSummary(min, max);
    this.tellTexts(min, max);
    this.section.hidden = false;
    this.leave();
  }

  /** The same in words, for whoever cannot see the chart. */
  tellSummary(min, max) {
    const told = this.told;
    if (!told) {
      this.summary.textContent = this.textsBetween(min, max).length ? "" : "No values in this range.";
      return;
    }
    const unit = this.unit ? ` ${this.unit}` : "";
    const count = `${told.count.toLocaleString("en-GB")} ${told.count === 1 ? "value" : "values"}`;
    this.summary.replaceChildren(
      `${count} · min ${number(told.least)}${unit} · max ${number(told.greatest)}${unit} · last ${number(told.last)}${unit}, ${minute(told.at)} · `,
      Object.assign(document.createElement("a"), { href: "#readings", textContent: "as a table" }),
    );
  }

  textsBetween(min, max) {
    return this.series.texts.filter(({ x }) => x >= min && x <= max);
  }

  /** Texts are no line: the newest of them in a list. */
  tellTexts(min, max) {
    const texts = this.textsBetween(min, max);
    let list = this.section.querySelector(".texts");
    if (!texts.length) return list?.remove();
    if (!list) {
      list = Object.assign(document.createElement("ul"), { className: "texts" });
      this.summary.before(list);
    }
    list.replaceChildren(...texts.slice(0, 8).map(({ x, text }) => {
      const item = document.createElement("li");
      const value = Object.assign(document.createElement("span"), { textContent: text });
      item.append(value, Object.assign(document.createElement("span"), { className: "muted small time", textContent: moment(x, false) }));
      return item;
    }));
    if (!this.told) this.summary.textContent = `${texts.length.toLocaleString("en-GB")} ${texts.length === 1 ? "text" : "texts"} in this range, the newest first.`;
    return undefined;
  }

  make() {
    this.paint();
    const axis = { stroke: () => this.muted, grid: { stroke: () => this.line, width: 1 }, ticks: { stroke: () => this.line, width: 1, size: 4 }, font: "12px system-ui, sans-serif" };
    const options = {
      width: this.place.clientWidth, height: HEIGHT, padding: [12, 8, 0, 0], legend: { show: false },
      scales: { x: { time: true, range: () => { const { min, max } = this.view(); return [min, max]; } } },
      axes: [
        { ...axis, values: TIMES, space: 64 },
        { ...axis, size: (plot, values) => Math.max(34, 14 + 7 * Math.max(0, ...(values ?? []).map((text) => text.length))), values: (plot, splits) => splits.map(number) },
      ],
      series: [{}, {
        stroke: () => this.stroke, width: 1.5, spanGaps: false,
        points: { size: 5, fill: () => this.stroke, filter: (plot, index, shown) => shown ? null : alone(plot.data[1]) },
      }],
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false, dist: 6 },
        points: { size: 9, width: 2, stroke: () => this.surface, fill: () => this.stroke },
        sync: { key: "dataset", setSeries: false, scales: ["x", null], filters: { pub: (type) => type === "mousemove" || type === "mouseleave" } },
        dataIdx: (plot, index, hovered) => index === 0 ? hovered : withValue(plot.data, hovered, plot.posToVal(plot.cursor.left, "x")),
        bind: { dblclick: () => () => { this.zoom(); return null; } },
      },
      hooks: {
        setCursor: [(plot) => this.tell(plot)],
        setSelect: [(plot) => {
          const { left, width } = plot.select;
          if (width < 6) return;
          plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
          this.zoom(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
        }],
      },
    };
    return new uPlot(options, [[], []], this.place);
  }

  paint() {
    this.stroke = colour(this.token);
    this.muted = colour("--muted");
    this.line = colour("--line");
    this.surface = colour("--surface");
  }

  resize() {
    const width = this.place.clientWidth;
    if (!width) return;
    if (!this.plot) this.draw();
    else if (width !== this.plot.width) { this.plot.setSize({ width, height: HEIGHT }); this.draw(); }
  }

  tell(plot) {
    const index = plot.cursor.left < 0 ? undefined : plot.cursor.idxs?.[1];
    if (index == null || plot.data[1][index] == null) return this.leave();
    this.say(plot.data[1][index], moment(plot.data[0][index]), true);
    return undefined;
  }

  /** Nothing is pointed at: the last value stands there. */
  leave() {
    if (this.told) this.say(this.told.last, moment(this.told.at), false);
    else this.say(undefined, "", false);
  }

  say(value, time, isPointed) {
    const [shown, unit, at] = this.readout.children;
    shown.textContent = value === undefined ? "" : number(value);
    unit.textContent = value === undefined ? "" : this.unit;
    at.textContent = time;
    this.readout.classList.toggle("pointed", isPointed);
  }

  onKey(event) {
    const act = this.keys()[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(event.shiftKey);
  }

  keys() {
    const { min, max } = this.view();
    const length = max - min;
    const step = (by) => (shifted) => shifted ? this.zoom(min + by * STEP * length, max + by * STEP * length) : this.point((this.pointed() ?? (by > 0 ? -1 : Infinity)) + by, by);
    const around = (factor) => () => {
      const index = this.pointed();
      const middle = index === undefined ? (min + max) / 2 : this.plot.data[0][index];
      this.zoom(middle - (middle - min) * factor, middle + (max - middle) * factor);
    };
    return {
      ArrowLeft: step(-1), ArrowRight: step(1), Home: () => this.point(0, 1), End: () => this.point(Infinity, -1),
      "+": around(0.5), "=": around(0.5), "-": around(2), 0: () => this.zoom(), Escape: () => this.zoom(),
    };
  }

  pointed() {
    return this.plot && this.plot.cursor.left >= 0 ? this.plot.cursor.idxs?.[1] ?? undefined : undefined;
  }

  /** Point at a value by its place in the line; one that is none, or outside of the range, is stepped over. */
  point(index, by) {
    if (!this.plot) return;
    const [xs, ys] = this.plot.data;
    const { min, max } = this.view();
    let i = Math.min(Math.max(index, 0), xs.length - 1);
    while (i >= 0 && i < xs.length && (ys[i] === null || (xs[i] < min && by > 0) || (xs[i] > max && by < 0))) i += by;
    if (i < 0 || i >= xs.length || xs[i] < min || xs[i] > max) return;
    this.plot.setCursor({ left: this.plot.valToPos(xs[i], "x"), top: this.plot.valToPos(ys[i], "y") });
    announce(`${number(ys[i])} ${this.unit}, ${moment(xs[i])}`);
  }
}

/** The values with nothing on either side: without a line they need a point. */
function alone(ys) {
  const found = [];
  for (let i = 0; i < ys.length; i++) if (ys[i] !== null && (ys[i - 1] ?? null) === null && (ys[i + 1] ?? null) === null) found.push(i);
  return found.length ? found : null;
}

/** The nearest index that has a value. */
function withValue([xs, ys], hovered, x) {
  if (hovered == null || ys[hovered] !== null) return hovered;
  let before = hovered, after = hovered;
  while (before >= 0 && ys[before] === null) before -= 1;
  while (after < ys.length && ys[after] === null) after += 1;
  if (before < 0) return after < ys.length ? after : null;
  return after >= ys.length || x - xs[before] <= xs[after] - x ? before : after;
}
