// The editor of zones and lines on a picture of the camera: mouse, touch and keyboard.
import { api, html, icon, Input, keptHint, t, useEffect, useRef, useState } from "./lib.js";
import { Ground } from "./ground.js";
import { Tile } from "./tile.js";

const NEAR = 0.02, STEP = 0.002, BIG_STEP = 0.02;
const NEW_ZONE = [[0.3, 0.4], [0.7, 0.4], [0.7, 0.8], [0.3, 0.8]];
const NEW_LINE = [[0.5, 0.9], [0.5, 0.4]];
const clamp = (value) => Math.round(Math.min(Math.max(value, 0), 1) * 1e5) / 1e5;

function freeName(kind, places) {
  for (let number = 1; ; number += 1) if (!places[kind][`${kind === "zones" ? "zone" : "line"}${number}`]) return `${kind === "zones" ? "zone" : "line"}${number}`;
}

export function Places({ stream, arg }) {
  const names = [...stream.sources.keys()].sort();
  const name = names.includes(arg) ? arg : names[0];
  if (!name) return html`<div class="empty"><h1>${t("live.none")}</h1></div>`;
  return html`<${Editor} key=${name} stream=${stream} name=${name} names=${names} />`;
}

function Editor({ stream, name, names }) {
  const [places, setPlaces] = useState(null);
  const [saved, setSaved] = useState("");
  const [version, setVersion] = useState(""), [kept, setKept] = useState(null);
  const [chosen, setChosen] = useState(null); // {kind, name, point}
  const [message, setMessage] = useState(null);
  const take = (found) => {
    const plain = { zones: found.zones, lines: found.lines };
    setPlaces(plain); setSaved(JSON.stringify(plain)); setVersion(found.version); setKept(found.kept);
  };
  const load = () => api(`sources/${encodeURIComponent(name)}/places`).then((found) => { take(found); setMessage(null); }, (error) => setMessage({ bad: true, text: error.message }));
  useEffect(() => { load(); }, [name]);
  const isChanged = places !== null && JSON.stringify(places) !== saved;
  useEffect(() => {
    const ask = (event) => { if (isChanged) event.preventDefault(); };
    addEventListener("beforeunload", ask);
    return () => removeEventListener("beforeunload", ask);
  }, [isChanged]);
  const save = async () => {
    try {
      take(await api(`sources/${encodeURIComponent(name)}/places`, { method: "PUT", body: places, headers: { "If-Match": `"${version}"` } }));
      setMessage({ text: t("places.saved") });
    } catch (error) { setMessage({ bad: true, text: error.message, again: error.status === 409 }); }
  };
  const change = (kind, which, values) => setPlaces({ ...places, [kind]: { ...places[kind], [which]: { ...places[kind][which], ...values } } });
  const add = (kind) => {
    const which = freeName(kind, places);
    setPlaces({ ...places, [kind]: { ...places[kind], [which]: { points: kind === "zones" ? NEW_ZONE : NEW_LINE } } });
    setChosen({ kind, name: which, point: 0 });
  };
  const remove = (kind, which) => {
    const { [which]: _, ...rest } = places[kind];
    setPlaces({ ...places, [kind]: rest });
    setChosen(null);
  };
  const rename = (kind, from, to) => {
    if (!to || to === from || places[kind][to] || /[/\x00-\x1f]/.test(to)) return;
    setPlaces({ ...places, [kind]: Object.fromEntries(Object.entries(places[kind]).map(([key, value]) => [key === from ? to : key, value])) });
    setChosen({ kind, name: to, point: 0 });
  };
  const ask = async (kind, which) => {
    setMessage({ text: t("places.asking") });
    const now = Date.now() * 1e6, { ground, ...place } = places[kind][which];
    try {
      const { totals } = await api(kind === "zones" ? "query/visits" : "query/crossings", { method: "POST", body: { source: name, from: Math.round(now - 86400e9), to: Math.round(now), [kind === "zones" ? "zone" : "line"]: place } });
      const text = Object.entries(totals).map(([direction, n]) => `${direction === "visit" ? t("counts.visits") : direction.replace(/_/g, " ")} ${n}`).join(", ");
      setMessage({ text: t("places.answer", { text: text || t("places.nothing") }) });
    } catch (error) { setMessage({ bad: true, text: error.message }); }
  };
  return html`<header class="bar"><h1>${t("nav.places")}</h1>
      <select aria-label=${t("source")} value=${name} onChange=${(e) => { location.hash = `#/places/${encodeURIComponent(e.target.value)}`; }}>${names.map((each) => html`<option key=${each}>${each}</option>`)}</select>
      <span class="grow"></span>
      <button onClick=${() => add("zones")} disabled=${!places}>+ ${t("places.zone")}</button>
      <button onClick=${() => add("lines")} disabled=${!places}>+ ${t("places.line")}</button>
      <button onClick=${load} disabled=${!isChanged}>${t("places.undo")}</button>
      <button class="primary" onClick=${save} disabled=${!isChanged}>${t("places.save")}</button></header>
    ${message && html`<p class=${`notice ${message.bad ? "bad" : "good"}`} role="status">${message.text} ${message.again && html`<button onClick=${load}>${t("places.reload")}</button>`}</p>`}
    <div class="split">
      <div class="stage"><${Tile} stream=${stream} name=${name} boxes=${true} showPlaces=${false} wantsVideo=${false} fps=${10} big>
        ${places && html`<${Drawing} stream=${stream} name=${name} places=${places} chosen=${chosen} choose=${setChosen} change=${change} />`}<//>
        <p class="hint">${t("places.hint")}</p>${keptHint(kept)}</div>
      <aside class="panel">
        ${places && !Object.keys(places.zones).length && !Object.keys(places.lines).length && html`<p class="dim">${t("places.none")}</p>`}
        ${places && ["zones", "lines"].map((kind) => Object.entries(places[kind]).map(([which, place]) => html`<${Entry} key=${kind + which} kind=${kind} name=${which} place=${place}
          isChosen=${chosen && chosen.kind === kind && chosen.name === which} choose=${() => setChosen({ kind, name: which, point: 0 })} size=${[(stream.source(name).status || {}).width || 16, (stream.source(name).status || {}).height || 9]}
          change=${(values) => change(kind, which, values)} remove=${() => remove(kind, which)} rename=${(to) => rename(kind, which, to)} ask=${() => ask(kind, which)} />`))}
      </aside>
    </div>`;
}

function Entry({ kind, name, place, size, isChosen, choose, change, remove, rename, ask }) {
  const field = (label, input) => html`<label class="field"><span>${label}</span>${input}</label>`;
  const seconds = (key, fallback) => html`<${Input} type="number" min="0" max="86400" step="0.1" value=${place[key] ?? fallback} onChange=${(e) => { const v = Number(e.target.value); if (v >= 0) change({ [key]: v }); }} />`;
  return html`<section class=${`entry ${isChosen ? "chosen" : ""}`}>
    <button class="plain head" aria-expanded=${Boolean(isChosen)} onClick=${choose}><span class=${`swatch ${kind}`}></span><b>${name}</b><span class="dim">${t(kind === "zones" ? "places.zone" : "places.line")}</span></button>
    ${isChosen && html`<div class="fields">
      ${field(t("places.name"), html`<${Input} value=${name} maxlength="64" onChange=${(e) => rename(e.target.value.trim())} />`)}
      ${field(t("places.classes"), html`<${Input} value=${(place.classes || []).join(", ")} placeholder=${t("places.all")} onChange=${(e) => { const list = e.target.value.split(",").map((v) => v.trim()).filter(Boolean); change({ classes: list.length ? list : null }); }} />`)}
      ${kind === "zones" ? html`${field(t("places.enter"), seconds("enter_s", 0.3))}${field(t("places.leave"), seconds("leave_s", 1))}<${Ground} zone=${place} size=${size} change=${change} />` : html`
        ${field(t("places.right"), html`<${Input} value=${place.left_to_right || "left_to_right"} maxlength="64" onChange=${(e) => change({ left_to_right: e.target.value.trim() || "left_to_right" })} />`)}
        ${field(t("places.left"), html`<${Input} value=${place.right_to_left || "right_to_left"} maxlength="64" onChange=${(e) => change({ right_to_left: e.target.value.trim() || "right_to_left" })} />`)}
        <button onClick=${() => change({ points: [...place.points].reverse() })}>${t("places.turn")}</button>`}
      <button onClick=${ask}>${icon("timeline")} ${t("places.ask")}</button>
      <button class="danger" onClick=${remove}>${icon("delete")} ${t("places.delete")}</button></div>`}
  </section>`;
}

// SVG over the picture in fractions of it. Drag points; click an edge to add one; arrow keys move the chosen point.
function Drawing({ stream, name, places, chosen, choose, change }) {
  const svg = useRef(), drag = useRef(null);
  const status = stream.source(name).status || {};
  const wide = status.width || 16, high = status.height || 9;
  const at = (event) => {
    const rect = svg.current.getBoundingClientRect(), scale = Math.min(rect.width / wide, rect.height / high);
    const x = (event.clientX - rect.left - (rect.width - wide * scale) / 2) / (wide * scale);
    const y = (event.clientY - rect.top - (rect.height - high * scale) / 2) / (high * scale);
    return [clamp(x), clamp(y)];
  };
  const ground = chosen && chosen.kind !== "lines" && places.zones[chosen.name] && places.zones[chosen.name].ground;
  const pointsOf = (kind, which) => (kind === "ground" ? places.zones[which].ground.points : places[kind][which].points);
  const move = (kind, which, index, point) => {
    const points = pointsOf(kind, which).map((p, i) => (i === index ? point : p));
    if (kind === "ground") change("zones", which, { ground: { ...places.zones[which].ground, points } }); else change(kind, which, { points });
  };
  const begin = (event, kind, which, index) => {
    event.preventDefault(); event.stopPropagation();
    svg.current.setPointerCapture(event.pointerId);
    if (kind !== "ground") choose({ kind, name: which, point: index });
    drag.current = { kind, which, index, from: at(event), points: pointsOf(kind, which) };
  };
  const moved = (event) => {
    const d = drag.current;
    if (!d) return;
    const [x, y] = at(event);
    if (d.index !== null) { move(d.kind, d.which, d.index, [x, y]); return; }
    const dx = x - d.from[0], dy = y - d.from[1];
    change(d.kind, d.which, { points: d.points.map(([px, py]) => [clamp(px + dx), clamp(py + dy)]) });
  };
  const insert = (event, kind, which) => {
    const [x, y] = at(event), points = places[kind][which].points, last = kind === "zones" ? points.length : points.length - 1;
    let best = 0, least = Infinity;
    for (let i = 0; i < last; i += 1) {
      const [ax, ay] = points[i], [bx, by] = points[(i + 1) % points.length];
      const share = Math.min(Math.max(((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2 || 1), 0), 1);
      const distance = Math.hypot(x - ax - share * (bx - ax), y - ay - share * (by - ay));
      if (distance < least) { least = distance; best = i; }
    }
    if (least > NEAR * 2) return;
    change(kind, which, { points: [...points.slice(0, best + 1), [x, y], ...points.slice(best + 1)] });
    choose({ kind, name: which, point: best + 1 });
  };
  const key = (event, kind, which, index) => {
    const step = event.shiftKey ? BIG_STEP : STEP, points = pointsOf(kind, which);
    const by = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (by) { event.preventDefault(); move(kind, which, index, [clamp(points[index][0] + by[0]), clamp(points[index][1] + by[1])]); }
    if (kind === "ground") return;
    if ((event.key === "Delete" || event.key === "Backspace") && points.length > (kind === "zones" ? 3 : 2)) {
      event.preventDefault(); change(kind, which, { points: points.filter((_, i) => i !== index) });
    }
    if (event.key === "Insert" || event.key === "+") {
      event.preventDefault();
      const next = points[(index + 1) % points.length], here = points[index];
      change(kind, which, { points: [...points.slice(0, index + 1), [clamp((here[0] + next[0]) / 2), clamp((here[1] + next[1]) / 2)], ...points.slice(index + 1)] });
    }
  };
  const scaled = (points) => points.map(([x, y]) => `${x * wide},${y * high}`).join(" ");
  const unit = Math.hypot(wide, high) / 150;
  return html`<svg class="drawing" ref=${svg} viewBox=${`0 0 ${wide} ${high}`} role="group" aria-label=${t("nav.places")} onPointerMove=${moved} onPointerUp=${() => { drag.current = null; }} onPointerCancel=${() => { drag.current = null; }}>
    ${["zones", "lines"].map((kind) => Object.entries(places[kind]).map(([which, place]) => {
      const isChosen = chosen && chosen.kind === kind && chosen.name === which;
      const shape = kind === "zones" ? "polygon" : "polyline";
      const [ax, ay] = place.points[0], [bx, by] = place.points[1];
      const cx = ((ax + bx) / 2) * wide, cy = ((ay + by) / 2) * high, length = Math.hypot((bx - ax) * wide, (by - ay) * high) || 1;
      const nx = (-(by - ay) * high / length) * unit * 5, ny = ((bx - ax) * wide / length) * unit * 5;
      return html`<g key=${kind + which} class=${`place ${kind} ${isChosen ? "chosen" : ""}`}>
        <${shape} class="hit" points=${scaled(place.points)} stroke-width=${unit * 3} onPointerDown=${(e) => begin(e, kind, which, null)} onDblClick=${(e) => insert(e, kind, which)} />
        <${shape} class="shape" points=${scaled(place.points)} />
        ${kind === "lines" && html`<path class="shape" d=${`M${cx},${cy}l${nx},${ny}m${(-nx - ny) / 4},${(-ny + nx) / 4}l${(nx + ny) / 4},${(ny - nx) / 4}l${(-nx + ny) / 4},${(-ny - nx) / 4}`} />`}
        <text x=${place.points[0][0] * wide + unit} y=${place.points[0][1] * high - unit} font-size=${unit * 3.2}>${which}</text>
        ${place.points.map(([x, y], index) => html`<circle key=${index} class=${`point ${isChosen && chosen.point === index ? "at" : ""}`} cx=${x * wide} cy=${y * high} r=${unit * (isChosen ? 1.5 : 1.1)} tabindex="0" role="button"
          aria-label=${t("places.point", { name: which, number: index + 1, x: Math.round(x * 100), y: Math.round(y * 100) })}
          onFocus=${() => choose({ kind, name: which, point: index })} onPointerDown=${(e) => { e.currentTarget.focus(); begin(e, kind, which, index); }} onKeyDown=${(e) => key(e, kind, which, index)} />`)}
      </g>`;
    }))}
    ${ground && html`<g class="place ground chosen"><polygon class="shape" points=${scaled(ground.points)} />
      ${ground.points.map(([x, y], index) => html`<g key=${index}><circle class="point" cx=${x * wide} cy=${y * high} r=${unit * 1.5} tabindex="0" role="button" aria-label=${t("places.point", { name: t("ground.add"), number: index + 1, x: Math.round(x * 100), y: Math.round(y * 100) })}
        onPointerDown=${(e) => { e.currentTarget.focus(); begin(e, "ground", chosen.name, index); }} onKeyDown=${(e) => key(e, "ground", chosen.name, index)} /><text x=${x * wide + unit * 2} y=${y * high - unit} font-size=${unit * 3}>${index + 1}</text></g>`)}</g>`}
  </svg>`;
}
