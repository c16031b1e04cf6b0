// Users, tokens of machines, and the audit.
import { api, html, icon, moment, t, useEffect, useState } from "./lib.js";

const ROLES = ["viewer", "operator", "admin"];
const seen = (account) => (account.sources === null ? t("all") : account.sources.join(", ") || "–");

export function Users({ stream }) {
  const [all, setAll] = useState(null), [audit, setAudit] = useState(null), [message, setMessage] = useState(null), [token, setToken] = useState(null);
  const history = () => api("audit").then(setAudit, (error) => setMessage({ bad: true, text: error.message }));
  const load = () => api("users").then(setAll, (error) => setMessage({ bad: true, text: error.message }));
  useEffect(() => { load(); history(); }, []);
  const act = async (path, method, body, text) => {
    try {
      const found = await api(path, { method, body });
      if (found.users) setAll(found); else { setToken(found); await load(); }
      setMessage(text ? { text } : null); history();
      return true;
    } catch (error) { setMessage({ bad: true, text: error.message }); return false; }
  };
  const more = () => api(`audit?before=${audit.entries[audit.entries.length - 1].utc_ns}`).then((next) => setAudit({ ...next, entries: [...audit.entries, ...next.entries] }));
  const sources = [...stream.sources.keys()].sort();
  const row = (kind, account) => html`<tr key=${kind + account.name}><td><b>${account.name}</b></td>
    <td>${kind === "users" ? html`<select aria-label=${t("users.role.of", { name: account.name })} value=${account.role} onChange=${(e) => act(`users/${encodeURIComponent(account.name)}`, "PUT", { role: e.target.value, sources: account.sources }, t("users.changed", { name: account.name })).then((ok) => { if (!ok) load(); })}>${ROLES.map((role) => html`<option key=${role} value=${role}>${t(`role.${role}`)}</option>`)}</select>` : t(`role.${account.role}`)}</td>
    <td>${seen(account)}</td><td class="num"><button class="danger" aria-label=${t("users.remove", { name: account.name })} onClick=${() => { if (confirm(t("users.sure", { name: account.name }))) act(`${kind}/${encodeURIComponent(account.name)}`, "DELETE"); }}>${icon("delete")}</button></td></tr>`;
  return html`<header class="bar"><h1>${t("nav.users")}</h1></header>
    ${message && html`<p class=${`notice ${message.bad ? "bad" : "good"}`} role="status">${message.text}</p>`}
    ${token && html`<p class="notice good" role="status">${t("users.token", { name: token.name })} <code class="break">${token.token}</code> <button onClick=${() => navigator.clipboard && navigator.clipboard.writeText(token.token)}>${t("users.copy")}</button></p>`}
    ${all && !all.login && html`<p class="notice">${t("users.none")}</p>`}
    ${all && all.login && ["users", "tokens"].map((kind) => html`<section class="past" key=${kind}><h2>${t(kind === "users" ? "users.people" : "users.machines")}</h2>
      ${all[kind].length > 0 && html`<div class="scroll" role="region" tabindex="0" aria-label=${t(kind === "users" ? "users.people" : "users.machines")}><table><thead><tr><th>${t("login.name")}</th><th>${t("users.role")}</th><th>${t("users.sources")}</th><td></td></tr></thead><tbody>${all[kind].map((account) => row(kind, account))}</tbody></table></div>`}
      <${Add} kind=${kind} sources=${sources} add=${(body) => act(kind, "POST", body, kind === "users" ? t("users.added", { name: body.name }) : "")} /></section>`)}
    <section class="past"><h2>${t("users.audit")}</h2>${audit && !audit.stored && html`<p class="hint">${t("users.unstored")}</p>`}
      ${audit && !audit.entries.length && html`<p class="dim">${t("users.nothing")}</p>`}
      ${audit && audit.entries.length > 0 && html`<div class="scroll" role="region" tabindex="0" aria-label=${t("users.audit")}><table><thead><tr><th>${t("users.when")}</th><th>${t("login.name")}</th><th>${t("users.did")}</th><th>${t("users.values")}</th></tr></thead>
        <tbody>${audit.entries.map((entry) => html`<tr key=${entry.utc_ns}><td><time>${moment(entry.utc_ns, { date: true })}</time></td><td>${entry.name}<br /><small class="dim">${entry.client}</small></td><td>${entry.action} ${entry.what}</td><td>${entry.detail && html`<details><summary>${t("users.show")}</summary><pre>${JSON.stringify(entry.detail, null, 1)}</pre></details>`}</td></tr>`)}</tbody></table></div>
        ${audit.entries.length % 100 === 0 && html`<p><button onClick=${more}>${t("events.more")}</button></p>`}`}</section>`;
}

function Add({ kind, sources, add }) {
  const empty = { name: "", password: "", role: "viewer", sources: null };
  const [made, setMade] = useState(empty);
  const send = async (event) => {
    event.preventDefault();
    const { password, ...rest } = made;
    if (await add(kind === "users" ? made : rest)) setMade(empty);
  };
  const field = (label, input) => html`<label class="field"><span>${label}</span>${input}</label>`;
  return html`<form class="inline" onSubmit=${send}>
    ${field(t("login.name"), html`<input required maxlength="64" pattern="[A-Za-z0-9._@\\-]+" autocomplete="off" value=${made.name} onInput=${(e) => setMade({ ...made, name: e.target.value })} />`)}
    ${kind === "users" && field(t("users.password"), html`<input required type="password" minlength="12" autocomplete="new-password" value=${made.password} onInput=${(e) => setMade({ ...made, password: e.target.value })} />`)}
    ${field(t("users.role"), html`<select value=${made.role} onChange=${(e) => setMade({ ...made, role: e.target.value })}>${ROLES.map((role) => html`<option key=${role} value=${role}>${t(`role.${role}`)}</option>`)}</select>`)}
    <fieldset class="choices"><legend>${t("users.sources")}</legend>${[null, ...sources].map((name) => html`<label class="switch" key=${name || ""}><input type="checkbox" checked=${name === null ? made.sources === null : Boolean(made.sources && made.sources.includes(name))}
      onChange=${(e) => setMade({ ...made, sources: name === null ? (e.target.checked ? null : []) : e.target.checked ? [...(made.sources || []), name] : (made.sources || []).filter((each) => each !== name) })} /> ${name === null ? t("all") : name}</label>`)}</fieldset>
    <button class="primary">${t(kind === "users" ? "users.add" : "users.addtoken")}</button></form>`;
}
