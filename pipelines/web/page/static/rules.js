// Rules: a form made from the configuration's schema, a test on the stored past, and what is held back.
import { api, duration, html, icon, Input, keptHint, moment, moreTexts, orText, t, useEffect, useState } from "./lib.js";

await moreTexts("rules");
const SPANS = { "1h": 3600, "24h": 86400, "7d": 604800 };
const SNOOZES = { "15 min": 900, "1 h": 3600, "8 h": 28800, "24 h": 86400 };
const DAYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const list = (text) => text.split(",").map((word) => word.trim()).filter(Boolean);
const without = (rule, key) => Object.fromEntries(Object.entries(rule).filter(([name]) => name !== key));
const field = (label, input, hint) => html`<label class="field"><span>${label}</span>${input}${hint && html`<small class="dim">${hint}</small>`}</label>`;

export function Rules({ stream, me }) {
  const [info, setInfo] = useState(null), [rules, setRules] = useState([]), [places, setPlaces] = useState({});
  const [at, setAt] = useState(null), [message, setMessage] = useState(null), [tested, setTested] = useState(null);
  const mayEdit = me.role !== "viewer";
  const take = (found) => { setInfo(found); setRules(found.rules); };
  const load = async () => {
    try {
      const [found, all] = [await api("rules"), await api("places")];
      take(found); setPlaces(all.places); setMessage(null);
    } catch (error) { setMessage({ bad: true, text: error.message }); }
  };
  useEffect(() => { load(); }, []);
  const isChanged = info !== null && JSON.stringify(rules) !== JSON.stringify(info.rules);
  useEffect(() => {
    const ask = (event) => { if (isChanged) event.preventDefault(); };
    addEventListener("beforeunload", ask);
    return () => removeEventListener("beforeunload", ask);
  }, [isChanged]);
  const save = async (next = rules) => {
    try {
      take(await api("rules", { method: "PUT", body: { rules: next }, headers: { "If-Match": `"${info.version}"` } }));
      setMessage({ text: t("rules.saved") });
    } catch (error) { setMessage({ bad: true, text: error.message, again: error.status === 409 }); }
  };
  const change = (index, rule) => setRules(rules.map((each, i) => (i === index ? rule : each)));
  const add = () => {
    const kind = Object.keys(info.kinds)[0];
    let number = 1;
    while (rules.some((rule) => rule.name === `rule${number}`)) number += 1;
    setRules([...rules, { name: `rule${number}`, kind }]);
    setAt(rules.length);
  };
  const test = async (which, span) => {
    setTested({ busy: true });
    const now = Date.now() * 1e6;
    try {
      const found = await api("rules/test", { method: "POST", body: { rules: which, from: Math.round(now - SPANS[span] * 1e9), to: Math.round(now) } });
      setTested({ ...found, span });
    } catch (error) { setTested({ error: error.message }); }
  };
  if (!info) return html`<header class="bar"><h1>${t("nav.rules")}</h1></header>${message && html`<p class="notice bad" role="alert">${message.text}</p>`}`;
  const rule = at === null ? null : rules[at];
  return html`<header class="bar"><h1>${t("nav.rules")}</h1><span class="grow"></span>
      ${mayEdit && html`<button onClick=${add}>+ ${t("rules.add")}</button>
      <button disabled=${!isChanged} onClick=${load}>${t("places.undo")}</button>
      <button class="primary" disabled=${!isChanged} onClick=${() => save()}>${t("places.save")}</button>`}</header>
    ${message && html`<p class=${`notice ${message.bad ? "bad" : "good"}`} role="status">${message.text} ${message.again && html`<button onClick=${load}>${t("places.reload")}</button>`}</p>`}
    <div class="split">
      <div><div class="panel">
        ${!rules.length && html`<p class="dim">${t("rules.none")}</p>`}
        ${rules.map((each, index) => html`<div key=${index} class="entry line">
          <button class="plain head" aria-expanded=${at === index} onClick=${() => { setAt(at === index ? null : index); setTested(null); if (innerWidth < 1000) setTimeout(() => { const form = document.querySelector(".split > aside"); if (form) form.scrollIntoView({ block: "start" }); }, 50); }}>
            <b>${each.name}</b><span class="dim">${orText(`kind.${each.kind}`, each.kind)}${[each.zone, each.line, ...(each.lines || [])].filter(Boolean).map((place) => ` · ${place}`).join("")}</span></button>
          <span class=${`chip ${each.severity || "info"}`}>${t(`severity.${each.severity || "info"}`)}</span>
          <label class="switch"><input type="checkbox" aria-label=${t("rules.on", { name: each.name })} disabled=${!mayEdit} checked=${each.enabled !== false}
            onChange=${(e) => change(index, e.target.checked ? without(each, "enabled") : { ...each, enabled: false })} /></label></div>`)}
        ${keptHint(info.kept)}</div>
        ${tested && html`<${Tested} found=${tested} />`}
        <${Snoozes} info=${info} stream=${stream} mayEdit=${mayEdit} done=${(snoozes) => setInfo({ ...info, snoozes })} fail=${(text) => setMessage({ bad: true, text })} /></div>
      <aside class="panel">${rule ? html`<${Form} key=${at} rule=${rule} info=${info} places=${places} sources=${[...stream.sources.keys()].sort()} mayEdit=${mayEdit} change=${(next) => change(at, next)} test=${(span) => test([rule], span)}
          remove=${() => { setRules(rules.filter((_, i) => i !== at)); setAt(null); }} />` : html`<p class="dim">${t("rules.choose")}</p>`}</aside>
    </div>`;
}

function Form({ rule, info, places, sources, change, remove, test, mayEdit }) {
  const [span, setSpan] = useState("24h");
  const form = info.kinds[rule.kind];
  const set = (key, value) => change(value === null || value === "" || (Array.isArray(value) && !value.length) ? without(rule, key) : { ...rule, [key]: value });
  const retype = (kind) => {
    const known = ["name", "sources", "enabled", "severity", "schedule", "actions", ...Object.keys(info.kinds[kind].properties)];
    change({ ...Object.fromEntries(Object.entries(rule).filter(([key]) => known.includes(key))), kind });
  };
  const own = Object.entries(places).filter(([name]) => !rule.sources || rule.sources.includes(name)).map(([, found]) => found);
  const zones = [...new Set(own.flatMap((found) => Object.keys(found.zones)))];
  const lines = [...new Set(own.flatMap((found) => Object.keys(found.lines)))];
  const ways = [...new Set(own.flatMap((found) => (found.lines[rule.line] ? [found.lines[rule.line].left_to_right || "left_to_right", found.lines[rule.line].right_to_left || "right_to_left"] : [])))];
  const pick = (key, options, needed) => html`<select value=${rule[key] || ""} onChange=${(e) => set(key, e.target.value)}><option value="">${needed ? t("rules.pick") : t("all")}</option>${[...new Set([...options, ...(rule[key] ? [rule[key]] : [])])].map((each) => html`<option key=${each}>${each}</option>`)}</select>`;
  const input = (key, schema, needed) => {
    if (key === "zone") return pick(key, zones, needed);
    if (key === "line") return pick(key, lines, needed);
    if (key === "direction") return pick(key, ways, needed);
    if (schema.type === "array") return html`<${Input} value=${(rule[key] || []).join(", ")} list=${key === "lines" ? "lines" : "classes"} placeholder=${key === "lines" ? lines.join(", ") : (schema.default || [t("places.all")]).join(", ")} onChange=${(e) => set(key, list(e.target.value))} />`;
    if (schema.type === "string") return html`<${Input} value=${rule[key] || ""} maxlength="200" onChange=${(e) => set(key, e.target.value.trim())} />`;
    return html`<${Input} type="number" min=${schema.minimum ?? schema.exclusiveMinimum} max=${schema.maximum} step=${schema.type === "integer" ? 1 : "any"} placeholder=${schema.default ?? ""} value=${rule[key] ?? ""}
      onChange=${(e) => { if (e.target.validity.valid) set(key, e.target.value === "" ? null : Number(e.target.value)); else e.target.reportValidity(); }} />`;
  };
  const plan = rule.schedule || {};
  const when = (values) => { const next = { ...plan, ...values }; set("schedule", Object.keys(next).length ? next : null); };
  const choices = (key, names) => html`<fieldset class="choices"><legend>${t(`rules.${key}`)}</legend>${names.map((name) => html`<label class="switch" key=${name}><input type="checkbox" checked=${(rule[key] || []).includes(name)}
    onChange=${(e) => set(key, e.target.checked ? [...(rule[key] || []), name] : (rule[key] || []).filter((each) => each !== name))} /> ${name}</label>`)}</fieldset>`;
  return html`<fieldset class="fields bare" disabled=${!mayEdit}>
    ${field(t("places.name"), html`<${Input} value=${rule.name} maxlength="64" onChange=${(e) => { if (e.target.value.trim()) change({ ...rule, name: e.target.value.trim() }); }} />`)}
    ${form ? field(t("rules.kind"), html`<select value=${rule.kind} onChange=${(e) => retype(e.target.value)}>${Object.keys(info.kinds).map((kind) => html`<option key=${kind} value=${kind}>${orText(`kind.${kind}`, kind)}</option>`)}</select>`, orText(`about.${rule.kind}`, form.title))
      : html`<p class="dim">${t("rules.custom", { kind: rule.kind })}</p>`}
    ${form && Object.entries(form.properties).map(([key, schema]) => { const needed = form.required.includes(key); return html`<div key=${key}>${field(`${orText(`key.${key}`, schema.description)}${needed ? " *" : ""}`, input(key, schema, needed))}</div>`; })}
    <datalist id="classes">${info.classes.map((name) => html`<option key=${name} value=${name} />`)}</datalist><datalist id="lines">${lines.map((name) => html`<option key=${name} value=${name} />`)}</datalist>
    ${field(t("events.severity"), html`<select value=${rule.severity || "info"} onChange=${(e) => set("severity", e.target.value)}>${["info", "notice", "alert"].map((each) => html`<option key=${each} value=${each}>${t(`severity.${each}`)}</option>`)}</select>`)}
    ${sources.length > 1 && choices("sources", sources)}
    ${info.actions.length > 0 && choices("actions", info.actions)}
    <fieldset class="choices"><legend>${t("rules.schedule")}</legend>
      ${DAYS.map((day, i) => html`<label class="switch" key=${day}><input type="checkbox" checked=${(plan.days || DAYS).includes(day)} onChange=${(e) => { const days = DAYS.filter((each) => (each === day ? e.target.checked : (plan.days || DAYS).includes(each))); if (days.length) when({ days }); }} /> ${t("days").split(" ")[i]}</label>`)}
      <span class="field inline"><${Input} type="time" aria-label=${t("rules.from")} value=${plan.from || "00:00"} onChange=${(e) => when({ from: e.target.value || "00:00" })} /> – <${Input} type="time" aria-label=${t("rules.to")} value=${!plan.to || plan.to === "24:00" ? "00:00" : plan.to} onChange=${(e) => when({ to: !e.target.value || e.target.value === "00:00" ? "24:00" : e.target.value })} /></span>
      ${rule.schedule && html`<button onClick=${() => set("schedule", null)}>${t("rules.always")}</button>`}</fieldset>
    ${info.stored && html`<span class="bar"><button onClick=${() => test(span)}>${icon("timeline")} ${t("rules.test")}</button><select aria-label=${t("counts.span")} value=${span} onChange=${(e) => setSpan(e.target.value)}>${Object.keys(SPANS).map((each) => html`<option key=${each}>${each}</option>`)}</select></span>`}
    <button class="danger" onClick=${remove}>${icon("delete")} ${t("places.delete")}</button></fieldset>`;
}

function Tested({ found }) {
  if (found.busy) return html`<p class="notice" role="status">${t("places.asking")}</p>`;
  if (found.error) return html`<p class="notice bad" role="alert">${found.error}</p>`;
  return html`<section class="panel past" role="status"><h2>${t("rules.tested", { span: found.span })}</h2>
    ${Object.entries(found.rules).map(([name, n]) => html`<p key=${name}><b>${t("rules.would", { n: n.would })}</b> <span class="dim">${t("rules.did", { n: n.did })}</span></p>`)}
    ${found.events.length > 0 && html`<div class="scroll" role="region" tabindex="0" aria-label=${t("nav.events")}><table><tbody>${found.events.slice(0, 50).map((event) => html`<tr key=${event.event_id}><td><time>${moment(event.began_utc_ns, { date: true })}</time></td><td>${event.source_id}</td><td>${event.class_name}</td><td class="num">${event.duration_s ? duration(event.duration_s) : ""}</td><td class="dim">${event.why.join("; ")}</td></tr>`)}</tbody></table></div>`}
    ${found.total > 50 && html`<p class="dim">${t("rules.more", { n: found.total - 50 })}</p>`}</section>`;
}

function Snoozes({ info, stream, mayEdit, done, fail }) {
  const [source, setSource] = useState("all"), [time, setTime] = useState("1 h");
  if (!info.stored) return null;
  const snooze = (name, seconds) => api("snooze", { method: "POST", body: { source: name, for_s: seconds } }).then(done, (error) => fail(error.message));
  const name = (each) => (each === "all" ? t("rules.everywhere") : each);
  return html`<section class="panel past"><h2>${t("rules.snooze")}</h2><p class="dim">${t("rules.snooze.help")}</p>
    ${info.snoozes.map((each) => html`<p key=${each.source}><b>${name(each.source)}</b> ${t("rules.until", { time: moment(each.until_utc_ns, { date: true }) })} ${mayEdit && html`<button onClick=${() => snooze(each.source, 0)}>${t("rules.end")}</button>`}</p>`)}
    ${mayEdit && html`<span class="bar"><select aria-label=${t("source")} value=${source} onChange=${(e) => setSource(e.target.value)}>${["all", ...[...stream.sources.keys()].sort()].map((each) => html`<option key=${each} value=${each}>${name(each)}</option>`)}</select>
      <select aria-label=${t("counts.span")} value=${time} onChange=${(e) => setTime(e.target.value)}>${Object.keys(SNOOZES).map((each) => html`<option key=${each}>${each}</option>`)}</select>
      <button onClick=${() => snooze(source, SNOOZES[time])}>${t("rules.snooze.go")}</button></span>`}</section>`;
}
