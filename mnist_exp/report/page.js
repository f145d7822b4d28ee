"use strict";
const byId = id => document.getElementById(id);
const NARROW = 320, TALL = 170, LEFT = 44, RIGHT = 8, TOP = 22, BOTTOM = 24;  // px of a chart, and its margins

// An element with attributes and children; text among these is only ever text, whatever a config says.
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "circle", "text"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// The theme: the system's, until the button is pressed.
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
function nameTheme() { byId("theme").textContent = isDark() ? "Light" : "Dark"; }
byId("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  nameTheme();
});
system.addEventListener("change", nameTheme);
nameTheme();

// Round values within a range: three to six of them.
function ticks(low, high) {
  const least = (high - low) / 5, power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map(n => n * power).find(n => n >= least);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

// One quantity of training and validation against the epoch; null is a value that is no number.
function chart(title, epochs, series, best) {
  const values = Object.values(series).flat().filter(value => value !== null);
  if (!values.length) return make("p", { class: "soft" }, `${title}: no figures`);
  let low = Math.min(...values), high = Math.max(...values);
  const room = (high - low) * 0.06 || Math.abs(high) * 0.05 || 1;
  low -= room, high += room;
  const first = epochs[0], last = epochs.at(-1);
  const x = epoch => first === last ? (LEFT + NARROW - RIGHT) / 2 : LEFT + 6 + (epoch - first) / (last - first) * (NARROW - LEFT - RIGHT - 12);
  const y = value => TOP + (high - value) / (high - low) * (TALL - TOP - BOTTOM);
  const svg = make("svg", { viewBox: `0 0 ${NARROW} ${TALL}`, role: "img", "aria-label": `${title} against the epoch` });
  svg.append(make("text", { x: 0, y: 11 }, title));
  for (const tick of ticks(low, high)) {
    svg.append(make("line", { class: "grid", x1: LEFT, x2: NARROW - RIGHT, y1: y(tick), y2: y(tick) }));
    svg.append(make("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  const whole = first === last ? [first] : ticks(first, last).filter(Number.isInteger);
  for (const epoch of whole) svg.append(make("text", { x: x(epoch), y: TALL - 8, "text-anchor": "middle" }, String(epoch)));
  for (const [name, line] of Object.entries(series)) {
    let path = "", pen = "M";
    line.forEach((value, i) => {
      if (value === null) { pen = "M"; return; }
      path += `${pen}${x(epochs[i]).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = "L";
      if (epochs.length <= 15) svg.append(make("circle", { class: name, cx: x(epochs[i]), cy: y(value), r: 1.5, "stroke-dasharray": "none" }));
    });
    svg.append(make("path", { class: name, d: path }));
  }
  const i = epochs.indexOf(best);
  if (i >= 0 && series.validation[i] !== null) {
    svg.append(make("circle", { class: "best", cx: x(best), cy: y(series.validation[i]), r: 6 }));
  }
  return svg;
}

function key(name) {
  const line = make("svg", { viewBox: "0 0 27 10", "aria-hidden": "true" }, make("path", { class: name, d: "M0 5H27" }));
  return make("span", {}, line, name);
}

// What the panel beside the table says of a run. The page has no room for the curves of every run of a large sweep.
function describe(record) {
  const run = data.runs[record.place], number = record.cells[0];
  const parts = [make("h3", {}, `Run ${number}`)];
  parts.push(make("p", {}, make("code", {}, run ? run.overrides : record.choices())));
  if (run?.results) parts.push(make("p", {}, run.results));
  if (run?.error) parts.push(make("p", {}, run.error));
  if (run?.epochs.length) {
    parts.push(chart("accuracy (%)", run.epochs, { training: run.train_accuracy, validation: run.val_accuracy }, run.best));
    parts.push(chart("loss", run.epochs, { training: run.train_loss, validation: run.val_loss }, run.best));
    const ring = make("svg", { viewBox: "0 0 27 10", "aria-hidden": "true" }, make("circle", { class: "best", cx: 20, cy: 5, r: 4 }));
    parts.push(make("div", { class: "key" }, key("training"), key("validation"), make("span", {}, ring, "best epoch")));
  } else parts.push(make("p", { class: "soft" }, run ? "No epoch recorded." : "This page has no curves of this run; its folder has."));
  if (record.link) parts.push(make("p", {}, make("a", { href: record.link }, `Open the folder of run ${number}`)));
  return parts;
}

const PART = 200;
let data = JSON.parse(byId("data").textContent);

// The value of each row of a column, whichever form it has.
const unpack = ({ values, rows }) => rows ? rows.map(place => values[place]) : values;

// Numbers before words, and cells without anything last, whichever way is up.
const collator = new Intl.Collator("en", { numeric: true });
function compare(a, b, sign) {
  if (!a || !b) return !a - !b;
  const [m, n] = [Number(a), Number(b)];
  if (isNaN(m) && isNaN(n)) return sign * collator.compare(a, b);
  return isNaN(m) || isNaN(n) ? isNaN(m) - isNaN(n) : sign * (m - n);
}

// A table that is sorted and filtered as a whole, and whose rows are made as one scrolls to them.
class Rows {
  constructor(box, records, build) {
    this.box = box, this.body = box.querySelector("tbody"), this.build = build;
    this.headers = [...box.querySelectorAll("th")];
    this.records = records, this.found = records, this.drawn = this.body.rows.length;
    box.table = this;
    box.addEventListener("scroll", () => this.fill());
    this.headers.forEach((head, column) => head.querySelector("button").addEventListener("click", () => this.sort(head, column)));
  }
  draw() {
    this.body.replaceChildren();
    this.drawn = 0;
    this.add();
    this.box.scrollTop = 0;
    this.box.querySelector("table").dataset.rearranged = "";
  }
  add() {
    const part = this.found.slice(this.drawn, this.drawn + PART);
    this.drawn += part.length;
    this.body.append(...part.map(record => record.row ??= this.build(record)));
    return part.length > 0;
  }
  fill() {
    while (this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < 600 && this.add());
  }
  sort(head, column) {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const each of this.headers) each.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const inOrder = (a, b) => compare(a.cells[column], b.cells[column], sign);
    this.records.sort(inOrder);
    this.found = this.found === this.records ? this.records : this.found.sort(inOrder);
    this.draw();
  }
  filter(text, accept = () => true) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const hasWords = record => {
      record.text ??= record.cells.join(" ").toLowerCase();
      return words.every(word => record.text.includes(word));
    };
    this.found = this.records.filter(record => accept(record) && hasWords(record));
    this.draw();
  }
}
const rowsOf = (columns, count = columns[0]?.length ?? 0) => Array.from({ length: count }, (_, i) => columns.map(column => column[i]));
const textsOf = row => [...row.cells].map(cell => cell.textContent.trim());
const inWords = (found, all, what) => found ? `${found.toLocaleString("en")} of ${all.toLocaleString("en")} ${what}` : `no ${what.slice(0, -1)} matches`;

// A long table of arms.
function arrangeArms(name, columns) {
  const section = byId(name), box = section.querySelector(".box"), tools = section.querySelector(".tools");
  const input = tools.querySelector("input"), output = tools.querySelector("output");
  const classes = [...box.querySelectorAll("th")].map(head => head.className);
  const build = record => make("tr", {}, ...record.cells.map((cell, i) => make("td", { class: classes[i] }, cell)));
  const records = [...box.querySelectorAll("tbody tr")].map(row => ({ row, cells: textsOf(row) }));
  const table = new Rows(box, records.concat(rowsOf(columns.map(unpack)).map(cells => ({ cells }))), build);
  const count = () => { output.textContent = inWords(table.found.length, table.records.length, "arms"); };
  input.addEventListener("input", () => { table.filter(input.value); count(); });
  count();
  tools.hidden = false;
}

// The table of runs: show, sort, filter. `current` is the number of the run that is shown, even if the table is renewed.
let current = null, isKept = false;
document.addEventListener("keydown", event => { if (event.key === "Escape") isKept = false; });
function arrangeRuns() {
  const box = byId("runs"), heads = [...box.querySelectorAll("th")], names = heads.map(head => head.textContent);
  const STATUS = names.indexOf("status", names.indexOf("seed"));
  class Run {
    constructor(place, cells, status, marks, link, row) {
      Object.assign(this, { place, cells, status, marks, link, row });
      if (row) row.record = this;
    }
    choices() { return names.slice(1, STATUS).map((name, i) => `${name}=${this.cells[i + 1]}`).join(" "); }
  }
  function buildRun(run) {
    const cells = run.cells.map((cell, i) => make("td", { class: heads[i].className }, cell));
    cells[0].replaceChildren(make("a", run.link ? { href: run.link } : { tabindex: 0 }, run.cells[0]));
    cells[STATUS].replaceChildren(make("span", { class: `status ${run.status}` }, run.status), ...run.marks.flatMap(mark => [" ", make("span", { class: "mark" }, mark)]));
    const row = make("tr", {}, ...cells);
    row.record = run;
    return row;
  }
  const runs = [...box.querySelectorAll("tbody tr")].map((row, place) => new Run(place, textsOf(row), row.dataset.status, [], row.querySelector("a").getAttribute("href"), row));
  if (data.more.columns) {
    const marks = unpack(data.more.marks), sweeps = unpack(data.more.sweep), hasFolder = unpack(data.more.has_folder);
    rowsOf(data.more.columns.map(unpack)).forEach((cells, i) => {
      const status = cells[STATUS], link = hasFolder[i] ? `${sweeps[i]}${cells[0]}/` : null;
      cells[STATUS] = [status, ...marks[i]].join(" ");
      runs.push(new Run(runs.length, cells, status, marks[i], link));
    });
  }
  const table = new Rows(box, runs, buildRun), body = table.body;
  let shown = null;

  function show(row) {
    if (!row || row === shown) return;
    shown?.removeAttribute("aria-current");
    shown = row;
    current = row.record.cells[0];
    row.setAttribute("aria-current", "true");
    byId("run").replaceChildren(...describe(row.record));
  }
  const rowOf = event => event.target.closest("tbody tr");
  body.addEventListener("mouseover", event => isKept || show(rowOf(event)));
  body.addEventListener("focusin", event => { isKept = false; show(rowOf(event)); });
  body.addEventListener("click", event => { show(rowOf(event)); isKept = true; });
  body.addEventListener("keydown", event => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const row = rowOf(event);
    if (!row.nextElementSibling) table.add();
    (event.key === "ArrowDown" ? row.nextElementSibling : row.previousElementSibling)?.querySelector("a").focus();
    event.preventDefault();
  });

  function count() { byId("count").textContent = inWords(table.found.length, runs.length, "runs"); }
  function filter() {
    const status = byId("status").value;
    table.filter(byId("filter").value, run => status === "" || run.status === status);
    count();
  }
  byId("filter").addEventListener("input", filter);
  byId("status").addEventListener("change", filter);
  count();
  for (const id of ["tools", "run"]) byId(id).hidden = false;
  const first = runs.find(run => run.cells[0] === current) ?? runs.find(run => run.status === "completed") ?? runs[0];
  if (first) show(first.row ??= buildRun(first));
}

for (const [name, columns] of Object.entries(data.tables)) arrangeArms(name, columns);
arrangeRuns();
byId("theme").hidden = false;
