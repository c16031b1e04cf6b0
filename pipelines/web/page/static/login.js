// The login, when the server needs one.
import { api, html, t, useState } from "./lib.js";

export function Login({ done }) {
  const [error, setError] = useState(""), [isBusy, setBusy] = useState(false);
  const send = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    setBusy(true);
    try {
      await api("login", { method: "POST", body: { name: form.get("name"), password: form.get("password") } });
      done();
    } catch (e) { setError(e.status === 401 ? t("login.wrong") : e.status === 429 ? t("login.wait") : e.message); setBusy(false); }
  };
  return html`<main class="login" id="main"><form class="panel" onSubmit=${send}>
    <h1><img src="static/icon.svg" alt="" width="28" height="28" /> Framewire</h1>
    ${error && html`<p class="notice bad" role="alert">${error}</p>`}
    <label class="field"><span>${t("login.name")}</span><input name="name" autocomplete="username" required autofocus maxlength="64" /></label>
    <label class="field"><span>${t("login.password")}</span><input name="password" type="password" autocomplete="current-password" required /></label>
    <button class="primary" disabled=${isBusy}>${t("login.go")}</button></form></main>`;
}
