// Prints detections: npm install zeromq && node subscriber.mjs [ADDRESS]
import { Subscriber } from "zeromq";

const address = process.argv[2] ?? "tcp://127.0.0.1:5555";
const socket = new Subscriber({ maxMessageSize: 8 * 1024 * 1024 });
const lastSeq = new Map(); // by topic: a gap is a loss
socket.connect(address);
socket.subscribe("v1/frame/"); // or "v1/frame/gate/" for one camera

for await (const [topic, body] of socket) {
  const frame = JSON.parse(body.toString());
  if (!frame.schema.startsWith("framewire.frame/1.")) throw new Error(`cannot read ${frame.schema}`);
  const key = `${frame.run_epoch} ${topic}`;
  const expected = (lastSeq.get(key) ?? frame.seq - 1) + 1;
  if (frame.seq > expected) console.error(`lost ${frame.seq - expected} messages of ${frame.source_id}`);
  lastSeq.set(key, frame.seq);
  for (const { track_id, class_name, score, xyxy } of frame.objects) {
    console.log(`${frame.source_id} ${frame.frame_id} #${track_id} ${class_name} ${score.toFixed(2)} ${xyxy}`);
  }
}
