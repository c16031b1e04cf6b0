// Counts: totals now, and from the store.
import { Chart } from "./chart.js";
import { api, duration, html, moment, number, t, useEffect, useMemo, useState } from "./lib.js";

const SPANS = { "1h": ["1m", 3600], "24h": ["1h", 86400], "7d": ["1h", 604800], "30d": ["1d", 2592000] };
const sum = (counts) => Object.values(counts || {}).reduce((a, b) => a + b, 0);

export function Counts({ me, stream, arg }) {
  const names = [...stream.sources.keys()].sort();
  const name = names.includes(arg) ? arg : names.find((each) => stream.source(each).analytics) || names[0];
  const scene = name && stream.source(name).analytics;
  if (!name) return html`<div class="empty"><h1>${t("live.none")}</h1></div>`;
  return html`<header class="bar"><h1>${t("nav.counts")}</h1>
      <select aria-label=${t("source")} value=${name} onChange=${(e) => { location.hash = `#/counts/${encodeURIComponent(e.target.value)}`; }}>${names.map((each) => html`<option key=${each}>${each}</option>`)}</select></header>
    ${!scene ? html`<div class="empty"><p>${t("counts.none")}</p><a class="button" href=${`#/places/${encodeURIComponent(name)}`}>${t("nav.places")}</a></div>` : html`
    <p class="dim">${t("counts.since", { time: moment(scene.since_utc_ns, { date: true }) })}${scene.blind_s >= 1 ? ` · ${t("counts.blind")} ${duration(scene.blind_s)}` : ""}</p>
    <div class="cards">
      ${Object.entries(scene.lines).map(([line, directions]) => html`<section class="panel" key=${line}><h2>${line}</h2><div class="facts left">
        ${Object.entries(directions).map(([direction, by]) => html`<div class="fact" key=${direction}><b>${number(sum(by))}</b><span>${direction.replace(/_/g, " ")}</span><small class="dim">${Object.entries(by).map(([kind, n]) => `${kind} ${number(n)}`).join(", ")}</small></div>`)}</div></section>`)}
      ${Object.entries(scene.zones).map(([zone, by]) => html`<section class="panel" key=${zone}><h2>${zone}</h2><div class="facts left">
        <div class="fact"><b>${number(sum(by))}</b><span>${t("counts.inside")}</span><small class="dim">${Object.entries(by).filter(([, n]) => n).map(([kind, n]) => `${kind} ${n}`).join(", ")}</small></div>
        <div class="fact"><b>${number(scene.visits[zone] || 0)}</b><span>${t("counts.visits")}</span></div></div></section>`)}
    </div>
    ${me.stores_events ? html`<${Past} key=${name} name=${name} lines=${Object.keys(scene.lines)} zones=${Object.keys(scene.zones)} />
    <${Heat} key=${`heat-${name}`} name=${name} stream=${stream} />` : html`<p class="notice past">${t("counts.unstored")}</p>`}`}`;
}

const spanned = (path, span, more) => `api/v1/${path}?${new URLSearchParams({ ...more, from: Math.floor(Date.now() / 1000 - SPANS[span][1]) * 1e9, to: Math.floor(Date.now() / 1000) * 1e9 })}`;

function Heat({ name, stream }) {
  const [span, setSpan] = useState("24h"), [kind, setKind] = useState(""), [state, setState] = useState("");
  const { width = 16, height = 9 } = stream.source(name).status || {};
  const scene = stream.source(name).analytics || { lines: {}, zones: {} };
  const classes = [...new Set([...Object.values(scene.zones).flatMap(Object.keys), ...Object.values(scene.lines).flatMap((by) => Object.values(by).flatMap(Object.keys))])].sort();
  const address = useMemo(() => spanned("heat", span, { source: name, format: "png", ...(kind ? { class: kind } : {}) }), [name, span, kind]);
  const still = useMemo(() => `api/v1/sources/${encodeURIComponent(name)}/still.jpg?w=1280`, [name]);
  if (state === "none") return null;
  return html`<section class="panel past"><header class="bar"><h2>${t("heat.title")}</h2>
      <select aria-label=${t("places.classes")} value=${kind} onChange=${(e) => setKind(e.target.value)}><option value="">${t("all")}</option>${classes.map((each) => html`<option key=${each}>${each}</option>`)}</select>
      <select aria-label=${t("counts.span")} value=${span} onChange=${(e) => setSpan(e.target.value)}>${Object.keys(SPANS).map((each) => html`<option key=${each}>${each}</option>`)}</select></header>
    <div class="heat" style=${`aspect-ratio: ${width} / ${height}`}><img src=${still} alt="" onError=${(e) => { e.target.hidden = true; }} /><img class="cells" src=${address} alt=${t("heat.alt", { name })} onError=${() => setState("none")} /></div></section>`;
}

function Dwell({ name, place, span }) {
  const [found, setFound] = useState(null);
  useEffect(() => { setFound(null); api(spanned("dwell", span, { source: name, place }).slice(7)).then(setFound, () => {}); }, [name, place, span]);
  if (!found || !found.histogram.some(([, n]) => n)) return null;
  const most = Math.max(...found.histogram.map(([, n]) => n)), facts = { mean: found.mean_s, median: found.median_s, most: found.p90_s, longest: found.longest_s };
  return html`<header class="bar"><h3>${t("dwell.title")}</h3><span class="grow"></span><a class="button" href=${spanned("dwell", span, { source: name, place, format: "csv" })} download=${`${name}-${place}-visits.csv`}>CSV</a></header>
    <div class="facts left">${Object.entries(facts).map(([key, value]) => html`<div class="fact" key=${key}><b>${duration(value)}</b><span>${t(`dwell.${key}`)}</span></div>`)}</div>
    <dl class="bars">${found.histogram.map(([bound, n]) => html`<dt key=${`t${bound}`}>${bound === null ? t("dwell.longer") : `≤ ${duration(bound)}`}</dt><dd key=${`d${bound}`}><meter min="0" max=${most} value=${n}></meter> ${number(n)}</dd>`)}</dl>`;
}

function Past({ name, lines, zones }) {
  const places = [...lines, ...zones];
  const [place, setPlace] = useState(places[0] || ""), [span, setSpan] = useState("24h");
  const [periods, setPeriods] = useState(null), [error, setError] = useState("");
  const [bucket, seconds] = SPANS[span];
  const path = (format) => `counts?${new URLSearchParams({ source: name, place, bucket, from: Math.floor(Date.now() / 1000 - seconds) * 1e9, format })}`;
  useEffect(() => {
    if (!place) return undefined;
    setPeriods(null);
    const load = () => api(path("json")).then((found) => { setPeriods(found); setError(""); }, (e) => setError(e.message));
    load();
    const timer = setInterval(load, 10000);
    return () => clearInterval(timer);
  }, [name, place, span]);
  if (!place) return null;
  const isZone = zones.includes(place);
  const directions = periods ? [...new Set(periods.flatMap((p) => Object.keys(p.counts)))].sort() : [];
  const series = periods && [...directions.map((d) => ({ label: d === "visit" ? t("counts.visits") : d.replace(/_/g, " "), values: periods.map((p) => sum(p.counts[d])) })),
    ...(isZone ? [{ label: t("counts.most"), values: periods.map((p) => p.most) }] : [])];
  return html`<section class="panel past"><header class="bar"><h2>${t("counts.past")}</h2>
      <select aria-label=${t("events.place")} value=${place} onChange=${(e) => setPlace(e.target.value)}>${places.map((each) => html`<option key=${each}>${each}</option>`)}</select>
      <select aria-label=${t("counts.span")} value=${span} onChange=${(e) => setSpan(e.target.value)}>${Object.keys(SPANS).map((each) => html`<option key=${each}>${each}</option>`)}</select>
      <span class="grow"></span>${periods && html`<a class="button" href=${`api/v1/${path("csv")}`} download=${`${name}-${place}.csv`}>CSV</a>`}</header>
    ${error && html`<p class="dim">${error}</p>`}
    ${series && (series.length ? html`<${Chart} key=${place + span} times=${periods.map((p) => p.begin_utc_ns / 1e9)} lines=${series} bars height=${240} />` : html`<p class="dim">${t("counts.empty")}</p>`)}
    ${isZone && html`<${Dwell} key=${place} name=${name} place=${place} span=${span} />`}
    ${periods && periods.some((p) => p.blind_s > 0) && html`<p class="dim">${t("counts.blindsum", { time: duration(periods.reduce((a, p) => a + p.blind_s, 0)) })}</p>`}
  </section>`;
}
