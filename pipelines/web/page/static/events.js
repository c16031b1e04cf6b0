// Events: list with filters, review by keyboard, and one event with its image, clip and reasons.
import { api, duration, html, moment, t, useEffect, useRef, useState } from "./lib.js";

const SEVERITIES = ["alert", "notice", "info"];
const query = (filters, cursor) => {
  const given = Object.entries({ ...filters, cursor }).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return given.length ? `?${new URLSearchParams(given)}` : "";
};

export function Events({ stream }) {
  const [filters, setFilters] = useState({ source: "", rule: "", severity: "", place: "", reviewed: "" });
  const [found, setFound] = useState({ events: [], cursor: null, stored: true }), [error, setError] = useState("");
  const [at, setAt] = useState(0), [isLoading, setLoading] = useState(true);
  const list = useRef(), now = useRef({});
  const load = async (more) => {
    try {
      const next = await api(`events${query(filters, more ? now.current.found.cursor : null)}`);
      setFound(more ? { ...next, events: [...now.current.found.events, ...next.events] } : next);
      setError("");
    } catch (e) { setError(e.message); }
    setLoading(false);
  };
  useEffect(() => { setAt(0); load(false); }, [JSON.stringify(filters)]);
  useEffect(() => {
    let timer;
    const soon = () => { if (now.current.found.events.length <= 50) { clearTimeout(timer); timer = setTimeout(() => load(false), 150); } };
    stream.addEventListener("event", soon);
    const slow = setInterval(soon, 10000);
    return () => { stream.removeEventListener("event", soon); clearTimeout(timer); clearInterval(slow); };
  }, [JSON.stringify(filters)]);
  const { events } = found, chosen = events[Math.min(at, events.length - 1)];
  now.current = { found, at, chosen };
  const act = async (event, action) => {
    try {
      const next = await api(`events/${encodeURIComponent(event.event_id)}/${action}`, { method: "POST" });
      setFound({ ...now.current.found, events: now.current.found.events.map((each) => (each.event_id === next.event_id ? next : each)) });
      setError("");
    } catch (e) { setError(e.message); }
  };
  const review = async (event) => {
    await act(event, event.reviewed ? "unreview" : "review");
    if (!event.reviewed && filters.reviewed !== "false") setAt((i) => Math.min(i + 1, now.current.found.events.length - 1));
  };
  useEffect(() => {
    const pressed = (e) => {
      if (/INPUT|SELECT|TEXTAREA/.test(e.target.tagName) || e.ctrlKey || e.metaKey || e.altKey) return;
      const { chosen: event, found: { events: all } } = now.current, key = e.key.toLowerCase();
      if (key === "j" || key === "arrowdown") setAt((i) => Math.min(i + 1, all.length - 1));
      else if (key === "k" || key === "arrowup") setAt((i) => Math.max(i - 1, 0));
      else if (key === "r" && event && now.current.found.stored) review(event);
      else if (key === "p" && event && now.current.found.stored) act(event, event.kept ? "unkeep" : "keep");
      else return;
      e.preventDefault();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
  useEffect(() => { const row = list.current && list.current.querySelector("[aria-current]"); if (row) row.scrollIntoView({ block: "nearest" }); }, [at, chosen && chosen.event_id]);
  const names = (key) => [...new Set([...events.map((event) => event[key]), filters[key === "source_id" ? "source" : key]].filter(Boolean))].sort();
  const choice = (key, label, options, texts) => html`<label class="field inline"><span>${label}</span><select value=${filters[key]} onChange=${(e) => setFilters({ ...filters, [key]: e.target.value })}>
    <option value="">${t("all")}</option>${options.map((each) => html`<option key=${each} value=${each}>${texts ? texts(each) : each}</option>`)}</select></label>`;
  return html`<header class="bar"><h1>${t("nav.events")}</h1><span class="grow"></span>
      ${choice("source", t("source"), [...stream.sources.keys()].sort())}${choice("rule", t("events.rule"), names("rule"))}
      ${choice("severity", t("events.severity"), SEVERITIES, (each) => t(`severity.${each}`))}${choice("place", t("events.place"), names("place"))}
      ${found.stored && choice("reviewed", t("events.reviewed"), ["false", "true"], (each) => t(each === "true" ? "yes" : "no"))}</header>
    ${error && html`<p class="notice bad" role="alert">${error}</p>`}
    ${!found.stored && html`<p class="notice">${t("events.unstored")}</p>`}
    ${!events.length && !isLoading && !error && html`<div class="empty"><p>${t("events.none")}</p></div>`}
    ${events.length > 0 && html`<div class="split events"><div class="list" ref=${list}>
        ${events.map((event, i) => html`<${Row} key=${event.event_id} event=${event} isChosen=${event === chosen} open=${() => setAt(i)} />`)}
        ${found.cursor && html`<button onClick=${() => load(true)}>${t("events.more")}</button>`}</div>
      <aside class="panel">${chosen && html`<${Detail} key=${chosen.event_id} event=${chosen} stored=${found.stored} review=${() => review(chosen)} keep=${() => act(chosen, chosen.kept ? "unkeep" : "keep")} />`}</aside></div>
      ${found.stored && html`<p class="hint wide">${t("events.keys")}</p>`}`}`;
}

const title = (event) => [event.rule.replace(/_/g, " "), event.class_name].filter(Boolean).join(": ");
const lasts = (event) => (event.phase === "point" ? "" : event.ended_utc_ns ? duration(event.duration_s) : t("events.open"));
const media = (event, name) => `api/v1/events/${encodeURIComponent(event.event_id)}/${name}`;

function Row({ event, isChosen, open }) {
  return html`<button class=${`row ${event.reviewed ? "seen" : ""}`} aria-current=${isChosen ? "true" : undefined} onClick=${open}>
    ${event.snapshot ? html`<img src=${media(event, "trigger.jpg")} alt="" loading="lazy" />` : html`<span class="noimage"></span>`}
    <span class="what"><b>${title(event)}</b><span class="dim">${[event.source_id, event.place].filter(Boolean).join(" · ")}</span></span>
    <span class="when"><time>${moment(event.began_utc_ns)}</time><span class="dim">${lasts(event)}</span></span>
    ${event.severity && html`<span class=${`chip ${event.severity}`}>${t(`severity.${event.severity}`)}</span>`}</button>`;
}

function Detail({ event, stored, review, keep }) {
  const [isBroken, setBroken] = useState(false);
  return html`<h2>${title(event)}</h2>
    ${event.clip && !isBroken ? html`<video class="clip" controls autoplay muted playsinline preload="auto" src=${media(event, "clip.mp4")} poster=${event.snapshot ? media(event, "trigger.jpg") : undefined} onError=${() => setBroken(true)}></video>`
      : event.best || event.snapshot ? html`<img class="clip" src=${media(event, event.best ? "best.jpg" : "trigger.jpg")} alt=${title(event)} />` : null}
    ${isBroken && html`<p class="dim">${t("events.broken")}</p>`}
    ${event.clip_state === "due" && html`<p class="dim">${t("events.clipdue")}</p>`}${event.clip_reason && html`<p class="dim">${t("events.clip")}: ${event.clip_reason}</p>`}
    <dl><dt>${t("events.began")}</dt><dd>${moment(event.began_utc_ns, { date: true })}</dd>
      <dt>${t("events.lasts")}</dt><dd>${lasts(event) || "–"} ${event.reason && html`<span class="dim">(${event.reason.replace(/_/g, " ")})</span>`}</dd>
      <dt>${t("source")}</dt><dd>${event.source_id}</dd>${event.place && html`<dt>${t("events.place")}</dt><dd>${event.place}</dd>`}
      <dt>${t("events.tracks")}</dt><dd>${event.track_ids.map((id) => `#${id}`).join(" ") || "–"}</dd></dl>
    ${event.why.length > 0 && html`<h3>${t("events.why")}</h3><ul class="why">${event.why.map((line) => html`<li key=${line}>${line}</li>`)}</ul>`}
    ${stored && html`<div class="bar"><button class=${event.reviewed ? "" : "primary"} aria-pressed=${event.reviewed} onClick=${review}>${t(event.reviewed ? "events.unreview" : "events.review")}</button>
      <button aria-pressed=${event.kept} onClick=${keep}>${t(event.kept ? "events.unkeep" : "events.keep")}</button></div>`}`;
}
