// The ground plane of a zone: four points of the picture, their distances in metres, and how sure that is.
import { html, Input, number, t, useState } from "./lib.js";

const SIDES = [[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]], CHECK = [1, 3];
const length = ([ax, ay], [bx, by]) => Math.hypot(bx - ax, by - ay);
const round = (value) => Math.round(value * 1000) / 1000;

// The four corners in metres from four sides and a diagonal; null: there is no such quadrilateral.
export function corners([ab, bc, cd, da, ac]) {
  const third = (side, far) => { const x = (ac * ac + side * side - far * far) / (2 * ac), square = side * side - x * x; return square > 0 ? [x, Math.sqrt(square)] : null; };
  const b = third(ab, bc), d = third(da, cd);
  return ac > 0 && b && d ? [[0, 0], [b[0], -b[1]], [ac, 0], [d[0], d[1]]].map((p) => p.map(round)) : null;
}

// The homography from four points to four others; null: three are on one line.
export function plane(points, metres) {
  const rows = points.flatMap(([x, y], i) => { const [u, v] = metres[i]; return [[x, y, 1, 0, 0, 0, -u * x, -u * y, u], [0, 0, 0, x, y, 1, -v * x, -v * y, v]]; });
  for (let at = 0; at < 8; at += 1) {
    const best = rows.slice(at).reduce((top, row, i) => (Math.abs(row[at]) > Math.abs(rows[top][at]) ? at + i : top), at);
    [rows[at], rows[best]] = [rows[best], rows[at]];
    if (Math.abs(rows[at][at]) < 1e-12) return null;
    for (let other = 0; other < 8; other += 1) {
      if (other === at) continue;
      const share = rows[other][at] / rows[at][at];
      for (let i = at; i < 9; i += 1) rows[other][i] -= share * rows[at][i];
    }
  }
  const m = rows.map((row, i) => row[8] / row[i]);
  return ([x, y]) => { const w = m[6] * x + m[7] * y + 1; return [(m[0] * x + m[1] * y + m[2]) / w, (m[3] * x + m[4] * y + m[5]) / w]; };
}

// By how much distances in the middle change, as a share, if one point is wrong by one pixel.
export function doubt(points, metres, size) {
  const step = 0.01, middle = [0, 1].map((i) => points.reduce((sum, p) => sum + p[i], 0) / points.length);
  const measured = (made) => [[step, 0], [0, step]].map(([dx, dy]) => length(made([middle[0] - dx, middle[1] - dy]), made([middle[0] + dx, middle[1] + dy])));
  const first = plane(points, metres);
  if (!first) return null;
  const before = measured(first);
  let worst = 0;
  points.forEach((_, index) => [[1 / size[0], 0], [-1 / size[0], 0], [0, 1 / size[1]], [0, -1 / size[1]]].forEach(([dx, dy]) => {
    const other = plane(points.map((p, i) => (i === index ? [p[0] + dx, p[1] + dy] : p)), metres);
    if (other) measured(other).forEach((value, i) => { worst = Math.max(worst, Math.abs(value / before[i] - 1)); });
  }));
  return worst;
}

export function Ground({ zone, size, change }) {
  const { ground } = zone, known = ground && ground.metres.length === 4;
  const [check, setCheck] = useState("");
  const [lengths, setLengths] = useState(known ? SIDES.map(([a, b]) => round(length(ground.metres[a], ground.metres[b]))) : [10, 10, 10, 10, 14.142]);
  if (!ground) return html`<button onClick=${() => {
    const xs = zone.points.map((p) => p[0]), ys = zone.points.map((p) => p[1]), [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const inset = (low, high, share) => Math.round((low + (high - low) * share) * 1e5) / 1e5;
    change({ ground: { points: [[0.1, 0.9], [0.9, 0.9], [0.9, 0.1], [0.1, 0.1]].map(([x, y]) => [inset(left, right, x), inset(top, bottom, y)]), metres: corners(lengths) } });
  }}>${t("ground.add")}</button>`;
  const set = (index, text) => {
    const next = lengths.map((value, i) => (i === index ? Number(text) : value)), made = next.every((value) => value > 0 && value < 10000) ? corners(next) : null;
    setLengths(next);
    if (made) change({ ground: { ...ground, metres: made } });
  };
  const isBad = known && !corners(lengths), made = known ? plane(ground.points, ground.metres) : null, share = made && doubt(ground.points, ground.metres, size);
  const field = (label, value, on) => html`<label class="field"><span>${label}</span><${Input} type="number" min="0.01" max="9999" step="any" value=${value} onChange=${(e) => on(e.target.value)} /></label>`;
  const percent = (value) => number(100 * value, value < 0.1 ? 1 : 0), other = known ? length(ground.metres[1], ground.metres[3]) : 0;
  return html`<fieldset class="choices"><legend>${t("ground.add")}</legend>${known ? html`<p class="hint">${t("ground.help")}</p>
      <div class="two">${SIDES.map(([a, b], i) => html`<div key=${i}>${field(t("ground.length", { a: a + 1, b: b + 1 }), lengths[i], (text) => set(i, text))}</div>`)}
      ${field(t("ground.check", { a: CHECK[0] + 1, b: CHECK[1] + 1 }), check, setCheck)}</div>
      ${isBad ? html`<p class="notice bad" role="alert">${t("ground.bad")}</p>` : !made || share === null || !isFinite(share) ? html`<p class="notice bad" role="alert">${t("ground.flat")}</p>` : html`<p class=${share > 0.05 ? "notice" : "hint"}>${t("ground.error", { share: percent(share) })}</p>`}
      ${Number(check) > 0 && !isBad && html`<p class=${Math.abs(other / check - 1) > 0.05 ? "notice" : "hint"}>${t("ground.miss", { a: CHECK[0] + 1, b: CHECK[1] + 1, metres: number(other, 2), share: percent(Math.abs(other / check - 1)) })}</p>`}` : html`<p class="hint">${ground.points.length} ↔ ${ground.metres.length}</p>`}
    <button onClick=${() => change({ ground: undefined })}>${t("ground.remove")}</button></fieldset>`;
}
