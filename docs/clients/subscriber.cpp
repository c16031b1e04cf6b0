// Prints detections: g++ -std=c++17 subscriber.cpp -lzmq -o subscriber && ./subscriber [ADDRESS]
// (Debian: cppzmq-dev for zmq.hpp, nlohmann-json3-dev)
#include <iostream>
#include <map>
#include <string>
#include <nlohmann/json.hpp>
#include <zmq.hpp>

int main(int argc, char** argv) {
  zmq::context_t context;
  zmq::socket_t socket(context, zmq::socket_type::sub);
  socket.set(zmq::sockopt::subscribe, "v1/frame/");  // or "v1/frame/gate/" for one camera
  socket.connect(argc > 1 ? argv[1] : "tcp://127.0.0.1:5555");
  std::map<std::string, int64_t> last_seq;  // by run and source: a gap is a loss
  while (true) {
    zmq::message_t topic, body;
    if (!socket.recv(topic) || !topic.more() || !socket.recv(body)) continue;
    const auto frame = nlohmann::json::parse(body.to_string_view());
    if (frame["schema"].get<std::string>().rfind("framewire.frame/1.", 0) != 0) return 1;
    const int64_t seq = frame["seq"];
    const auto key = std::to_string(frame["run_epoch"].get<int64_t>()) + topic.to_string();
    if (last_seq.count(key) && seq > last_seq[key] + 1)
      std::cerr << "lost " << seq - last_seq[key] - 1 << " messages of " << frame["source_id"] << "\n";
    last_seq[key] = seq;
    for (const auto& object : frame["objects"])
      std::cout << frame["source_id"].get<std::string>() << ' ' << frame["frame_id"] << " #" << object["track_id"]
                << ' ' << object["class_name"].get<std::string>() << ' ' << object["score"] << ' ' << object["xyxy"]
                << std::endl;
  }
}
