// The label page. Boxes are fractions of the picture; `boxes` is what will be saved, `suggestions` never is.
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["#4aa0ff", "#3fc47a", "#ffb13d", "#ff6b6b", "#c08bff", "#39d0d8", "#ff8fc8", "#b6d94c", "#ff9457", "#8fa8ff"];
const LEAST_PX = 3;

let project = { classes: [], items: [] };
let shown = null; // {name, part, boxes, suggestions, chosen, dirty}
let current = 0; // class of new boxes
let past = [], future = [];
let drag = null;
let busy = Promise.resolve();

const colour = (classId) => COLOURS[classId % COLOURS.length];
const copy = () => JSON.stringify({ boxes: shown.boxes, suggestions: shown.suggestions });

function say(text, bad = false) {
  $("said").textContent = text;
  $("said").classList.toggle("bad", bad);
}

// What is left to decide about on this picture.
function waiting() {
  const count = shown.suggestions.length;
  return count ? `${count} suggestion${count === 1 ? "" : "s"}: A accepts` : "";
}

async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  const value = await answer.json().catch(() => ({ error: `${answer.status} ${answer.statusText}` }));
  if (!answer.ok) throw new Error(value.error || answer.statusText);
  return value;
}

const at = (name) => `/api/items/${encodeURIComponent(name)}`;

// One request after the other: a picture is saved before the next is shown.
function inTurn(act) {
  busy = busy.then(act).catch((error) => say(error.message, true));
  return busy;
}

async function begin() {
  project = await ask("/api/project");
  document.title = `${project.project} · Framewire labels`;
  $("project").textContent = project.project;
  $("suggest").disabled = !project.assist;
  listClasses();
  listItems();
  const first = project.items.find((item) => item.part === "inbox") || project.items[0];
  $("empty").hidden = Boolean(first);
  if (first) await open(first.name);
}

function visible() {
  const filter = $("filter").value;
  return project.items.filter((item) => filter === "all" || (item.part === "inbox") === (filter === "inbox"));
}

function listItems() {
  const rows = visible().map((item) => {
    const row = document.createElement("li");
    const name = document.createElement("span"), part = document.createElement("span");
    name.className = "name"; name.textContent = item.name; name.title = [item.name, item.camera].join(" ");
    part.className = "part"; part.textContent = item.part;
    row.append(name, part);
    row.dataset.name = item.name;
    row.setAttribute("aria-current", String(shown !== null && shown.name === item.name));
    row.addEventListener("click", () => inTurn(() => go(item.name)));
    return row;
  });
  $("items").replaceChildren(...rows);
  $("items").querySelector('[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
  const left = project.items.filter((item) => item.part === "inbox").length;
  $("count").textContent = `${project.items.length - left} labelled, ${left} to do`;
}

function listClasses() {
  const rows = project.classes.map((name, index) => {
    const row = document.createElement("li");
    row.append(mark(index), text("name", name), ...(index < 9 ? [key(index + 1)] : []));
    row.setAttribute("aria-current", String(index === current));
    row.addEventListener("click", () => choose_class(index));
    return row;
  });
  $("classes").replaceChildren(...rows);
}

function text(name, value) {
  const span = document.createElement("span");
  span.className = name; span.textContent = value;
  return span;
}
function key(value) {
  const kbd = document.createElement("kbd");
  kbd.textContent = value;
  return kbd;
}
function mark(classId) {
  const span = text("mark", "");
  span.style.background = colour(classId);
  return span;
}

function choose_class(index) {
  if (index >= project.classes.length) return;
  current = index;
  const box = shown && shown.boxes[shown.chosen];
  if (box && box.class_id !== index) change(() => { box.class_id = index; });
  listClasses();
  draw();
}

// A change that can be undone.
function change(act) {
  past.push(copy());
  future = [];
  act();
  shown.dirty = true;
  draw();
}

function travel(from, to, what) {
  if (!shown || !from.length) return say(`nothing to ${what}`);
  to.push(copy());
  Object.assign(shown, JSON.parse(from.pop()));
  shown.chosen = Math.min(shown.chosen, all().length - 1);
  shown.dirty = true;
  say(what === "undo" ? "undone" : "done again");
  draw();
}

const all = () => [...shown.boxes, ...shown.suggestions];
const chosen_suggestion = () => (shown.chosen >= shown.boxes.length ? shown.chosen - shown.boxes.length : -1);

async function open(name) {
  const item = await ask(at(name));
  shown = { ...item, chosen: -1, dirty: false };
  past = []; future = [];
  const image = $("picture");
  image.src = `/pictures/${encodeURIComponent(name)}`;
  image.alt = name;
  await image.decode();
  fit();
  listItems();
  draw();
  say(waiting());
}

function fit() {
  const image = $("picture"), stage = $("stage");
  if (!image.naturalWidth) return;
  const scale = Math.min((stage.clientWidth - 24) / image.naturalWidth, (stage.clientHeight - 24) / image.naturalHeight);
  image.width = Math.max(1, Math.round(image.naturalWidth * scale));
  image.height = Math.max(1, Math.round(image.naturalHeight * scale));
  $("boxes").setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
}

function draw() {
  if (!shown) return;
  const image = $("picture"), nodes = [];
  all().forEach((box, index) => {
    const suggested = index >= shown.boxes.length;
    const classId = suggested ? project.classes.indexOf(box.class_name) : box.class_id;
    const [x1, y1, x2, y2] = box.xyxy;
    const rect = shape("rect", { x: x1 * image.width, y: y1 * image.height, width: Math.max((x2 - x1) * image.width, 0), height: Math.max((y2 - y1) * image.height, 0) });
    rect.classList.add("box");
    rect.classList.toggle("suggested", suggested);
    rect.classList.toggle("chosen", index === shown.chosen);
    rect.style.stroke = rect.style.color = colour(classId);
    rect.dataset.index = index;
    nodes.push(rect);
    const label = shape("text", { x: x1 * image.width + 4, y: Math.max(y1 * image.height - 5, 13) });
    label.textContent = project.classes[classId] + (suggested ? (box.score === null ? " ?" : ` ${box.score.toFixed(2)} ?`) : "");
    nodes.push(label);
  });
  const box = shown.boxes[shown.chosen];
  if (box) for (const corner of ["nw", "ne", "sw", "se"]) nodes.push(handle(box, corner));
  $("boxes").replaceChildren(...nodes);
  listObjects();
  $("undo").disabled = !past.length;
  $("redo").disabled = !future.length;
  $("accept").disabled = !shown.suggestions.length;
}

function shape(kind, attributes) {
  const node = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function handle(box, corner) {
  const image = $("picture"), [x1, y1, x2, y2] = box.xyxy;
  const x = (corner[1] === "w" ? x1 : x2) * image.width, y = (corner[0] === "n" ? y1 : y2) * image.height;
  const node = shape("rect", { x: x - 5, y: y - 5, width: 10, height: 10 });
  node.classList.add("handle");
  node.dataset.corner = corner;
  return node;
}

function listObjects() {
  const rows = all().map((box, index) => {
    const row = document.createElement("li"), suggested = index >= shown.boxes.length;
    const classId = suggested ? project.classes.indexOf(box.class_name) : box.class_id;
    row.append(mark(classId), text("name", project.classes[classId] + (suggested ? " (suggested)" : "")));
    row.classList.toggle("suggested", suggested);
    row.setAttribute("aria-current", String(index === shown.chosen));
    row.addEventListener("click", () => { shown.chosen = index; draw(); });
    return row;
  });
  $("objects").replaceChildren(...rows);
}

// ---- drawing with the pointer -------------------------------------------------------------------------------------
function place(event) {
  const area = $("boxes").getBoundingClientRect();
  const inside = (value) => Math.min(Math.max(value, 0), 1);
  return [inside((event.clientX - area.left) / area.width), inside((event.clientY - area.top) / area.height)];
}

$("boxes").addEventListener("pointerdown", (event) => {
  if (!shown || event.button !== 0) return;
  event.preventDefault();
  $("stage").focus();
  $("boxes").setPointerCapture(event.pointerId);
  const from = place(event), target = event.target, before = copy();
  if (target.dataset.corner) {
    drag = { kind: "corner", corner: target.dataset.corner, from, before };
  } else if (target.dataset.index !== undefined) {
    shown.chosen = Number(target.dataset.index);
    drag = { kind: chosen_suggestion() >= 0 ? "none" : "move", from, before, start: [...all()[shown.chosen].xyxy] };
  } else {
    shown.chosen = -1;
    drag = { kind: "new", from, before };
  }
  draw();
});

$("boxes").addEventListener("pointermove", (event) => {
  if (!drag || drag.kind === "none") return;
  const to = place(event);
  drag.moved = true;
  if (drag.kind === "new") drag.box = spanned(drag.from, to);
  if (drag.kind === "move") shown.boxes[shown.chosen].xyxy = shifted(drag.start, to[0] - drag.from[0], to[1] - drag.from[1]);
  if (drag.kind === "corner") pull(shown.boxes[shown.chosen].xyxy, drag, to);
  draw();
  if (drag.box) {
    const image = $("picture"), [x1, y1, x2, y2] = drag.box;
    const rect = shape("rect", { x: x1 * image.width, y: y1 * image.height, width: (x2 - x1) * image.width, height: (y2 - y1) * image.height });
    rect.classList.add("box", "chosen");
    rect.style.stroke = rect.style.color = colour(current);
    $("boxes").append(rect);
  }
});

$("boxes").addEventListener("pointerup", () => {
  const done = drag;
  drag = null;
  if (!done || !done.moved) return draw();
  if (done.kind === "new" && !is_large(done.box)) return draw();
  past.push(done.before);
  future = [];
  shown.dirty = true;
  if (done.kind === "new") {
    shown.boxes.push({ class_id: current, xyxy: done.box });
    shown.chosen = shown.boxes.length - 1;
  } else {
    const box = shown.boxes[shown.chosen];
    box.xyxy = spanned(box.xyxy.slice(0, 2), box.xyxy.slice(2));
    if (!is_large(box.xyxy)) Object.assign(shown, JSON.parse(past.pop()));
  }
  draw();
});

const spanned = ([ax, ay], [bx, by]) => [Math.min(ax, bx), Math.min(ay, by), Math.max(ax, bx), Math.max(ay, by)];

function is_large([x1, y1, x2, y2]) {
  const image = $("picture");
  return (x2 - x1) * image.width >= LEAST_PX && (y2 - y1) * image.height >= LEAST_PX;
}

function shifted([x1, y1, x2, y2], dx, dy) {
  dx = Math.min(Math.max(dx, -x1), 1 - x2);
  dy = Math.min(Math.max(dy, -y1), 1 - y2);
  return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
}

function pull(xyxy, dragged, [x, y]) {
  xyxy[dragged.corner[1] === "w" ? 0 : 2] = x;
  xyxy[dragged.corner[0] === "n" ? 1 : 3] = y;
}

// ---- what the keys do ---------------------------------------------------------------------------------------------
function accept() {
  if (!shown || !shown.suggestions.length) return say("no suggestions: S asks the model");
  const one = chosen_suggestion();
  change(() => {
    const taken = one >= 0 ? shown.suggestions.splice(one, 1) : shown.suggestions.splice(0);
    const boxes = taken.map((each) => ({ class_id: project.classes.indexOf(each.class_name), xyxy: each.xyxy }));
    shown.boxes.push(...boxes.filter((box) => box.class_id >= 0 && is_large(box.xyxy)));
    shown.chosen = one >= 0 ? shown.boxes.length - 1 : -1;
  });
  say(waiting());
}

function remove() {
  if (!shown || shown.chosen < 0) return say("choose a box first: Tab");
  const one = chosen_suggestion();
  change(() => {
    if (one >= 0) shown.suggestions.splice(one, 1);
    else shown.boxes.splice(shown.chosen, 1);
    shown.chosen = Math.min(shown.chosen, all().length - 1);
  });
  if (one >= 0) say(waiting());
}

async function suggest(kind) {
  if (!shown) return;
  say(kind === "suggest" ? "asking the model …" : "");
  const answer = await ask(`${at(shown.name)}/${kind}`, { method: "POST" });
  past.push(copy());
  future = [];
  shown.suggestions = answer.suggestions.filter((one) => !shown.boxes.some((box) => is_same(box, one)));
  shown.chosen = -1;
  say(waiting() || "no suggestions");
  draw();
}

function is_same(box, one) {
  const [ax1, ay1, ax2, ay2] = box.xyxy, [bx1, by1, bx2, by2] = one.xyxy;
  const shared = Math.max(Math.min(ax2, bx2) - Math.max(ax1, bx1), 0) * Math.max(Math.min(ay2, by2) - Math.max(ay1, by1), 0);
  const both = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - shared;
  return project.classes[box.class_id] === one.class_name && shared / both > 0.7;
}

async function save() {
  const boxes = shown.boxes.map(({ class_id, xyxy }) => ({ class_id, xyxy }));
  const answer = await ask(at(shown.name), { method: "PUT", headers: { "content-type": "application/json" }, body: JSON.stringify({ boxes }) });
  shown.part = project.items.find((item) => item.name === shown.name).part = answer.part;
  shown.dirty = false;
  say(`saved ${answer.boxes} ${answer.boxes === 1 ? "object" : "objects"}`);
}

async function forget() {
  const answer = await ask(at(shown.name), { method: "DELETE" });
  project.items.find((item) => item.name === shown.name).part = answer.part;
  await open(shown.name);
  say("back in the inbox");
}

// Another picture; what was changed here is saved first, and suggestions are not.
async function go(name) {
  if (shown && shown.dirty) await save();
  await open(name);
}

function beside(step) {
  const items = visible(), index = items.findIndex((item) => item.name === shown.name);
  return items[index + step] || (step > 0 ? items.find((item) => item.part === "inbox" && item.name !== shown.name) : undefined);
}

async function step(by, saves) {
  if (!shown) return;
  const next = beside(by); // before saving: a labelled picture may leave the list
  if (saves) await save();
  if (next) await go(next.name);
  else { if (shown.dirty) await save(); listItems(); draw(); }
}

function choose(by) {
  const count = all().length;
  if (count) shown.chosen = (shown.chosen + by + (shown.chosen < 0 && by < 0 ? 1 : 0) + count) % count;
  draw();
}

function arrow(event) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const box = shown.boxes[shown.chosen], image = $("picture"), by = event.shiftKey ? 10 : 1;
  if (!box) return dx ? inTurn(() => step(dx, false)) : undefined;
  const x = (dx * by) / image.naturalWidth, y = (dy * by) / image.naturalHeight;
  change(() => {
    if (!event.altKey) box.xyxy = shifted(box.xyxy, x, y);
    else {
      const [x1, y1, x2, y2] = box.xyxy;
      const grown = [x1, y1, Math.min(Math.max(x2 + x, x1), 1), Math.min(Math.max(y2 + y, y1), 1)];
      if (is_large(grown)) box.xyxy = grown;
    }
  });
}

const KEYS = {
  a: accept, x: remove, delete: remove, backspace: remove,
  s: () => (project.assist ? inTurn(() => suggest("suggest")) : say("started without a model: --assist MODEL", true)),
  b: () => inTurn(() => suggest("between")),
  enter: () => inTurn(() => step(1, true)), n: () => inTurn(() => step(1, false)), p: () => inTurn(() => step(-1, false)),
  r: () => inTurn(forget), escape: () => { shown.chosen = -1; draw(); }, "?": () => $("keys").showModal(),
  h: () => $("boxes").classList.add("hidden"),
};

addEventListener("keydown", (event) => {
  if ($("keys").open || !shown || ["SELECT", "INPUT"].includes(event.target.tagName)) return;
  if (event.target.tagName === "BUTTON" && ["Enter", " ", "Tab"].includes(event.key)) return;
  const name = event.key.toLowerCase(), control = event.ctrlKey || event.metaKey;
  if (control && name === "z") { event.preventDefault(); return event.shiftKey ? travel(future, past, "redo") : travel(past, future, "undo"); }
  if (control && name === "y") { event.preventDefault(); return travel(future, past, "redo"); }
  if (control) return;
  if (event.key === "Tab" && document.activeElement === $("stage")) { event.preventDefault(); return choose(event.shiftKey ? -1 : 1); }
  if (event.key.startsWith("Arrow")) { event.preventDefault(); return arrow(event); }
  if (/^[1-9]$/.test(event.key)) return choose_class(Number(event.key) - 1);
  if (KEYS[name]) { event.preventDefault(); KEYS[name](); }
});
addEventListener("keyup", (event) => { if (event.key.toLowerCase() === "h") $("boxes").classList.remove("hidden"); });
addEventListener("resize", () => { fit(); draw(); });
addEventListener("beforeunload", (event) => { if (shown && shown.dirty) event.preventDefault(); });
$("filter").addEventListener("change", listItems);
const presses = { suggest: KEYS.s, between: KEYS.b, accept, undo: () => travel(past, future, "undo"), redo: () => travel(future, past, "redo"), save: KEYS.enter, help: KEYS["?"] };
for (const [id, act] of Object.entries(presses)) $(id).addEventListener("click", () => { act(); $("stage").focus(); });
inTurn(begin).then(() => $("stage").focus());
