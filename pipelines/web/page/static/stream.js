// One WebSocket: what the tiles watch, and what has arrived for them.
const RETRY_MS = [300, 600, 1200, 2000];
const HEADER_BYTES = 24;
const KEPT_FRAMES = 400;
const SILENT_MS = 8000;
const JPEG = 1, INIT = 2, FRAGMENT = 3;
const SAME_NS = 600000; // half a millisecond, and what rounding adds

class Source {
  constructor(name) {
    this.name = name;
    this.status = null; this.stats = null; this.analytics = null;
    this.frames = new Map(); // "epoch:frame_id" → frame message, oldest first
    this.newest = null;
    this.ended = false;
  }
  addFrame(message) {
    if (this.newest && this.newest.stream_epoch !== message.stream_epoch) this.frames.clear(); // stream time starts over
    this.newest = message; this.newestAt = performance.now();
    this.frames.set(`${message.stream_epoch}:${message.frame_id}`, message);
    if (this.frames.size > KEPT_FRAMES) this.frames.delete(this.frames.keys().next().value);
  }
  frame(epoch, frameId) { return this.frames.get(`${epoch}:${frameId}`); }
  // The message of the frame with this stream time.
  frameAt(ptsNs) {
    const all = [...this.frames.values()];
    for (let i = all.length - 1; i >= 0 && i > all.length - 200; i -= 1) {
      if (all[i].pts_ns !== null && Math.abs(all[i].pts_ns - ptsNs) <= SAME_NS) return all[i];
    }
    return undefined;
  }
  get state() { return this.status ? this.status.state : "unknown"; }
}

// Events: "sources" (one came or changed its state), "frame", "picture", "analytics", "event", "connection".
export class Stream extends EventTarget {
  constructor(url) {
    super();
    this.url = url;
    this.sources = new Map();
    this.isOpen = false; this.engineLost = false;
    this.clockOffsetMs = null; // this clock minus the engine's, at least
    this.wishes = new Map(); // key → {source, boxes, jpeg}
    this.index = [];
    this.tries = 0;
    this.connect();
    document.addEventListener("visibilitychange", () => this.send());
    setInterval(() => this.look(), 2000);
  }
  connect() {
    const socket = new WebSocket(this.url);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.heard = performance.now();
    socket.onopen = () => { this.tries = 0; this.isOpen = true; this.index = []; this.sent = ""; this.send(); this.tell("connection"); };
    socket.onmessage = (event) => {
      this.heard = performance.now();
      if (typeof event.data === "string") this.take(JSON.parse(event.data));
      else this.takeBinary(event.data);
    };
    socket.onclose = () => {
      if (this.socket !== socket) return;
      if (this.isOpen) { this.isOpen = false; this.tell("connection"); }
      setTimeout(() => this.connect(), RETRY_MS[Math.min(this.tries++, RETRY_MS.length - 1)] * (0.7 + 0.6 * Math.random()));
    };
  }
  look() { // a connection that died without a word, as after a sleep
    if (this.isOpen && performance.now() - this.heard > SILENT_MS && !document.hidden) this.socket.close();
  }
  tell(type, detail) { this.dispatchEvent(new CustomEvent(type, { detail })); }
  source(name) {
    if (!this.sources.has(name)) this.sources.set(name, new Source(name));
    return this.sources.get(name);
  }
  take(message) {
    const schema = message.schema || "";
    if (schema === "index") { this.index = []; for (const [name, at] of Object.entries(message.sources)) this.index[at] = name; return; }
    if (schema === "engine") { this.engineLost = message.lost; this.tell("connection"); return; }
    const kind = schema.slice(schema.indexOf(".") + 1, schema.indexOf("/"));
    if (kind === "heartbeat") {
      const offset = Date.now() - message.published_utc_ns / 1e6;
      this.clockOffsetMs = this.clockOffsetMs === null ? offset : Math.min(offset, this.clockOffsetMs + 0.5);
      return;
    }
    if (kind === "frame") {
      this.source(message.source_id).addFrame(message);
      this.tell("frame", message);
    } else if (kind === "status") {
      const source = this.source(message.source_id);
      source.status = message; source.ended = message.state === "ended";
      this.send();
      this.tell("sources", message);
    } else if (kind === "stats") {
      const isNew = !this.sources.has(message.source_id);
      this.source(message.source_id).stats = message;
      this.tell(isNew ? "sources" : "stats", message);
      if (isNew) this.send();
    } else if (kind === "analytics") {
      this.source(message.source_id).analytics = message;
      this.tell("analytics", message);
    } else if (kind === "event") this.tell("event", message);
  }
  takeBinary(buffer) {
    const head = new DataView(buffer);
    if (buffer.byteLength < HEADER_BYTES) return;
    const name = this.index[head.getUint16(2)];
    if (name === undefined) return;
    const kind = head.getUint8(0);
    if (kind === INIT || kind === FRAGMENT) {
      let data = new Uint8Array(buffer, HEADER_BYTES), codec = "";
      if (kind === INIT) { const at = data.indexOf(0); codec = new TextDecoder().decode(data.subarray(0, at)); data = data.subarray(at + 1); }
      this.tell("film", { source_id: name, init: kind === INIT, codec, data, t0: Number(head.getBigInt64(8)), start: head.getUint32(4), captured_utc_ns: Number(head.getBigInt64(16)), pts_ns: Number(head.getBigInt64(8)) });
      return;
    }
    if (kind !== JPEG) return;
    this.tell("picture", {
      source_id: name, epoch: head.getUint32(4), frame_id: Number(head.getBigInt64(8)),
      captured_utc_ns: Number(head.getBigInt64(16)), jpeg: new Uint8Array(buffer, HEADER_BYTES),
    });
  }
  // Seconds since a moment of the engine's clock.
  ageOf(utcNs) { return Math.max((Date.now() - (this.clockOffsetMs || 0) - utcNs / 1e6) / 1000, 0); }
  // Ask for something of a source under a key of your own; null ends it.
  want(key, wish) {
    if (wish === null) this.wishes.delete(key); else this.wishes.set(key, wish);
    this.send();
  }
  send() {
    if (!this.isOpen) return;
    const watch = {};
    if (!document.hidden) for (const { source, boxes, jpeg, video } of this.wishes.values()) {
      if (!this.sources.has(source)) continue;
      const had = watch[source] || (watch[source] = {});
      if (boxes) had.boxes = true;
      if (video) had.video = true;
      if (jpeg) had.jpeg = had.jpeg ? { fps: Math.max(had.jpeg.fps, jpeg.fps), w: Math.max(had.jpeg.w, jpeg.w) } : jpeg;
    }
    const text = JSON.stringify({ watch });
    if (text !== this.sent) { this.sent = text; this.socket.send(text); }
  }
}
