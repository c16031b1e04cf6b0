// The Live page: a grid of all cameras, or one of them.
import { Tile } from "./tile.js";
import { api, html, icon, t, useEffect, useState } from "./lib.js";

const RATES = [[1, 15], [4, 10], [9, 5], [Infinity, 2]];

export function usePlaces() {
  const [found, setFound] = useState({ places: {}, rules: [], video: {} });
  useEffect(() => {
    let isOver = false;
    const load = () => api("places").then((value) => { if (!isOver) setFound(value); }, () => {});
    load();
    const timer = setInterval(load, 10000);
    return () => { isOver = true; clearInterval(timer); };
  }, []);
  return found;
}

export function Live({ stream, arg, version }) {
  const { places, video } = usePlaces();
  const [boxes, setBoxes] = useState(true);
  const [showPlaces, setShowPlaces] = useState(true);
  const names = [...stream.sources.keys()].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
  if (!names.length) return html`<div class="empty"><h1>${t("live.none")}</h1><p>${t("live.none.help")}</p></div>`;
  const switches = html`<label class="switch"><input type="checkbox" checked=${boxes} onChange=${(e) => setBoxes(e.target.checked)} /> ${t("live.boxes")}</label>
    <label class="switch"><input type="checkbox" checked=${showPlaces} onChange=${(e) => setShowPlaces(e.target.checked)} /> ${t("live.places")}</label>`;
  if (arg && stream.sources.has(arg)) {
    return html`<header class="bar">${names.length > 1 && html`<a class="button" href="#/live">${icon("back")} ${t("live.back")}</a>`}<h1>${arg}</h1><span class="grow"></span>${switches}</header>
      <${Tile} key=${arg} stream=${stream} name=${arg} places=${places[arg]} offer=${video[arg]} boxes=${boxes} showPlaces=${showPlaces} fps=${30} big />
      <${Facts} source=${stream.source(arg)} version=${version} />`;
  }
  const fps = RATES.find(([most]) => names.length <= most)[1];
  return html`<header class="bar"><h1>${t("nav.live")}</h1><span class="grow"></span>${switches}
      <button class="button" onClick=${() => document.documentElement.requestFullscreen && document.documentElement.requestFullscreen()}>${icon("wall")}<span class="wide"> ${t("live.wall")}</span></button></header>
    <div class="grid" data-count=${Math.min(names.length, 17)}>
      ${names.map((name) => html`<${Tile} key=${name} stream=${stream} name=${name} places=${places[name]} offer=${video[name]} boxes=${boxes} showPlaces=${showPlaces} fps=${fps} onOpen=${() => { location.hash = `#/live/${encodeURIComponent(name)}`; }} />`)}
    </div>`;
}

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

function Facts({ source }) {
  const scene = source.analytics, stats = source.stats;
  return html`<section class="facts">
    ${stats && html`<div class="fact"><b>${stats.fps.toFixed(1)}</b><span>fps</span></div>
      <div class="fact"><b>${Math.round(stats.latency_ms.p50 || 0)} ms</b><span>p50</span></div>`}
    ${scene && Object.entries(scene.lines).map(([name, directions]) => Object.entries(directions).map(([direction, by]) =>
      html`<div class="fact" key=${name + direction}><b>${sum(by)}</b><span>${name}: ${direction.replace(/_/g, " ")}</span></div>`))}
    ${scene && Object.entries(scene.zones).map(([name, by]) =>
      html`<div class="fact" key=${name}><b>${sum(by)}</b><span>${name}: ${t("live.zone", { n: sum(by), visits: scene.visits[name] || 0 })}</span></div>`)}
  </section>`;
}
