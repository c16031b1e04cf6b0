// Plays a camera's own video close to live, and tells which frame is on the screen.
const KEEP_S = 10, JUMP_S = 2.5, FAST_S = 0.15, SLOW_S = 0.03, MARGIN_S = 0.06, MOST_WAIT_S = 1.0, STUCK_MS = 3000;
const LATE_S = 0.8, LATE_MS = 4000; // so long behind by so much although it plays faster: the device cannot, so it jumps
const MediaSourceClass = window.ManagedMediaSource || window.MediaSource;

export const canPlay = (codec) => Boolean(MediaSourceClass && MediaSourceClass.isTypeSupported(`video/mp4; codecs="${codec}"`));

// onFrame(pts_ns) for each frame that is shown; onFail(reason, mayRetry).
export class Player {
  constructor(video, { onFrame, onFail, newestPts }) {
    Object.assign(this, { video, onFrame, onFail, newestPts, queue: [], codec: "", t0: null, jumps: 0, lateAt: 0, isClosed: false });
    video.muted = true; video.playsInline = true; video.disableRemotePlayback = true;
    this.timer = setInterval(() => this.steer(), 200);
    this.watchFrames();
  }
  take(film) {
    if (this.isClosed) return;
    if (film.init) {
      if (!canPlay(film.codec)) { this.fail("codec", false, film.codec); return; }
      if (film.codec !== this.codec || film.t0 !== this.t0 || film.start !== this.start) this.restart(film);
      this.queue.push(film.data);
    } else if (this.t0 !== null) this.queue.push(film.data);
    this.feed();
  }
  restart(film) {
    this.release();
    Object.assign(this, { codec: film.codec, t0: film.t0, start: film.start, queue: [], isStarted: false, progressAt: performance.now(), lastTime: -1 });
    const media = new MediaSourceClass();
    this.media = media;
    this.url = URL.createObjectURL(media);
    media.addEventListener("sourceopen", () => {
      if (this.media !== media || this.isClosed) return;
      try {
        this.buffer = media.addSourceBuffer(`video/mp4; codecs="${film.codec}"`);
        this.buffer.addEventListener("updateend", () => this.feed());
        this.feed();
      } catch { this.fail("stuck", true); }
    }, { once: true });
    this.video.src = this.url;
    this.video.onerror = () => { if (this.media === media) this.fail("stuck", true); };
  }
  feed() {
    const { buffer, queue, video } = this;
    if (!buffer || buffer.updating || this.isClosed) return;
    try {
      if (!this.isStarted && buffer.buffered.length) {
        this.isStarted = true;
        video.currentTime = Math.max(buffer.buffered.end(buffer.buffered.length - 1) - 0.1, buffer.buffered.start(0));
        video.play().catch(() => {});
      }
      if (buffer.buffered.length && video.currentTime - buffer.buffered.start(0) > KEEP_S + 5) { buffer.remove(0, video.currentTime - KEEP_S); return; }
      if (!queue.length) return;
      const size = queue.reduce((sum, part) => sum + part.byteLength, 0), all = new Uint8Array(size);
      let at = 0;
      for (const part of queue) { all.set(part, at); at += part.byteLength; }
      this.queue = [];
      buffer.appendBuffer(all);
    } catch { this.fail("stuck", true); }
  }
  // Stay close behind the newest picture whose boxes are known; catch up by rate, then by a jump.
  steer() {
    const { buffer, video } = this;
    if (!buffer || !this.isStarted || this.isClosed) return;
    let ranges;
    try { ranges = buffer.buffered; } catch { return; }
    if (!ranges.length) return;
    const end = ranges.end(ranges.length - 1), now = video.currentTime;
    for (let i = 0; i < ranges.length; i += 1) { // a gap in the stream
      if (ranges.start(i) > now && (i === 0 || now >= ranges.end(i - 1) - 0.05)) { video.currentTime = ranges.start(i); return; }
    }
    const known = this.newestPts();
    const wanted = known === null ? end : Math.max(Math.min((known - this.t0) / 1e9, end), end - MOST_WAIT_S);
    const behind = wanted - MARGIN_S - now;
    if (behind <= LATE_S) this.lateAt = 0;
    else if (!this.lateAt) this.lateAt = performance.now();
    if (behind > JUMP_S || (this.lateAt && performance.now() - this.lateAt > LATE_MS)) { video.currentTime = end - 0.15; this.jumps += 1; this.lateAt = 0; }
    video.playbackRate = behind > FAST_S ? 1 + Math.min(Math.max(behind / 3, 0.05), 0.5) : behind < -SLOW_S ? 0.9 : 1;
    if (video.paused) video.play().catch(() => {});
    const isSilent = known === null && end - now < FAST_S; // the camera sends nothing: pictures would not come either
    if (now !== this.lastTime || isSilent) { this.lastTime = now; this.progressAt = performance.now(); }
    else if (performance.now() - this.progressAt > STUCK_MS && !document.hidden) this.fail("stuck", true);
  }
  watchFrames() {
    const { video } = this;
    if (video.requestVideoFrameCallback) {
      const seen = (_, frame) => {
        if (this.isClosed) return;
        if (this.t0 !== null) this.onFrame(this.t0 + Math.round(frame.mediaTime * 1e6) * 1e3);
        video.requestVideoFrameCallback(seen);
      };
      video.requestVideoFrameCallback(seen);
    } else {
      video.ontimeupdate = () => { if (this.t0 !== null) this.onFrame(this.t0 + video.currentTime * 1e9); };
    }
  }
  fail(reason, mayRetry, codec) {
    if (this.isClosed) return;
    this.close();
    this.onFail(reason, mayRetry, codec);
  }
  release() {
    this.buffer = null; this.media = null;
    if (this.url) { URL.revokeObjectURL(this.url); this.url = null; }
  }
  close() {
    this.isClosed = true;
    clearInterval(this.timer);
    this.release();
    this.video.onerror = null;
    this.video.removeAttribute("src");
    this.video.load();
  }
}
