// Sends a picture to this server and draws what it finds. Names of classes are text, never markup.
const $ = (id) => document.getElementById(id);
const COLOURS = ["#ffb300", "#4dd0e1", "#ff7043", "#9ccc65", "#ba68c8", "#f06292", "#64b5f6", "#dce775"];
let models = [];
let picture = null; // {blob, bitmap}
let answer = null;
let asked = 0;

const colourOf = (id) => COLOURS[id % COLOURS.length];
const chosen = () => models.find((model) => model.name === $("model").value);

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function ask(path, options = {}) {
  const token = $("token").value;
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { ...options, headers });
  const body = await response.json().catch(() => ({ error: response.statusText }));
  if (response.status === 401) $("token-label").hidden = false;
  if (!response.ok) {
    const wait = response.headers.get("Retry-After");
    throw new Error(body.error + (wait ? ` (again in ${wait} s)` : ""));
  }
  return body;
}

async function loadModels() {
  try {
    models = (await ask("v1/models")).models;
  } catch (error) {
    say(error.message, true);
    return;
  }
  $("model").replaceChildren(...models.map((model) => new Option(`${model.name} (${model.task})`, model.name)));
  choose();
  say("No image yet.");
}

function choose() {
  const model = chosen();
  if (!model) return;
  $("score-label").hidden = model.task === "classify";
  $("score").min = model.score_threshold;
  $("score").value = model.score_threshold;
  if (picture) recognise();
  else show();
}

async function take(blob) {
  if (!blob) return;
  try {
    picture = { blob, bitmap: await createImageBitmap(blob, { imageOrientation: "from-image" }) };
  } catch {
    say("The browser cannot show this file: expected a JPEG, PNG or WebP image.", true);
    return;
  }
  await recognise();
}

async function recognise() {
  const model = chosen();
  if (!picture || !model) return;
  const mine = ++asked;
  answer = null;
  show();
  say("…");
  const began = performance.now();
  const verb = model.task === "classify" ? "classify" : "detect";
  try {
    const found = await ask(`v1/${verb}?model=${encodeURIComponent(model.name)}`, { method: "POST", body: picture.blob });
    if (mine !== asked) return;
    answer = { ...found, took: performance.now() - began };
  } catch (error) {
    if (mine === asked) say(error.message, true);
    return;
  }
  show();
}

function shown() {
  const least = Number($("score").value);
  if (!answer) return [];
  if (answer.classes) return answer.classes;
  return answer.objects.filter((each) => each.score >= least).sort((a, b) => b.score - a.score);
}

function show() {
  $("score-shown").textContent = Number($("score").value).toFixed(2);
  const found = shown();
  draw(answer && answer.objects ? found : []);
  $("found").hidden = $("more").hidden = !answer;
  if (!answer) return;
  const ms = answer.ms;
  say(`${found.length} found in ${answer.took.toFixed(0)} ms: decode ${ms.decode.toFixed(1)}, wait ${ms.wait.toFixed(1)}, inference ${ms.infer.toFixed(1)}`);
  $("rows").replaceChildren(...found.map(row));
  $("json").textContent = JSON.stringify(answer, null, 1);
}

function row(each) {
  const line = document.createElement("tr");
  const box = each.xyxy ? each.xyxy.map(Math.round).join(", ") : "";
  for (const text of [each.class_name, each.score.toFixed(2), box]) line.insertCell().textContent = text;
  return line;
}

function draw(objects) {
  const canvas = $("picture");
  $("hint").hidden = Boolean(picture);
  canvas.hidden = !picture;
  if (!picture) return;
  const { bitmap } = picture;
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const pen = canvas.getContext("2d");
  pen.drawImage(bitmap, 0, 0);
  const unit = Math.max(bitmap.width, bitmap.height) / 640;
  pen.lineWidth = 2 * unit;
  pen.font = `${13 * unit}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  for (const each of [...objects].reverse()) drawObject(pen, each, unit);
}

function drawObject(pen, each, unit) {
  const [x1, y1, x2, y2] = each.xyxy;
  pen.strokeStyle = pen.fillStyle = colourOf(each.class_id);
  if (each.xyxyxyxy) path(pen, each.xyxyxyxy);
  else pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  for (const [x, y, score] of each.keypoints || []) {
    if (score >= 0.3) pen.fillRect(x - 2 * unit, y - 2 * unit, 4 * unit, 4 * unit);
  }
  const text = `${each.class_name} ${each.score.toFixed(2)}`;
  const [width, height] = [pen.measureText(text).width + 8 * unit, 17 * unit];
  const top = y1 >= height ? y1 - height : y1;
  pen.fillRect(x1 - unit, top, width, height);
  pen.fillStyle = "#102027";
  pen.fillText(text, x1 + 3 * unit, top + 2 * unit);
}

function path(pen, corners) {
  pen.beginPath();
  corners.forEach(([x, y], at) => (at ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.closePath();
  pen.stroke();
}

const drop = $("drop");
drop.addEventListener("click", () => $("file").click());
drop.addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    $("file").click();
  }
});
drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer.files[0]);
});
$("file").addEventListener("click", (event) => event.stopPropagation());
$("file").addEventListener("change", () => take($("file").files[0]));
document.addEventListener("paste", (event) => take([...event.clipboardData.files][0]));
$("model").addEventListener("change", choose);
$("score").addEventListener("input", show);
$("token").addEventListener("change", loadModels);
loadModels();
