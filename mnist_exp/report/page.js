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

// What the panel beside the table says of a run.
function describe(run) {
  const parts = [make("h3", {}, `Run ${run.number}`), make("p", {}, make("code", {}, run.overrides))];
  if (run.results) parts.push(make("p", {}, run.results));
  if (run.error) parts.push(make("p", {}, run.error));
  if (run.epochs.length) {
    parts.push(chart("accuracy (%)", run.epochs, { training: run.train_accuracy, validation: run.val_accuracy }, run.best));
    parts.push(chart("loss", run.epochs, { training: run.train_loss, validation: run.val_loss }, run.best));
    const ring = make("svg", { viewBox: "0 0 27 10", "aria-hidden": "true" }, make("circle", { class: "best", cx: 20, cy: 5, r: 4 }));
    parts.push(make("div", { class: "key" }, key("training"), key("validation"), make("span", {}, ring, "best epoch")));
    parts.push(make("p", {}, make("a", { href: run.folder }, `Open the folder of run ${run.number}`)));
  } else parts.push(make("p", { class: "soft" }, "No epoch recorded."));
  return parts;
}

// The table of runs: show, sort, filter.
const runs = JSON.parse(byId("data").textContent);
const table = byId("runs").querySelector("table"), body = table.tBodies[0], rows = [...body.rows];
let shown = null, kept = null;

function show(row) {
  if (!row || row === shown) return;
  shown?.removeAttribute("aria-current");
  shown = row;
  row.setAttribute("aria-current", "true");
  byId("run").replaceChildren(...describe(runs[row.dataset.run]));
}
const rowOf = event => event.target.closest("tbody tr");
body.addEventListener("mouseover", event => kept || show(rowOf(event)));
body.addEventListener("focusin", event => { kept = null; show(rowOf(event)); });
body.addEventListener("click", event => { show(rowOf(event)); kept = rowOf(event); });
document.addEventListener("keydown", event => { if (event.key === "Escape") kept = null; });
body.addEventListener("keydown", event => {
  if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
  const visible = [...body.rows].filter(row => !row.hidden);
  const next = visible[visible.indexOf(rowOf(event)) + (event.key === "ArrowDown" ? 1 : -1)];
  next?.querySelector("a").focus();
  event.preventDefault();
});

// Numbers before words, and cells without anything last, whichever way is up.
function compare(a, b, sign) {
  if (!a || !b) return !a - !b;
  const [m, n] = [Number(a), Number(b)];
  if (isNaN(m) && isNaN(n)) return sign * a.localeCompare(b, "en", { numeric: true });
  return isNaN(m) || isNaN(n) ? isNaN(m) - isNaN(n) : sign * (m - n);
}
[...table.tHead.rows[0].cells].forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const cell of table.tHead.rows[0].cells) cell.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  const text = new Map(rows.map(row => [row, row.cells[column].textContent.trim()]));
  rows.sort((a, b) => compare(text.get(a), text.get(b), sign));
  body.append(...rows);
}));

const content = new Map(rows.map(row => [row, [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase()]));
function filter() {
  const words = byId("filter").value.toLowerCase().split(/\s+/), status = byId("status").value;
  for (const row of rows) {
    row.hidden = !words.every(word => content.get(row).includes(word)) || (status !== "" && row.dataset.status !== status);
  }
  const visible = rows.filter(row => !row.hidden).length;
  byId("count").textContent = visible ? `${visible} of ${rows.length} runs` : "no run matches";
}
byId("filter").addEventListener("input", filter);
byId("status").addEventListener("change", filter);
filter();
for (const id of ["theme", "tools", "run"]) byId(id).hidden = false;
show(rows.find(row => row.dataset.status === "completed") ?? rows[0]);
