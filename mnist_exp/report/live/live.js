
// The server says what has changed, and those parts of the page are put in place of the old ones.
const main = document.querySelector("main"), title = document.title, received = new Map();
let edition = Number(document.body.dataset.edition), renewing = Promise.resolve();

// What a reader has done to a part: typed, sorted, scrolled, opened, focused.
function stateOf(part) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  return {
    values: [...part.querySelectorAll("input, select")].map(control => control.value),
    sorted: [...part.querySelectorAll("th[aria-sort$=ending]")].map(head => [head.textContent, head.ariaSort]),
    scrolled: [...part.querySelectorAll(".box")].map(box => [box.scrollLeft, box.scrollTop]),
    opened: [...part.querySelectorAll("details")].map(each => each.open),
    focused: focused && { place: controlsOf(part).indexOf(focused), run: focused.closest("tr")?.record?.cells[0], selection: focused.selectionStart },
    isKept,
  };
}
const controlsOf = part => [...part.querySelectorAll("a, button, input, select, [tabindex]")];

function restore(part, state) {
  part.querySelectorAll("input, select").forEach((control, i) => {
    if (!state.values[i]) return;
    control.value = state.values[i];
    control.dispatchEvent(new Event(control.tagName === "INPUT" ? "input" : "change"));
  });
  for (const [name, direction] of state.sorted) {
    const head = [...part.querySelectorAll("th")].find(each => each.textContent === name);
    for (let clicks = 0; head && head.ariaSort !== direction && clicks < 2; clicks++) head.querySelector("button").click();
  }
  part.querySelectorAll("details").forEach((each, i) => { each.open = state.opened[i] ?? each.open; });
  part.querySelectorAll(".box").forEach((box, i) => {
    const [left, top] = state.scrolled[i] ?? [0, 0];
    while (box.scrollHeight < top + box.clientHeight && box.table?.add());
    box.scrollTo({ left, top, behavior: "instant" });
  });
  if (state.focused) {
    const { place, run, selection } = state.focused;
    const record = run && part.querySelector("#runs").table.records.find(each => each.cells[0] === run);
    const control = record ? record.row?.querySelector("a") : controlsOf(part)[place];
    control?.focus({ preventScroll: true });
    if (typeof selection === "number") control?.setSelectionRange?.(selection, selection);
  }
  isKept = state.isKept;
}

function replace(old, part) {
  if (old.role === "status") {  // a screen reader speaks what changes in the same element
    old.textContent = part.textContent;
    return;
  }
  const state = stateOf(old);
  old.replaceWith(part);
  if (part.id === "all") arrangeRuns();
  else if (data.tables[part.id]) arrangeArms(part.id, data.tables[part.id]);
  restore(part, state);
}

// Put the children of `fresh` in the place of those of `parent` that differ from what the server sent before.
function update(parent, fresh, dataText = "") {
  const parts = [...fresh.children].filter(part => part.tagName !== "NOSCRIPT"), ids = new Set(parts.map(part => part.id));
  for (const old of [...parent.children]) if (!ids.has(old.id)) old.remove();
  let before = null;
  for (const part of parts) {
    const { id } = part, sent = part.outerHTML + (part.querySelector(".tools") ? dataText : ""), old = byId(id);
    if (id !== "now") {
      if (!old) before ? before.after(part) : parent.prepend(part);
      else if (received.get(id) !== sent) replace(old, part);
      received.set(id, sent);
    }
    before = byId(id);
  }
}

// What a reader looks at stays where it is.
function inPlace(change) {
  const parts = [...main.children].filter(part => part.id), top = part => part.getBoundingClientRect().top;
  const { id } = parts.find(part => top(part) >= 0) ?? parts.at(-1), before = top(byId(id));
  change();
  const moved = byId(id) ? top(byId(id)) - before : 0;
  if (moved) scrollBy({ top: moved, behavior: "instant" });
}

function showNow(html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  document.title = `${holder.content.querySelector("#counted").dataset.progress} · ${title}`;
  inPlace(() => update(byId("now"), holder.content));
}

async function renew(newest) {
  if (newest <= edition) return;
  const answer = await fetch("./");
  if (!answer.ok) throw new Error(answer.statusText);
  const fresh = document.adoptNode(new DOMParser().parseFromString(await answer.text(), "text/html").documentElement);
  const content = fresh.querySelector("main"), text = fresh.querySelector("#data").textContent;
  await Promise.allSettled([...content.querySelectorAll("img")].map(image => image.decode()));  // or they would flicker
  edition = Number(fresh.querySelector("body").dataset.edition);
  inPlace(() => {
    data = JSON.parse(text);
    update(main, content, text);
    for (const tag of ["nav", "footer"]) {
      const [old, part] = [document, fresh].map(root => root.querySelector(tag));
      if (old.innerHTML !== part.innerHTML) old.replaceChildren(...part.childNodes);
    }
  });
}

function connection(state, text) {
  byId("connection").dataset.state = state;
  byId("connection").textContent = text;
}
const lost = () => connection("lost", "Not connected: this page shows what it knew last.");

if ("over" in document.body.dataset) connection("over", "Over");
else {
  const source = new EventSource("events");
  source.addEventListener("open", () => connection("live", "Live"));
  source.addEventListener("error", lost);
  source.addEventListener("now", event => showNow(JSON.parse(event.data)));
  source.addEventListener("report", event => { renewing = renewing.then(() => renew(JSON.parse(event.data))).catch(lost); });
  source.addEventListener("over", () => renewing.then(() => { source.close(); connection("over", "Over"); }));
}
