// Plays recordings: pieces of MP4 put together on one time line, whose gaps are jumped over; boxes come from stored paths.
import { api } from "./lib.js";
import { drawBoxes } from "./draw.js";

const S = 1e9, PIECE_S = 20, AHEAD_S = 25, KEEP_S = 30, PATHS_S = 300, RETRY_MS = 3000;
const MediaSourceClass = window.ManagedMediaSource || window.MediaSource;

export class Recording {
  // pieces(): what is recorded; onTime(utc_ns); onState("idle" | "loading" | "playing" | "paused" | "ended", error).
  constructor(video, overlay, source, { pieces, onTime, onState }) {
    Object.assign(this, { video, overlay, source, pieces, onTime, onState, turn: 0, paths: new Map(), isClosed: false });
    video.disableRemotePlayback = true;
    this.timer = setInterval(() => this.steer(), 250);
    const seen = () => { if (this.isClosed) return; this.show(); this.waitFrame(seen); };
    this.waitFrame(seen);
  }
  waitFrame(seen) {
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback((_, frame) => { this.mediaTime = frame.mediaTime; seen(); });
    else setTimeout(() => { this.mediaTime = this.video.currentTime; seen(); }, 100);
  }
  async play(at, rate) {
    const turn = (this.turn += 1), { video } = this;
    this.release();
    Object.assign(this, { base: null, cursor: at, wanted: at, isLoading: false, isPaused: false, buffer: null, codec: "" });
    this.onState("loading"); this.onTime(at);
    const media = (this.media = new MediaSourceClass());
    this.url = URL.createObjectURL(media);
    video.src = this.url;
    video.defaultPlaybackRate = rate; video.playbackRate = rate;
    await new Promise((done) => media.addEventListener("sourceopen", done, { once: true }));
    if (turn === this.turn) this.fill();
  }
  resume(at, rate) {
    if (!this.media) { this.play(at, rate); return; }
    this.isPaused = false;
    this.setRate(rate);
    this.video.play().then(() => this.onState("playing"), () => {});
  }
  pause() { this.isPaused = true; this.video.pause(); this.onState("paused"); }
  setRate(rate) { this.video.defaultPlaybackRate = rate; this.video.playbackRate = rate; }
  // Fetch the next piece if little is left to play.
  async fill() {
    const turn = this.turn, { video } = this;
    if (this.isLoading || !this.media || this.media.readyState !== "open" || performance.now() < (this.notBefore || 0)) return;
    if (this.base !== null && this.cursor - this.base > (video.currentTime + AHEAD_S * Math.max(video.playbackRate, 1)) * S) return;
    this.isLoading = true;
    try {
      const to = this.cursor + PIECE_S * S;
      const answer = await fetch(`api/v1/recordings/${encodeURIComponent(this.source)}/play?from=${Math.round(this.cursor)}&to=${Math.round(to)}`, { headers: { "X-Framewire": "1" } });
      if (turn !== this.turn) return;
      if (answer.ok) {
        const data = await answer.arrayBuffer();
        if (turn === this.turn) await this.append(data, Number(answer.headers.get("X-Framewire-Begin")), answer.headers.get("Content-Type"));
        if (turn === this.turn) this.cursor = to;
      } else if (answer.status === 404) this.skip();
      else { this.onState("ended", (await answer.json().catch(() => ({}))).error); this.notBefore = performance.now() + RETRY_MS; }
    } catch (error) {
      if (turn === this.turn) { this.notBefore = performance.now() + RETRY_MS; if (error.name !== "TypeError") this.onState("ended", error.message); }
    } finally { if (turn === this.turn) this.isLoading = false; }
  }
  skip() { // nothing here: on to what is recorded next, or wait for it
    const next = this.pieces().map(([from]) => from).find((from) => from > this.cursor);
    if (next === undefined) { this.notBefore = performance.now() + RETRY_MS; if (this.base === null) this.onState("ended"); } else { if (this.base === null) this.wanted = next; this.cursor = next; }
  }
  async append(data, begin, type) {
    if (this.base === null) this.base = begin;
    if (!this.buffer) { if (!MediaSourceClass.isTypeSupported(type)) throw new Error(type); this.buffer = this.media.addSourceBuffer(type); } else if (type !== this.codec && this.buffer.changeType) this.buffer.changeType(type);
    this.codec = type;
    const { buffer, video } = this;
    const done = () => new Promise((yes, no) => { buffer.addEventListener("updateend", yes, { once: true }); buffer.addEventListener("error", () => no(new Error("MSE")), { once: true }); });
    if (buffer.buffered.length && video.currentTime - buffer.buffered.start(0) > 2 * KEEP_S) { buffer.remove(0, video.currentTime - KEEP_S); await done(); }
    buffer.timestampOffset = (begin - this.base) / S;
    buffer.appendBuffer(data);
    await done();
    if (this.wanted !== null) {
      video.currentTime = Math.max((this.wanted - this.base) / S, buffer.buffered.length ? buffer.buffered.start(0) : 0);
      this.wanted = null;
    }
    if (!this.isPaused) video.play().then(() => this.onState("playing"), () => {});
  }
  steer() { // over gaps
    const { video, buffer } = this;
    if (this.isClosed || !this.media) return;
    this.fill();
    if (!buffer || this.isPaused || this.wanted !== null) return;
    let ranges;
    try { ranges = buffer.buffered; } catch { return; }
    for (let i = 0; i < ranges.length; i += 1) if (ranges.start(i) > video.currentTime && (i === 0 || video.currentTime >= ranges.end(i - 1) - 0.2)) { video.currentTime = ranges.start(i) + 0.01; return; }
  }
  show() {
    if (this.base === null || this.base === undefined || this.wanted !== null) return;
    const at = this.base + this.mediaTime * S;
    this.onTime(at);
    const { video, overlay } = this, ratio = devicePixelRatio || 1, box = overlay.getBoundingClientRect();
    const width = Math.round(box.width * ratio), height = Math.round(box.height * ratio);
    if (overlay.width !== width || overlay.height !== height) { overlay.width = width; overlay.height = height; }
    const context = overlay.getContext("2d"), scale = Math.min(width / video.videoWidth, height / video.videoHeight) || 1;
    context.clearRect(0, 0, width, height);
    const area = { width: video.videoWidth * scale, height: video.videoHeight * scale };
    Object.assign(area, { x: (width - area.width) / 2, y: (height - area.height) / 2 });
    drawBoxes(context, area, { width: 1, height: 1, objects: this.objects(at) }, { scale: ratio });
  }
  objects(at) {
    const key = Math.floor(at / S / PATHS_S);
    if (!this.paths.has(key)) {
      this.paths.set(key, []);
      if (this.paths.size > 4) this.paths.delete(this.paths.keys().next().value);
      api(`tracks?source=${encodeURIComponent(this.source)}&from=${key * PATHS_S * S}&to=${(key + 1) * PATHS_S * S}`).then((found) => this.paths.set(key, found.tracks), () => {});
    }
    return this.paths.get(key).map((track) => boxOf(track, (at - track.began_utc_ns) / S)).filter(Boolean);
  }
  release() { if (this.url) { URL.revokeObjectURL(this.url); this.url = null; } this.media = null; this.buffer = null; }
  close() {
    this.isClosed = true; this.turn += 1;
    clearInterval(this.timer);
    this.release();
    this.video.removeAttribute("src");
    this.video.load();
  }
}

function boxOf({ track_id, class_name, points }, at) {
  if (!points.length || at < points[0][0] - 0.05 || at > points[points.length - 1][0] + 0.05) return null;
  let low = 0, high = points.length - 1;
  while (low < high) { const middle = (low + high + 1) >> 1; if (points[middle][0] <= at) low = middle; else high = middle - 1; }
  const from = points[low], to = points[Math.min(low + 1, points.length - 1)];
  if (from[4] === 0) return null;
  const share = to[0] > from[0] && to[4] > 0 ? Math.min(Math.max((at - from[0]) / (to[0] - from[0]), 0), 1) : 0;
  const [x, y, w, h] = [1, 2, 3, 4].map((i) => from[i] + share * (to[i] - from[i]));
  return { track_id, class_name, xyxy: [x - w / 2, y - h, x + w / 2, y] };
}
