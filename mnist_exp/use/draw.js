const byId = id => document.getElementById(id);

// The page says what goes wrong.
function complain(message) {
  byId("problem").textContent = message;
  byId("problem").hidden = !message;
}
addEventListener("error", event => complain(`This page failed: ${event.message}`));
addEventListener("unhandledrejection", event => complain(`This page failed: ${event.reason}`));

const MODEL = JSON.parse(byId("model").textContent), run = build(MODEL);
const FIGURE = MODEL.placing !== null;  // ink alone is drawn, on nothing; else colours on a sheet of one colour
const MOST = MODEL.most_bars, STEP = 14;  // px that an arrow key moves the pen
const sheet = byId("sheet"), context = sheet.getContext("2d", { willReadFrequently: true });

// A colour of the page's style, as it is in this theme.
function themed(name) {
  byId("pen").style.color = `var(--${name})`;
  return getComputedStyle(byId("pen")).color;
}
const ink = () => FIGURE ? themed("ink") : byId("colour").value;

// What is drawn: strokes and images in their order. "clear" is one of them, so that it can be undone.
const drawn = [];

function blank() {
  context.globalCompositeOperation = "source-over";
  context.clearRect(0, 0, sheet.width, sheet.height);
  if (FIGURE) return;
  context.fillStyle = MODEL.paper;
  context.fillRect(0, 0, sheet.width, sheet.height);
}

// One smooth stroke, or the end of it from a point on: a curve through the middles between points.
function drawStroke({ points, colour }, from = 0) {
  context.strokeStyle = context.fillStyle = FIGURE ? ink() : colour;
  context.lineCap = context.lineJoin = "round";
  const middle = i => [(points[i].x + points[i - 1].x) / 2, (points[i].y + points[i - 1].y) / 2];
  for (let i = from; i < points.length; i++) {
    const { x, y, width } = points[i];
    context.beginPath();
    if (i === 0) {
      context.arc(x, y, width / 2, 0, 2 * Math.PI);
      context.fill();
      continue;
    }
    context.lineWidth = width;
    if (i === 1) context.moveTo(points[0].x, points[0].y);
    else context.moveTo(...middle(i - 1));
    context.quadraticCurveTo(points[i - 1].x, points[i - 1].y, ...middle(i));
    context.stroke();
  }
}

// The last half of a segment, which a next point would bend.
function endStroke({ points }) {
  if (points.length < 2) return;
  const [before, last] = points.slice(-2);
  context.beginPath();
  context.moveTo((before.x + last.x) / 2, (before.y + last.y) / 2);
  context.lineTo(last.x, last.y);
  context.stroke();
}

function drawImage({ image }) {
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, sheet.width, sheet.height);
  if (!FIGURE) return;
  context.globalCompositeOperation = "source-in";
  context.fillStyle = ink();
  context.fillRect(0, 0, sheet.width, sheet.height);
  context.globalCompositeOperation = "source-over";
}

function redraw() {
  blank();
  const start = drawn.findLastIndex(part => part === "clear") + 1;
  for (const part of drawn.slice(start)) {
    if (part.image) drawImage(part);
    else drawStroke(part), endStroke(part);
  }
  byId("undo").disabled = !drawn.length;
  byId("clear").disabled = start === drawn.length;
  sheet.parentElement.classList.toggle("full", start < drawn.length);
  showSoon();
}

function add(part) {
  drawn.push(part);
  redraw();
}

function undo() {
  drawn.pop();
  redraw();
  announceSoon();
}

function clear() {
  if (byId("clear").disabled) return;
  add("clear");
  announceSoon();
}

byId("undo").addEventListener("click", undo);
byId("clear").addEventListener("click", clear);
addEventListener("keydown", event => {
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "z") undo();
  else if (event.key === "Escape") clear();
  else return;
  event.preventDefault();
});

// Mouse, pen and touch. A pen's pressure makes the stroke wider; a mouse and most fingers have none.
const strokes = new Map();  // by pointer, so that two fingers draw two strokes

function point(event) {
  const frame = sheet.getBoundingClientRect(), scale = sheet.width / frame.width;
  const pressure = event.pointerType === "pen" && event.pressure > 0 ? 0.5 + event.pressure : 1;
  return { x: (event.clientX - frame.left) * scale, y: (event.clientY - frame.top) * scale, width: byId("width").value * pressure };
}
sheet.addEventListener("pointerdown", event => {
  if (event.button !== 0) return;
  try { sheet.setPointerCapture(event.pointerId); } catch { /* a pointer that a script made up can't be captured */ }
  const stroke = { points: [point(event)], colour: ink() };
  strokes.set(event.pointerId, stroke);
  byId("pen").hidden = true;
  add(stroke);
});
sheet.addEventListener("pointermove", event => {
  const stroke = strokes.get(event.pointerId);
  if (!stroke) return;
  const moves = event.getCoalescedEvents?.() ?? [], from = stroke.points.length;
  stroke.points.push(...(moves.length ? moves : [event]).map(point));
  drawStroke(stroke, from);
  showSoon();
});
for (const end of ["pointerup", "pointercancel"]) {
  sheet.addEventListener(end, event => {
    if (!strokes.delete(event.pointerId)) return;
    redraw();
    announceSoon();
  });
}

// The keyboard's pen.
const pen = { x: sheet.width / 2, y: sheet.height / 2, stroke: null };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function showPen() {
  byId("pen").hidden = false;
  byId("pen").classList.toggle("down", pen.stroke !== null);
  byId("pen").style.left = `${100 * pen.x / sheet.width}%`;
  byId("pen").style.top = `${100 * pen.y / sheet.height}%`;
}
const penPoint = () => ({ x: pen.x, y: pen.y, width: Number(byId("width").value) });
function liftPen() {
  if (pen.stroke) announceSoon();
  pen.stroke = null;
  byId("pen").hidden = true;
}
sheet.addEventListener("keydown", event => {
  const [right, down] = ARROWS[event.key] ?? [];
  if (right !== undefined) {
    pen.x = Math.min(sheet.width, Math.max(0, pen.x + right * STEP));
    pen.y = Math.min(sheet.height, Math.max(0, pen.y + down * STEP));
    pen.stroke?.points.push(penPoint());
    redraw();
  } else if (event.key === " ") {
    if (pen.stroke) liftPen();
    else add(pen.stroke = { points: [penPoint()], colour: ink() });
  } else return;
  event.preventDefault();
  showPen();
});
sheet.addEventListener("blur", liftPen);

// Images: opened, dropped or pasted. They fit the sheet as the data set's images fit theirs; of figures, the ink is found.
function fitted(image) {
  const part = new OffscreenCanvas(sheet.width, sheet.height), on = part.getContext("2d");
  const scales = [sheet.width / image.width, sheet.height / image.height];
  const chosen = { stretch: i => scales[i], crop: () => Math.max(...scales) }[MODEL.preparation] ?? (() => Math.min(...scales));
  const [width, height] = [image.width, image.height].map((side, i) => Math.max(1, Math.round(side * chosen(i))));
  const [x, y] = [Math.floor((sheet.width - width) / 2), Math.floor((sheet.height - height) / 2)];
  on.fillStyle = FIGURE ? "#fff" : MODEL.paper;
  if (FIGURE) on.fillRect(x, y, width, height);  // behind what is transparent
  else on.fillRect(0, 0, sheet.width, sheet.height);
  on.imageSmoothingQuality = "high";
  on.drawImage(image, x, y, width, height);
  if (!FIGURE) return part;
  const picture = on.getImageData(x, y, width, height);
  inkOf(picture).forEach((amount, i) => { picture.data[4 * i + 3] = amount; });
  on.clearRect(0, 0, sheet.width, sheet.height);
  on.putImageData(picture, x, y);
  return part;
}

async function open(file) {
  if (!file) return;
  complain("");
  try {
    add({ image: fitted(await createImageBitmap(file)) });
  } catch (error) {
    complain(`${file.name}: this browser can't read it as an image (${error.message})`);
  }
  announceSoon();
}
byId("open").addEventListener("click", () => byId("file").click());
byId("file").addEventListener("change", () => {
  open(byId("file").files[0]);
  byId("file").value = "";  // so that the same file can be opened again
});
addEventListener("dragover", event => { event.preventDefault(); document.body.classList.add("over"); });
addEventListener("dragleave", () => document.body.classList.remove("over"));
addEventListener("drop", event => {
  event.preventDefault();
  document.body.classList.remove("over");
  open(event.dataTransfer.files[0]);
});
addEventListener("paste", event => open(event.clipboardData.files[0]));

// The answer.
const percent = probability => {
  const text = (100 * probability).toFixed(1);
  return (text === "100.0" && probability < 1 ? ">\u00a099.9" : text) + "\u00a0%";
};
const ranked = probabilities => probabilities.map((value, i) => i).sort((a, b) => probabilities[b] - probabilities[a]);
const bars = Array.from({ length: Math.min(MOST, MODEL.classes.length) }, () => {
  const parts = ["name", "track", "value"].map(name => Object.assign(document.createElement("span"), { className: name }));
  const bar = Object.assign(document.createElement("div"), { className: "bar" }), row = document.createElement("li");
  parts[1].append(bar);
  row.append(...parts);
  byId("bars").append(row);
  return { row, name: parts[0], bar, value: parts[2] };
});
byId("bars").style.setProperty("--names", `${Math.min(9, Math.max(...MODEL.classes.map(name => 0.62 * name.length)))}rem`);

function showAnswer(probabilities) {
  const order = probabilities ? ranked(probabilities) : MODEL.classes.map((_, i) => i), [first, second] = order;
  byId("class").textContent = probabilities ? MODEL.classes[first] : "?";
  byId("class").classList.toggle("none", !probabilities);
  byId("class").classList.toggle("word", probabilities !== null && MODEL.classes[first].length > 2);
  byId("confidence").textContent = probabilities ? percent(probabilities[first]) : "";
  const shown = MODEL.classes.length > MOST ? order.slice(0, MOST) : MODEL.classes.map((_, i) => i);
  bars.forEach(({ row, name, bar, value }, i) => {
    const probability = probabilities ? probabilities[shown[i]] : 0;
    row.classList.toggle("first", probabilities !== null && shown[i] === first);
    name.textContent = name.title = MODEL.classes[shown[i]];
    bar.style.transform = `scaleX(${probability})`;
    value.textContent = probabilities ? percent(probability) : "";
  });
  return probabilities ? `${MODEL.classes[first]}, ${percent(probabilities[first])}; then ${MODEL.classes[second]}, ${percent(probabilities[second])}` : "Nothing is drawn.";
}

// What the network sees, and its hidden units: one canvas each.
const CELL = 12;  // px of a unit
const HIGH = 9.5, LARGEST = 0.85;  // rem of a picture, and of a unit in it

function columnsFor(count) {
  const least = Math.ceil(Math.sqrt(count));
  for (let columns = least; columns <= 2 * least; columns++) if (count % columns === 0) return columns;
  return least;
}

function figure(caption, className, wide) {
  const canvas = document.createElement("canvas"), text = document.createElement("figcaption"), whole = document.createElement("figure");
  canvas.className = className;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", caption);
  text.textContent = caption;
  whole.style.setProperty("--wide", `${wide}rem`);
  whole.append(canvas, text);
  byId("layers").append(whole);
  return canvas;
}

const rgb = text => text.match(/[\d.]+/g).slice(0, 3).map(Number);
const strongest = values => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;

// Units as squares, from the colour of the ground to blue, or to orange below zero.
function drawUnits(canvas, { values }, colours) {
  const columns = columnsFor(values.length), on = canvas.getContext("2d");
  canvas.width = columns * CELL, canvas.height = Math.ceil(values.length / columns) * CELL;
  const most = strongest(values);
  values.forEach((value, i) => {
    on.fillStyle = value < 0 ? colours.below : colours.above;
    on.globalAlpha = Math.abs(value) / most;
    on.beginPath();
    on.roundRect(i % columns * CELL + 1, Math.floor(i / columns) * CELL + 1, CELL - 2, CELL - 2, 3);
    on.fill();
  });
}

// Feature maps side by side.
function drawMaps(canvas, { shape: [count, height, width], values }, colours) {
  const columns = columnsFor(count), on = canvas.getContext("2d"), [across, down] = [width + 2, height + 2];
  canvas.width = columns * across - 2, canvas.height = Math.ceil(count / columns) * down - 2;
  const most = strongest(values), area = width * height;
  const [ground, above, below] = [colours.ground, colours.above, colours.below].map(rgb);
  for (let map = 0; map < count; map++) {
    const image = on.createImageData(width, height);
    for (let i = 0; i < area; i++) {
      const value = values[map * area + i], full = value < 0 ? below : above, share = Math.abs(value) / most;
      for (let part = 0; part < 3; part++) image.data[4 * i + part] = ground[part] + share * (full[part] - ground[part]);
      image.data[4 * i + 3] = 255;
    }
    on.putImageData(image, map % columns * across, Math.floor(map / columns) * down);
  }
}

// Makes a canvas of pixels: grey, or red, green and blue; of ink, they are the opacity too.
function putPixels(canvas, [channels, height, width], pixels, isInk = false) {
  canvas.width = width, canvas.height = height;
  const image = new ImageData(width, height), area = width * height;
  for (let i = 0; i < area; i++) {
    const colours = [0, 1, 2].map(channel => pixels[(channels === 3 ? channel : 0) * area + i]);
    image.data.set([...colours, isInk ? colours[0] : 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const nothing = new Array(MODEL.image_shape.reduce((a, b) => a * b)).fill(0);
const first = run(nothing);
const seenCanvas = figure(`What the network sees: ${first.seen.shape[2]} × ${first.seen.shape[1]} pixels`, "seen", HIGH * first.seen.shape[2] / first.seen.shape[1]);
const hiddenCanvases = first.hidden.map(({ type, shape: [count, height, width] }) => {
  const columns = columnsFor(count), rows = Math.ceil(count / columns), wide = HIGH * columns / rows;
  return width
    ? figure(`${count} feature maps of ${width} × ${height}, ${type}`, "maps", wide * width / height)
    : figure(`${count} units, ${type}`, "units", Math.min(wide, columns * LARGEST));
});

let pixels = nothing, spoken = "", frame = 0, timer = 0;
const isEmpty = () => byId("clear").disabled || (FIGURE && !pixels.some(value => value > 0));

function show() {
  frame = 0;
  pixels = prepare(context.getImageData(0, 0, sheet.width, sheet.height), MODEL);
  const result = run(pixels), empty = isEmpty();
  const colours = { above: themed("blue"), below: themed("orange"), ground: themed("tint") };
  spoken = showAnswer(empty ? null : result.probabilities);
  putPixels(seenCanvas, result.seen.shape, result.seen.values);
  result.hidden.forEach((layer, i) => {
    const values = empty ? layer.values.map(() => 0) : layer.values;
    (layer.shape.length === 3 ? drawMaps : drawUnits)(hiddenCanvases[i], { ...layer, values }, colours);
  });
}
function showSoon() { frame ||= requestAnimationFrame(show); }
function announceSoon() {  // once a stroke is done: a screen reader would stumble over every step
  clearTimeout(timer);
  timer = setTimeout(() => { byId("status").textContent = spoken; }, 300);
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
redraw();

// For scripts and the browser's console. Pixels are numbers from 0 to 255, channel by channel, in the data set's shape.
window.network = {
  // Draws an image of the data set, enlarged to the whole sheet.
  paint(pixels) {
    const image = new OffscreenCanvas(0, 0);
    putPixels(image, MODEL.image_shape, pixels, FIGURE);
    add({ image });
    show();
  },
  clear,
  // Returns the pixels that the network is shown now.
  seen: () => pixels,
  // Returns the probability of each class for an image of the data set.
  probabilities: pixels => run(pixels).probabilities,
};
