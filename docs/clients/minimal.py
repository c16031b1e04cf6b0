# Reads the stream with nothing but pyzmq: python minimal.py [ADDRESS]
import json
import sys

import zmq

socket = zmq.Context.instance().socket(zmq.SUB)
socket.subscribe(b"v1/frame/")  # or b"v1/frame/gate/" for one camera
socket.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5555")
while True:
    topic, body = socket.recv_multipart()
    frame = json.loads(body)
    found = [(o["track_id"], o["class_name"], o["score"], o["xyxy"]) for o in frame["objects"]]
    print(frame["source_id"], frame["frame_id"], found, flush=True)
