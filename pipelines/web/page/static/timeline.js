// The timeline: what is recorded, what happened and when nobody saw anything; plays from any point.
import { Recording } from "./recording.js";
import { api, html, moment, t, useEffect, useRef, useState } from "./lib.js";

const S = 1e9, SPANS = { "10 min": 600, "1 h": 3600, "6 h": 21600, "24 h": 86400, "7 d": 604800 };
const STEPS = [60, 120, 300, 600, 1800, 3600, 10800, 21600, 86400];
const LIVE_S = 3;
const now = () => Date.now() * 1e6;
const MOST_ROWS = 16;

export function Timeline({ stream, arg }) {
  const names = [...stream.sources.keys()].sort();
  const name = names.includes(arg) ? arg : names[0];
  if (!name) return html`<div class="empty"><h1>${t("live.none")}</h1></div>`;
  return html`<${Page} key=${name} stream=${stream} name=${name} names=${names} />`;
}

function Page({ stream, name, names }) {
  const [span, setSpan] = useState(3600), [end, setEnd] = useState(now()), [follows, setFollows] = useState(true);
  const [rows, setRows] = useState({}), [head, setHead] = useState(null), [state, setState] = useState("idle"), [rate, setRate] = useState(1);
  const [error, setError] = useState("");
  const video = useRef(), overlay = useRef(), player = useRef(null), keep = useRef({});
  const begin = end - span * S, shown = [name, ...names.filter((each) => each !== name)].slice(0, MOST_ROWS);
  keep.current = { rows, rate };
  useEffect(() => {
    let isOver = false;
    const load = async () => {
      const to = follows ? now() : end, from = to - span * S;
      if (follows) setEnd(to);
      for (const each of shown) {
        try {
          const query = `from=${Math.round(from)}&to=${Math.round(to)}`;
          const found = await api(`recordings/${encodeURIComponent(each)}?${query}`);
          const page = await api(`events?source=${encodeURIComponent(each)}&${query}&limit=500`);
          if (isOver) return;
          setRows((had) => ({ ...had, [each]: { ...found, events: page.events, isCut: page.cursor !== null } }));
          setError("");
        } catch (failure) { if (isOver) return; setError(failure.message); }
      }
    };
    load();
    const timer = setInterval(() => { if (follows && !document.hidden) load(); }, Math.max(10, span / 60) * 1000);
    return () => { isOver = true; clearInterval(timer); };
  }, [span, follows ? 0 : end, name, names.join("/")]);
  useEffect(() => {
    player.current = new Recording(video.current, overlay.current, name, {
      pieces: () => (keep.current.rows[name] || { pieces: [] }).pieces,
      onTime: setHead, onState: (next, text) => { setState(next); if (text) setError(text); },
    });
    return () => player.current.close();
  }, [name]);
  const play = (at) => { setError(""); player.current.play(Math.min(Math.max(at, begin), now() - LIVE_S * S), rate); };
  const toggle = () => (state === "playing" || state === "loading" ? player.current.pause() : head ? player.current.resume(head, rate) : play(begin + 0.9 * span * S));
  const zoom = (seconds, middle = head && head > begin && head < end ? head : end - (span * S) / 2) => {
    const share = (middle - begin) / (span * S), to = Math.min(middle + (1 - share) * seconds * S, now());
    setSpan(seconds);
    if (!follows) setEnd(to);
  };
  const move = (share) => { const to = Math.min(end + share * span * S, now()); setFollows(to > now() - 2 * S); setEnd(to); };
  const next = (by) => { const all = Object.values(SPANS), i = all.indexOf(span) + by; if (all[i]) zoom(all[i]); };
  const keyed = (event) => {
    const step = span * S * (event.shiftKey ? 0.1 : 0.01), at = head || end;
    const act = { ArrowLeft: () => play(at - step), ArrowRight: () => play(at + step), "+": () => next(-1), "-": () => next(1), " ": toggle, Enter: toggle, PageUp: () => move(-1), PageDown: () => move(1) }[event.key];
    if (act) { event.preventDefault(); act(); }
  };
  const own = rows[name];
  return html`<header class="bar"><h1>${t("nav.timeline")}</h1>
      <select aria-label=${t("source")} value=${name} onChange=${(e) => { location.hash = `#/timeline/${encodeURIComponent(e.target.value)}`; }}>${names.map((each) => html`<option key=${each}>${each}</option>`)}</select>
      <span class="grow"></span>
      <button aria-label=${t("timeline.earlier")} onClick=${() => move(-0.5)}>◀</button>
      <select aria-label=${t("counts.span")} value=${span} onChange=${(e) => zoom(Number(e.target.value))}>${Object.entries(SPANS).map(([text, seconds]) => html`<option key=${text} value=${seconds}>${text}</option>`)}</select>
      <button aria-label=${t("timeline.later")} disabled=${follows} onClick=${() => move(0.5)}>▶</button>
      <button aria-pressed=${follows} onClick=${() => { setFollows(true); setEnd(now()); }}>${t("timeline.now")}</button></header>
    ${error && html`<p class="notice bad" role="alert">${error}</p>`}
    ${own && !own.is_recorded && html`<p class="notice">${t("timeline.unrecorded", { name })}</p>`}
    ${own && own.isCut && html`<p class="hint">${t("timeline.cut")}</p>`}
    <div class="stage"><div class="tile big film"><video ref=${video} muted playsinline></video><canvas ref=${overlay}></canvas>
      ${state === "idle" && html`<p class="waiting">${t("timeline.choose")}</p>`}${state === "loading" && html`<p class="waiting">${t("live.waiting")}</p>`}${state === "ended" && html`<p class="waiting">${t("timeline.ended")}</p>`}
      ${head && html`<figcaption><time>${moment(head, { date: true })}</time></figcaption>`}</div></div>
    <div class="bar playing"><button onClick=${() => head && play(head - 10 * S)} disabled=${!head} title=${t("timeline.back")}>−10 s</button>
      <button class="primary" onClick=${toggle}>${t(state === "playing" || state === "loading" ? "timeline.pause" : "timeline.play")}</button>
      <button onClick=${() => head && play(head + 10 * S)} disabled=${!head} title=${t("timeline.forward")}>+10 s</button>
      <select aria-label=${t("timeline.speed")} value=${rate} onChange=${(e) => { const value = Number(e.target.value); setRate(value); player.current.setRate(value); }}>${[0.5, 1, 2, 4, 8].map((each) => html`<option key=${each} value=${each}>${each}×</option>`)}</select></div>
    <div class="strip" tabindex="0" role="slider" aria-label=${t("timeline.strip")} aria-valuemin=${Math.round(begin / S)} aria-valuemax=${Math.round(end / S)} aria-valuenow=${Math.round((head || end) / S)} aria-valuetext=${moment(head || end, { date: true })} onKeyDown=${keyed}
      onWheel=${(e) => { if (e.ctrlKey || e.shiftKey) { e.preventDefault(); next(Math.sign(e.deltaY || e.deltaX)); } }}>
      ${shown.map((each) => html`<${Row} key=${each} name=${each} row=${rows[each]} begin=${begin} end=${end} head=${each === name ? head : null} isChosen=${each === name}
        pick=${(at) => { if (each === name) play(at); else location.hash = `#/timeline/${encodeURIComponent(each)}`; }} />`)}
      <${Axis} begin=${begin} end=${end} span=${span} /></div>
    <p class="hint legend"><span class="key recorded"></span>${t("timeline.recorded")} <span class="key blind"></span>${t("timeline.blind")} <span class="key red"></span>${t("severity.alert")} <span class="key amber"></span>${t("severity.notice")} <span class="key green"></span>${t("severity.info")}</p>
    <p class="hint wide">${t("timeline.keys")}</p>`;
}

function Row({ name, row, begin, end, head, isChosen, pick }) {
  const at = (ns) => Math.min(Math.max(((ns - begin) / (end - begin)) * 100, 0), 100);
  const bar = (from, to, kind, label, y, height) => { const x = at(from), w = Math.max(at(to) - x, 0.12); return x >= 100 || at(to) <= 0 ? null : html`<rect key=${kind + from} class=${kind} x=${`${x}%`} width=${`${w}%`} y=${y} height=${height}>${label && html`<title>${label}</title>`}</rect>`; };
  const cause = (each) => t("timeline.cause", { cause: each === "off" ? t("timeline.off") : t(`state.${each}`) });
  const told = row ? t("timeline.summary", { name, events: row.events.length, blind: row.blind.length }) : name;
  return html`<div class=${`lane ${isChosen ? "chosen" : ""}`}><span class="lane-name">${name}</span>
    <svg role="img" aria-label=${told} onClick=${(e) => { const box = e.currentTarget.getBoundingClientRect(); pick(begin + ((e.clientX - box.left) / box.width) * (end - begin)); }}>
      <defs><pattern id=${`hatch-${name}`} width="8" height="8" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="8" height="8" class="ground" /><rect width="3" height="8" class="stripe" /></pattern></defs>
      ${row && row.pieces.map(([from, to]) => bar(from, to, "recorded", "", 22, 14))}
      ${row && row.blind.map((each) => html`<g key=${each.from} fill=${`url("#hatch-${name}")`}>${bar(each.from, each.to, "blind", cause(each.cause), 0, 40)}</g>`)}
      ${row && [...row.events].reverse().map((event) => bar(event.began_utc_ns, event.ended_utc_ns || event.began_utc_ns, `event ${event.severity}`, `${event.rule} ${event.class_name} ${moment(event.began_utc_ns)}`, 4, 14))}
      ${head && head >= begin && head <= end && html`<line class="head" x1=${`${at(head)}%`} x2=${`${at(head)}%`} y1="0" y2="40" />`}</svg></div>`;
}

function Axis({ begin, end, span }) {
  const most = Math.max(Math.min(innerWidth / 110, 9), 3), step = STEPS.find((each) => span / each <= most) || 86400;
  const offset = new Date(begin / 1e6).getTimezoneOffset() * 60, ticks = [];
  for (let at = Math.ceil((begin / S - offset) / step) * step + offset; at < end / S; at += step) ticks.push(at * S);
  return html`<div class="lane axis" aria-hidden="true"><span class="lane-name"></span><svg>${ticks.map((at) => html`<text key=${at} x=${`${((at - begin) / (end - begin)) * 100}%`} y="14" text-anchor="middle">${moment(at, { seconds: false, date: span > 86400 })}</text>`)}</svg></div>`;
}
