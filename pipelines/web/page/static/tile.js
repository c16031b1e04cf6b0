// One camera: its newest picture, and over it what was found on exactly that frame.
import { contained, drawBoxes, drawPlaces } from "./draw.js";
import { duration, html, t, useEffect, useRef, useState } from "./lib.js";

const LATE_MS = 300;
const OLD_S = 2;

// Shows pictures in `canvas` and draws over them in `overlay`. `shown` is what is on the screen.
export class Painter {
  constructor(stream, name, canvas, overlay) {
    Object.assign(this, { stream, name, canvas, overlay, shown: null, last: null, places: null, boxes: true, isDecoding: false, waiting: null });
    this.onPicture = (event) => { if (event.detail.source_id === name) this.take(event.detail); };
    this.onFrame = (event) => {
      const m = event.detail;
      if (m.source_id === name && this.shown && m.frame_id === this.shown.frame_id && m.stream_epoch === this.shown.epoch) this.draw();
    };
    this.onAnalytics = (event) => { if (event.detail.source_id === name) this.draw(); };
    stream.addEventListener("picture", this.onPicture);
    stream.addEventListener("frame", this.onFrame);
    stream.addEventListener("analytics", this.onAnalytics);
  }
  close() {
    this.stream.removeEventListener("picture", this.onPicture);
    this.stream.removeEventListener("frame", this.onFrame);
    this.stream.removeEventListener("analytics", this.onAnalytics);
    this.isClosed = true;
  }
  async take(picture) {
    this.waiting = picture; // only the newest: a slow device skips
    if (this.isDecoding) return;
    this.isDecoding = true;
    while (this.waiting && !this.isClosed) {
      const next = this.waiting;
      this.waiting = null;
      try {
        const bitmap = await createImageBitmap(new Blob([next.jpeg], { type: "image/jpeg" }));
        this.show(bitmap, next);
        bitmap.close();
      } catch { /* a damaged picture: the next one comes */ }
    }
    this.isDecoding = false;
  }
  show(bitmap, picture) {
    const { canvas } = this;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) { canvas.width = bitmap.width; canvas.height = bitmap.height; }
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    this.shown = { epoch: picture.epoch, frame_id: picture.frame_id, captured_utc_ns: picture.captured_utc_ns, at: performance.now(), width: bitmap.width, height: bitmap.height };
    this.draw();
    if (this.onShown) this.onShown();
  }
  draw() {
    const { overlay, shown } = this;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const width = Math.round(overlay.clientWidth * ratio), height = Math.round(overlay.clientHeight * ratio);
    if (!width || !height) return;
    if (overlay.width !== width || overlay.height !== height) { overlay.width = width; overlay.height = height; }
    const context = overlay.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (!shown) return;
    const source = this.stream.source(this.name);
    const area = contained(shown.width, shown.height, width, height);
    const scale = ratio * Math.min(Math.max(Math.sqrt(area.width / ratio / 640), 0.72), 1.25);
    const names = area.width / ratio > 260;
    if (this.places && this.showPlaces !== false) drawPlaces(context, area, this.places, source.analytics, { scale, names });
    if (!this.boxes) return;
    const exact = source.frame(shown.epoch, shown.frame_id);
    if (exact) this.last = { message: exact, at: performance.now() };
    if (exact) drawBoxes(context, area, exact, { scale, names });
    else if (this.last && performance.now() - this.last.at < LATE_MS) drawBoxes(context, area, this.last.message, { scale, names, dashed: true });
    overlay.dataset.frame = exact ? String(exact.frame_id) : "";
  }
}

export function Tile({ stream, name, places, fps = 10, big = false, boxes = true, showPlaces = true, onOpen }) {
  const box = useRef(), canvas = useRef(), overlay = useRef(), painter = useRef();
  const [age, setAge] = useState(null);
  const source = stream.source(name);
  useEffect(() => {
    const paint = new Painter(stream, name, canvas.current, overlay.current);
    painter.current = paint;
    let isSeen = false;
    const ask = () => {
      const width = Math.round(box.current.clientWidth * Math.min(devicePixelRatio || 1, 2));
      stream.want(paint, isSeen ? { source: name, boxes: true, jpeg: { fps, w: Math.min(Math.max(width, 160), 1920) } } : null);
    };
    const seen = new IntersectionObserver((entries) => { isSeen = entries[entries.length - 1].isIntersecting; ask(); }, { rootMargin: "80px" });
    seen.observe(box.current);
    let resized;
    const sized = new ResizeObserver(() => { paint.draw(); clearTimeout(resized); resized = setTimeout(ask, 300); });
    sized.observe(box.current);
    const timer = setInterval(() => setAge(paint.shown ? stream.ageOf(paint.shown.captured_utc_ns) : null), 500);
    paint.onShown = () => { if (!box.current.dataset.shown) { box.current.dataset.shown = "1"; setAge(0); } };
    return () => { seen.disconnect(); sized.disconnect(); clearTimeout(resized); clearInterval(timer); stream.want(paint, null); paint.close(); };
  }, [stream, name, fps]);
  useEffect(() => {
    Object.assign(painter.current, { places, boxes, showPlaces });
    painter.current.draw();
  }, [places, boxes, showPlaces]);
  const status = source.status || {}, state = source.state;
  const ratio = status.width && status.height ? `${status.width} / ${status.height}` : "16 / 9";
  const isOld = age !== null && age > OLD_S && state !== "ended";
  return html`<figure class=${`tile ${big ? "big" : ""}`} ref=${box} style=${{ "--ratio": ratio }} data-source=${name}>
    <canvas class="picture" ref=${canvas} aria-hidden="true"></canvas>
    <canvas class="overlay" ref=${overlay} aria-hidden="true"></canvas>
    ${age === null && html`<p class="waiting">${state === "live" || state === "unknown" ? t("live.waiting") : t(`state.${state}`)}</p>`}
    <figcaption>
      <span class=${`dot ${state}`}></span><b>${name}</b>
      ${state !== "live" && html`<span class="chip warn">${t(`state.${state}`)}</span>`}
      ${isOld && html`<span class="chip warn">${t("live.age", { s: duration(age) })}</span>`}
    </figcaption>
    ${state !== "live" && status.reason && html`<p class="reason">${status.reason}</p>`}
    ${onOpen && html`<button class="cover" onClick=${onOpen} aria-label=${t("live.open", { name })}></button>`}
  </figure>`;
}
