// The shell: navigation, theme, language, and the page that the address names.
import { api, currentLanguage, html, icon, languages, loadLanguage, render, setTimeZone, stored, t, useEffect, useState } from "./lib.js";
import { Stream } from "./stream.js";
import { Live } from "./live.js";

const PAGES = { // each is loaded when it is first opened
  live: async () => Live,
  events: async () => (await import("./events.js")).Events,
  counts: async () => (await import("./counts.js")).Counts,
  timeline: async () => (await import("./timeline.js")).Timeline,
  places: async () => (await import("./places.js")).Places,
  rules: async () => (await import("./rules.js")).Rules,
  cameras: async () => (await import("./cameras.js")).Cameras,
  system: async () => (await import("./system.js")).System,
  users: async () => (await import("./users.js")).Users,
};

function route() {
  const [, name = "live", arg = ""] = location.hash.split("/");
  return { name: PAGES[name] ? name : "live", arg: decodeURIComponent(arg) };
}

function theme() {
  return stored("theme") || (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark");
}

function App({ stream, me }) {
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
  const [loaded, setLoaded] = useState({ live: Live }), [failure, setFailure] = useState("");
  useEffect(() => {
    let isOver = false;
    setFailure("");
    PAGES[at.name]().then((found) => { if (!isOver) setLoaded((had) => ({ ...had, [at.name]: found })); }, (error) => { if (!isOver) setFailure(error.message); });
    return () => { isOver = true; };
  }, [at.name]);
  const Page = loaded[at.name];
  const other = look === "dark" ? "light" : "dark";
  return html`<a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); document.getElementById("main").focus(); }}>${t("nav.skip")}</a>
    <nav aria-label=${t("nav.label")}>
      <a class="brand" href="#/live"><img src="static/icon.svg" alt="" width="26" height="26" /><span>Framewire</span></a>
      ${Object.keys(PAGES).filter((name) => name !== "users" || me.role === "admin").map((name) => html`<a key=${name} href=${`#/${name}`} aria-current=${at.name === name ? "page" : undefined}>${icon(name)}<span>${t(`nav.${name}`)}</span></a>`)}
      <span class="grow"></span>
      ${me.by_cookie && html`<button class="plain" aria-label=${t("login.out")} title=${`${me.name}: ${t("login.out")}`} onClick=${() => api("logout", { method: "POST" }).then(() => location.reload())}>${icon("leave")}</button>`}
      <select class="wide" aria-label=${t("language")} value=${currentLanguage()} onChange=${(e) => { stored("language", e.target.value); location.reload(); }}>
        ${Object.entries(languages).map(([code, name]) => html`<option key=${code} value=${code}>${name}</option>`)}
      </select>
      <button class="plain" aria-label=${t(`theme.${other}`)} title=${t(`theme.${other}`)} onClick=${() => setLook(stored("theme", other))}>${icon(other)}</button>
    </nav>
    <main id="main" tabindex="-1">
      ${!stream.isOpen && html`<p class="notice" role="status">${t("connection.lost")}</p>`}
      ${stream.isOpen && stream.engineLost && html`<p class="notice" role="status">${t("connection.engine")}</p>`}
      ${failure && html`<p class="notice bad" role="alert">${t("error.page", { error: failure })} <button onClick=${() => location.reload()}>${t("retry")}</button></p>`}
      ${Page && html`<${Page} key=${at.name} me=${me} stream=${stream} arg=${at.arg} version=${version} />`}
    </main>`;
}

await loadLanguage();
const root = document.getElementById("app");
document.documentElement.dataset.theme = theme();

async function start() {
  let me;
  try { me = await api("me"); } catch { setTimeout(start, 2000); return; }
  if (me.login) { const { Login } = await import("./login.js"); render(html`<${Login} done=${start} />`, root); return; }
  const address = new URL("api/v1/live", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.hash = "";
  api("places").then((found) => setTimeZone(found.site.timezone), () => {});
  render(html`<${App} stream=${new Stream(address.href)} me=${me} />`, root);
}
start();
