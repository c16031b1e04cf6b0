// One camera: its video or its newest picture, and over it what was found on exactly that frame.
import { contained, drawBoxes, drawPlaces } from "./draw.js";
import { duration, html, t, useEffect, useRef, useState } from "./lib.js";
import { canPlay, Player } from "./player.js";

const LATE_MS = 300;
const OLD_S = 2;
const RETRY_MS = [5000, 10000, 30000];
const ANY_CODEC = { h264: "avc1.42E01E", hevc: "hvc1.1.6.L93.B0" };

// Shows pictures in `canvas` and draws over them in `overlay`. `shown` is what is on the screen.
export class Painter {
  constructor(stream, name, canvas, overlay) {
    Object.assign(this, { stream, name, canvas, overlay, shown: null, last: null, places: null, boxes: true, isDecoding: false, waiting: null });
    this.onPicture = (event) => { if (event.detail.source_id === name) this.take(event.detail); };
    this.onFrame = (event) => {
      const m = event.detail;
      if (m.source_id !== name || !this.shown) return;
      const isShown = this.shown.pts_ns === undefined ? m.frame_id === this.shown.frame_id && m.stream_epoch === this.shown.epoch : !this.isExact;
      if (isShown) this.draw();
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
    if (this.accepts && !this.accepts()) return;
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
    if (this.accepts && !this.accepts()) return; // video took over while it was decoded
    const { canvas } = this;
    if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) { canvas.width = bitmap.width; canvas.height = bitmap.height; }
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    this.shown = { epoch: picture.epoch, frame_id: picture.frame_id, captured_utc_ns: picture.captured_utc_ns, at: performance.now(), width: bitmap.width, height: bitmap.height };
    this.draw();
    if (this.onShown) this.onShown();
  }
  // Paints a frame of the video with its boxes: a <video> shows it up to two screen refreshes before its boxes can follow.
  showVideo(video, ptsNs) {
    const { canvas, overlay } = this, most = overlay.width || canvas.clientWidth;
    const width = Math.min(video.videoWidth, most), height = Math.round((video.videoHeight * width) / video.videoWidth);
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    canvas.getContext("2d").drawImage(video, 0, 0, width, height);
    this.shown = { pts_ns: ptsNs, at: performance.now(), width: video.videoWidth, height: video.videoHeight };
    this.draw();
    if (this.onShown) this.onShown();
  }
  exact() {
    const source = this.stream.source(this.name), { shown } = this;
    return shown.pts_ns === undefined ? source.frame(shown.epoch, shown.frame_id) : source.frameAt(shown.pts_ns);
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
    const taken = this.places && this.showPlaces !== false ? drawPlaces(context, area, this.places, source.analytics, { scale, names }) : [];
    if (!this.boxes) return;
    const exact = this.exact();
    this.isExact = Boolean(exact);
    if (exact) this.last = { message: exact, at: performance.now() };
    if (exact) drawBoxes(context, area, exact, { scale, names, taken });
    else if (this.last && performance.now() - this.last.at < LATE_MS) drawBoxes(context, area, this.last.message, { scale, names, taken, dashed: true });
    overlay.dataset.frame = exact ? String(exact.frame_id) : "";
  }
}

// Shows video where the browser can play it, else pictures; `how` says why.
class Screen {
  constructor(stream, name, nodes, options) {
    Object.assign(this, { stream, name, ...nodes, ...options, isSeen: false, isPlaying: false, failures: 0, how: "", player: null });
    this.painter = new Painter(stream, name, this.canvas, this.overlay);
    this.onFilm = (event) => { if (event.detail.source_id === name && this.player) this.player.take(event.detail); };
    stream.addEventListener("film", this.onFilm);
    this.painter.onShown = () => { if (!this.box.dataset.shown) { this.box.dataset.shown = "1"; this.changed(); } };
    this.painter.accepts = () => !this.isPlaying;
    this.seen = new IntersectionObserver((entries) => { this.isSeen = entries[entries.length - 1].isIntersecting; this.ask(); }, { rootMargin: "80px" });
    this.seen.observe(this.box);
    this.sized = new ResizeObserver(() => { this.painter.draw(); clearTimeout(this.resized); this.resized = setTimeout(() => this.ask(), 300); });
    this.sized.observe(this.box);
    this.onHidden = () => this.ask();
    document.addEventListener("visibilitychange", this.onHidden);
  }
  // Why there is no video, as a key of the texts; "" if there can be.
  obstacle() {
    if (this.failedFor) return this.failedFor;
    if (this.offer === undefined) return "none";
    if (this.offer) return this.offer;
    const codec = ANY_CODEC[(this.stream.source(this.name).status || {}).codec];
    if (!codec) return "none";
    return canPlay(codec) ? "" : "codec";
  }
  ask() {
    const { stream, name } = this, isSeen = this.isSeen && !document.hidden;
    const obstacle = this.obstacle(), video = isSeen && this.wantsVideo && !obstacle;
    if (video && !this.player) this.start();
    if (!video && this.player) this.stop();
    this.setHow(obstacle);
    const width = Math.round(this.box.clientWidth * Math.min(devicePixelRatio || 1, 2));
    const jpeg = this.isPlaying ? undefined : { fps: this.failedFor === "stuck" ? 2 : this.fps, w: Math.min(Math.max(width, 160), 1920) };
    stream.want(this, isSeen ? { source: name, boxes: true, jpeg, video } : null);
  }
  setHow(how) { if (how !== this.how) { this.how = how; this.changed(); } }
  start() {
    const source = this.stream.source(this.name);
    this.player = new Player(this.video, {
      onFrame: (pts) => {
        if (!this.isPlaying) { this.isPlaying = true; this.failures = 0; this.box.dataset.video = "1"; this.ask(); this.changed(); }
        this.painter.showVideo(this.video, pts);
      },
      newestPts: () => (source.newest && source.newest.pts_ns !== null && performance.now() - source.newestAt < 2000 ? source.newest.pts_ns : null),
      onFail: (reason, mayRetry, codec) => this.failed(reason, mayRetry, codec),
    });
  }
  stop() {
    if (this.player) this.player.close();
    this.player = null; this.isPlaying = false;
    delete this.box.dataset.video;
  }
  failed(reason, mayRetry, codec) {
    this.stop();
    Object.assign(this, { failedFor: reason, codec });
    if (mayRetry) this.retry = setTimeout(() => { this.failedFor = ""; this.ask(); }, RETRY_MS[Math.min(this.failures++, RETRY_MS.length - 1)]);
    this.ask();
  }
  close() {
    this.seen.disconnect(); this.sized.disconnect(); clearTimeout(this.resized); clearTimeout(this.retry);
    document.removeEventListener("visibilitychange", this.onHidden);
    this.stream.removeEventListener("film", this.onFilm);
    this.isSeen = false;
    this.stop();
    this.stream.want(this, null);
    this.painter.close();
  }
}

export function Tile({ stream, name, places, offer, fps = 10, big = false, boxes = true, showPlaces = true, wantsVideo = true, onOpen, children }) {
  const box = useRef(), canvas = useRef(), overlay = useRef(), video = useRef(), screen = useRef();
  const [age, setAge] = useState(null);
  const [, setVersion] = useState(0);
  const source = stream.source(name);
  useEffect(() => {
    const nodes = { box: box.current, canvas: canvas.current, overlay: overlay.current, video: video.current };
    const made = new Screen(stream, name, nodes, { fps, wantsVideo, offer, changed: () => setVersion((v) => v + 1) });
    screen.current = made;
    const { painter } = made;
    const timer = setInterval(() => {
      const shown = painter.shown && (painter.shown.pts_ns === undefined ? painter.shown.captured_utc_ns : (painter.exact() || {}).captured_utc_ns);
      setAge(painter.shown ? (shown ? stream.ageOf(shown) : (performance.now() - painter.shown.at) / 1000) : null);
    }, 500);
    return () => { clearInterval(timer); made.close(); };
  }, [stream, name, fps, wantsVideo]);
  useEffect(() => {
    const { painter } = screen.current;
    Object.assign(painter, { places, boxes, showPlaces });
    painter.draw();
  }, [places, boxes, showPlaces]);
  const status = source.status || {}, state = source.state;
  useEffect(() => { screen.current.offer = offer; screen.current.ask(); }, [offer, status.codec]);
  const ratio = status.width && status.height ? `${status.width} / ${status.height}` : "16 / 9";
  const isOld = age !== null && age > OLD_S && state !== "ended";
  const how = screen.current && screen.current.how, isPlaying = screen.current && screen.current.isPlaying;
  return html`<figure class=${`tile ${big ? "big" : ""}`} ref=${box} style=${{ "--ratio": ratio }} data-source=${name}>
    <video ref=${video} class=${isPlaying ? "" : "off"} muted playsinline tabindex="-1" aria-hidden="true"></video>
    <canvas class="picture" ref=${canvas} aria-hidden="true"></canvas>
    <canvas class="overlay" ref=${overlay} aria-hidden="true"></canvas>
    ${age === null && html`<p class="waiting">${state === "live" || state === "unknown" ? t("live.waiting") : t(`state.${state}`)}</p>`}
    <figcaption>
      <span class=${`dot ${state}`}></span><b>${name}</b>
      ${state !== "live" && html`<span class="chip warn">${t(`state.${state}`)}</span>`}
      ${isOld && html`<span class="chip warn">${t("live.age", { s: duration(age) })}</span>`}
      ${wantsVideo && age !== null && !isPlaying && how && html`<span class="how">${t("live.jpeg", { reason: t(`live.reason.${how}`, { codec: (screen.current.codec || status.codec || "").toUpperCase() }) })}</span>`}
    </figcaption>
    ${state !== "live" && status.reason && html`<p class="reason">${status.reason}</p>`}
    ${children}
    ${onOpen && html`<button class="cover" onClick=${onOpen} aria-label=${t("live.open", { name })}></button>`}
  </figure>`;
}
