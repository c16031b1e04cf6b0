// Cameras: state, rates, drops by cause, and the log of reasons.
import { api, duration, html, moment, number, t, useEffect, useState } from "./lib.js";
import { Chart } from "./chart.js";

const STATES = ["live", "connecting", "stalled", "offline", "ended"];

export function Cameras({ stream, arg }) {
  const [sources, setSources] = useState(null), [error, setError] = useState("");
  useEffect(() => {
    const load = () => api("sources").then((found) => { setSources(found); setError(""); }, (e) => setError(e.message));
    load();
    const timer = setInterval(load, 2000);
    return () => clearInterval(timer);
  }, []);
  if (arg && stream.sources.has(arg)) return html`<${Camera} key=${arg} name=${arg} />`;
  return html`<header class="bar"><h1>${t("nav.cameras")}</h1></header>
    ${error && html`<p class="notice bad">${error}</p>`}
    ${sources && !sources.length && html`<div class="empty"><p>${t("live.none")}</p></div>`}
    ${sources && sources.length > 0 && html`<div class="scroll" role="region" tabindex="0" aria-label=${t("nav.cameras")}><table>
      <thead><tr><th>${t("source")}</th><th>${t("cameras.state")}</th><th class="num">fps</th><th class="num">p50</th><th class="num">p99</th><th class="num">${t("cameras.published")}</th><th>${t("cameras.dropped")}</th><th>${t("cameras.format")}</th></tr></thead>
      <tbody>${sources.sort((a, b) => a.source_id.localeCompare(b.source_id, undefined, { numeric: true })).map((s) => html`<tr key=${s.source_id}>
        <td><a href=${`#/cameras/${encodeURIComponent(s.source_id)}`}>${s.source_id}</a></td>
        <td><span class=${`dot ${s.state}`}></span> ${STATES.includes(s.state) ? t(`state.${s.state}`) : t("state.unknown")}${s.reason && html`<br /><small class="dim">${s.reason}</small>`}</td>
        <td class="num">${number(s.fps, 1)}</td><td class="num">${ms(s.latency_ms.p50)}</td><td class="num">${ms(s.latency_ms.p99)}</td>
        <td class="num">${number(s.published)}</td><td>${drops(s.dropped)}</td><td>${s.width ? `${s.width}×${s.height}` : "–"} ${s.codec || ""}</td></tr>`)}</tbody></table></div>`}`;
}

const ms = (value) => (value === undefined ? "–" : `${number(value)} ms`);
const drops = (dropped) => Object.entries(dropped).filter(([, n]) => n).map(([cause, n]) => `${number(n)} ${cause}`).join(", ") || "–";

function Camera({ name }) {
  const [source, setSource] = useState(null), [error, setError] = useState("");
  useEffect(() => {
    const load = () => api(`sources/${encodeURIComponent(name)}`).then((found) => { setSource(found); setError(""); }, (e) => setError(e.message));
    load();
    const timer = setInterval(load, 2000);
    return () => clearInterval(timer);
  }, [name]);
  if (!source) return html`<h1>${name}</h1>${error && html`<p class="notice bad">${error}</p>`}`;
  const times = source.rates.map(([at]) => at / 1e9);
  return html`<header class="bar"><a class="button" href="#/cameras">${t("nav.cameras")}</a><h1>${name}</h1><span class="grow"></span><a class="button" href=${`#/live/${encodeURIComponent(name)}`}>${t("nav.live")}</a></header>
    ${error && html`<p class="notice bad">${error}</p>`}
    <div class="cards">
      <section class="panel"><h2>${t("cameras.state")}</h2><dl>
        <dt>${t("cameras.state")}</dt><dd><span class=${`dot ${source.state}`}></span> ${t(`state.${source.state || "unknown"}`)} ${source.reason}</dd>
        <dt>${t("cameras.address")}</dt><dd class="break">${source.uri || "–"}</dd>
        <dt>${t("cameras.format")}</dt><dd>${source.width ? `${source.width}×${source.height}` : "–"} ${source.codec || ""} (${source.decoder || "–"})</dd>
        <dt>${t("cameras.reconnects")}</dt><dd>${number(source.stream_epoch)}</dd>
        <dt>${t("cameras.published")}</dt><dd>${number(source.published)}</dd>
        <dt>${t("cameras.dropped")}</dt><dd>${drops(source.dropped)}</dd>
        ${source.blind_s !== null && html`<dt>${t("counts.blind")}</dt><dd>${duration(source.blind_s)}</dd>`}</dl></section>
      <section class="panel"><h2>fps</h2><${Chart} times=${times} lines=${[{ label: "fps", values: source.rates.map(([, fps]) => fps) }]} /></section>
      <section class="panel"><h2>${t("cameras.age")}</h2><${Chart} times=${times} lines=${[{ label: "ms", values: source.rates.map(([, , p99]) => p99) }]} /></section>
      <section class="panel"><h2>${t("cameras.log")}</h2><ol class="log">${[...source.log].reverse().map((entry, i) => html`<li key=${i}><time>${moment(entry.published_utc_ns, { date: true })}</time> <span class=${`dot ${entry.state}`}></span> ${t(`state.${entry.state}`)} <span class="dim">${entry.reason}</span></li>`)}</ol></section>
    </div>`;
}
