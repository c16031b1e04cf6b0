// The shell: navigation, theme, language, and the page that the address names.
import { currentLanguage, html, icon, languages, loadLanguage, render, stored, t, useEffect, useState } from "./lib.js";
import { Stream } from "./stream.js";
import { Live } from "./live.js";

const PAGES = { live: Live };

function route() {
  const [, name = "live", arg = ""] = location.hash.split("/");
  return { name: PAGES[name] ? name : "live", arg: decodeURIComponent(arg) };
}

function theme() {
  return stored("theme") || (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
}

function App({ stream }) {
  const [at, setAt] = useState(route());
  const [look, setLook] = useState(theme());
  const [version, setVersion] = useState(0);
  useEffect(() => {
    const moved = () => setAt(route());
    addEventListener("hashchange", moved);
    const changed = () => setVersion((v) => v + 1);
    for (const type of ["sources", "connection", "stats", "analytics"]) stream.addEventListener(type, changed);
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => { document.documentElement.dataset.theme = look; }, [look]);
  const Page = PAGES[at.name];
  const other = look === "dark" ? "light" : "dark";
  return html`<a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); document.getElementById("main").focus(); }}>${t("nav.skip")}</a>
    <nav aria-label=${t("nav.label")}>
      <a class="brand" href="#/live"><img src="static/icon.svg" alt="" width="26" height="26" /><span>Framewire</span></a>
      ${Object.keys(PAGES).map((name) => html`<a key=${name} href=${`#/${name}`} aria-current=${at.name === name ? "page" : undefined}>${icon(name)}<span>${t(`nav.${name}`)}</span></a>`)}
      <span class="grow"></span>
      <select class="wide" aria-label=${t("language")} value=${currentLanguage()} onChange=${(e) => { stored("language", e.target.value); location.reload(); }}>
        ${Object.entries(languages).map(([code, name]) => html`<option key=${code} value=${code}>${name}</option>`)}
      </select>
      <button class="plain" aria-label=${t(`theme.${other}`)} title=${t(`theme.${other}`)} onClick=${() => setLook(stored("theme", other))}>${icon(other)}</button>
    </nav>
    <main id="main" tabindex="-1">
      ${!stream.isOpen && html`<p class="notice" role="status">${t("connection.lost")}</p>`}
      ${stream.isOpen && stream.engineLost && html`<p class="notice" role="status">${t("connection.engine")}</p>`}
      <${Page} key=${at.name} stream=${stream} arg=${at.arg} version=${version} />
    </main>`;
}

await loadLanguage();
const address = new URL("api/v1/live", location.href);
address.protocol = address.protocol.replace("http", "ws");
address.hash = "";
render(html`<${App} stream=${new Stream(address.href)} />`, document.getElementById("app"));
