// System: versions, models, storage and processes.
import { api, bytes, duration, html, number, t, useEffect, useState } from "./lib.js";

export function System() {
  const [system, setSystem] = useState(null), [error, setError] = useState("");
  useEffect(() => {
    const load = () => api("system").then((found) => { setSystem(found); setError(""); }, (e) => setError(e.message));
    load();
    const timer = setInterval(load, 2000);
    return () => clearInterval(timer);
  }, []);
  return html`<header class="bar"><h1>${t("nav.system")}</h1></header>
    ${error && html`<p class="notice bad">${error}</p>`}
    ${system && html`<div class="cards">
      <section class="panel"><h2>${t("system.engine")}</h2><dl>
        <dt>${t("system.version")}</dt><dd>${system.version}</dd><dt>${t("system.name")}</dt><dd>${system.engine_id || "–"}</dd>
        <dt>${t("system.connected")}</dt><dd>${system.is_connected ? t("yes") : t("no")}</dd><dt>${t("system.uptime")}</dt><dd>${duration(system.uptime_s)}</dd>
        <dt>${t("system.sources")}</dt><dd>${system.sources}</dd>
        <dt>${t("system.overflows")}</dt><dd>${Object.entries(system.overflows).map(([kind, n]) => `${kind} ${number(n)}`).join(", ") || "0"}</dd></dl></section>
      ${Object.entries(system.models).map(([name, m]) => html`<section class="panel" key=${name}><h2>${t("system.model")} ${name}</h2><dl>
        <dt>${t("system.file")}</dt><dd class="break">${m.model}</dd><dt>${t("system.backend")}</dt><dd>${m.backend}</dd><dt>${t("system.detected")}</dt><dd>${number(m.detected)}</dd>
        ${Object.entries(m.stage_ms || {}).map(([stage, times]) => html`<dt>${stage}</dt><dd>p50 ${number(times.p50, 1)} ms · p99 ${number(times.p99, 1)} ms</dd>`)}</dl></section>`)}
      <section class="panel"><h2>${t("system.web")}</h2><dl><dt>${t("system.viewers")}</dt><dd>${system.viewers}</dd><dt>${t("system.memory")}</dt><dd>${number(system.web_max_rss_mb)} MB</dd><dt>PID</dt><dd>${system.web_pid}</dd>
        <dt>${t("system.watched")}</dt><dd class="break">${system.watched.map((topic) => topic.replace(/^v1\//, "")).join(", ") || "–"}</dd></dl></section>
      ${Object.keys(system.storage || {}).length > 0 && html`<section class="panel"><h2>${t("system.storage")}</h2><dl>${Object.entries(system.storage).map(([kind, size]) => html`<dt>${kind}</dt><dd>${bytes(size)}</dd>`)}</dl></section>`}
      ${Object.entries(system.recordings).map(([name, r]) => html`<section class="panel" key=${name}><h2>${t("system.recording")} ${name}</h2><dl>${Object.entries(r).map(([key, value]) => html`<dt>${key}</dt><dd class="break">${typeof value === "object" ? JSON.stringify(value) : String(value)}</dd>`)}</dl></section>`)}
    </div>`}`;
}
