// Prints detections: cargo run -- [ADDRESS]   (needs libzmq's headers and pkg-config: apt-get install libzmq3-dev)
use std::collections::HashMap;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("tcp://127.0.0.1:5555".into());
    let socket = zmq::Context::new().socket(zmq::SUB)?;
    socket.set_subscribe(b"v1/frame/")?; // or "v1/frame/gate/" for one camera
    socket.connect(&address)?;
    let mut last_seq: HashMap<(i64, String), i64> = HashMap::new(); // by run and source: a gap is a loss
    loop {
        let parts = socket.recv_multipart(0)?;
        let frame: serde_json::Value = serde_json::from_slice(&parts[1])?;
        let (schema, source) = (frame["schema"].as_str().unwrap_or(""), frame["source_id"].as_str().unwrap_or(""));
        if !schema.starts_with("framewire.frame/1.") {
            return Err(format!("cannot read {schema}").into());
        }
        let seq = frame["seq"].as_i64().unwrap_or(0);
        let key = (frame["run_epoch"].as_i64().unwrap_or(0), source.to_string());
        if let Some(last) = last_seq.insert(key, seq) {
            if seq > last + 1 {
                eprintln!("lost {} messages of {source}", seq - last - 1);
            }
        }
        for o in frame["objects"].as_array().into_iter().flatten() {
            let name = o["class_name"].as_str().unwrap_or("");
            println!("{source} {} #{} {name} {} {}", frame["frame_id"], o["track_id"], o["score"], o["xyxy"]);
        }
    }
}
