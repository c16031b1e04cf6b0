// What every module uses.
import { h, render } from "./vendor/preact.js";
import { useState } from "./vendor/hooks.js";
import htm from "./vendor/htm.js";

export { render };
export { useEffect, useMemo, useRef, useState } from "./vendor/hooks.js";
export const html = htm.bind(h);

const LANGUAGES = { en: "English", de: "Deutsch" };
let texts = {};
let language = "en";

export async function loadLanguage() {
  const wanted = stored("language") || (navigator.languages || ["en"]).map((l) => l.slice(0, 2)).find((l) => LANGUAGES[l]);
  language = LANGUAGES[wanted] ? wanted : "en";
  texts = (await import(`./text/${language}.js`)).default;
  document.documentElement.lang = language;
}
// Texts of one page, which only it loads.
export async function moreTexts(page) { texts = { ...texts, ...(await import(`./text/${page}.${language}.js`)).default }; }
export const languages = LANGUAGES;
export const currentLanguage = () => language;

// The text for a key, with {name} replaced.
export function t(key, values = {}) {
  const text = texts[key] === undefined ? key : texts[key];
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

// The text for a key, or another one where no language has it.
export const orText = (key, other) => (texts[key] === undefined ? other : t(key));

export function stored(key, value) {
  try {
    if (value === undefined) return localStorage.getItem(`framewire.${key}`);
    if (value === null) localStorage.removeItem(`framewire.${key}`);
    else localStorage.setItem(`framewire.${key}`, value);
  } catch { /* private window: nothing is kept */ }
  return value;
}

export class RequestError extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

// A request to the API; the answer as an object, or a RequestError with the server's message.
export async function api(path, { method = "GET", body, headers = {} } = {}) {
  let answer;
  try {
    answer = await fetch(`api/v1/${path}`, {
      method,
      headers: { "X-Framewire": "1", ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw new RequestError(0, t("error.server"));
  }
  const text = await answer.text();
  let value = null;
  try { value = text ? JSON.parse(text) : null; } catch { value = { error: text }; }
  if (!answer.ok) throw new RequestError(answer.status, (value && value.error) || t("error.status", { status: answer.status }));
  return value;
}

// Keeps its text while somebody types.
export function Input({ value, onChange, ...rest }) {
  const [draft, setDraft] = useState(null);
  return html`<input ...${rest} value=${draft === null ? value : draft} onInput=${(e) => setDraft(e.target.value)} onChange=${(e) => { onChange(e); setDraft(null); }} onBlur=${() => setDraft(null)} />`;
}

export const icon = (name) => html`<svg class="icon" aria-hidden="true"><use href=${`static/vendor/icons.svg#${name}`} /></svg>`;

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !isFinite(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${(seconds / 3600).toFixed(seconds < 36000 ? 1 : 0)} h`;
  return `${Math.round(seconds / 86400)} d`;
}
export function number(value, digits = 0) {
  return value === null || value === undefined ? "–" : value.toLocaleString(language, { maximumFractionDigits: digits, minimumFractionDigits: digits });
}
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let index = 0;
  while (value >= 1000 && index < units.length - 1) { value /= 1000; index += 1; }
  return `${number(value, value < 10 && index ? 1 : 0)} ${units[index]}`;
}
// Where edits are kept.
export const keptHint = (kept) => kept && html`<p class=${kept.problem ? "notice" : "hint"}>${kept.problem ? t("kept.problem", { problem: kept.problem }) : kept.file ? t("kept.file", { file: kept.file }) : t("kept.nowhere")}</p>`;
let zone;
export const setTimeZone = (name) => { zone = name === "UTC" ? undefined : name; }; // no zone is set: the viewer's own
// A moment for uPlot's axes, with the clock of the site.
export const siteTime = (UPlot, seconds) => (zone ? UPlot.tzDate(new Date(seconds * 1e3), zone) : new Date(seconds * 1e3));
export function moment(utcNs, { date = false, seconds = true } = {}) {
  if (!utcNs) return "–";
  const options = { hour: "2-digit", minute: "2-digit", timeZone: zone };
  if (seconds) options.second = "2-digit";
  if (date) Object.assign(options, { day: "2-digit", month: "short" });
  return new Date(utcNs / 1e6).toLocaleString(language, options);
}
