"""An RTSP server that takes pushed H.264 and writes each connection into a file; run by Debian's Python.

usage: /usr/bin/python3 tests/rtsp/record_server.py FOLDER [--port N]

Prints `ready PORT`. Files are FOLDER/1.mkv, FOLDER/2.mkv, one per connection.
"""

import argparse
import sys
import threading
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

LAUNCH = "rtph264depay name=depay0 ! h264parse ! matroskamux streamable=true ! filesink sync=false location={path}"


class Media(GstRtspServer.RTSPMedia):
    """Takes each packet when it comes: a jitter buffer drops late ones, and on a busy machine many are late."""

    def do_setup_rtpbin(self, rtpbin):
        rtpbin.set_property("buffer-mode", 0)
        return True


class Factory(GstRtspServer.RTSPMediaFactory):
    """Makes a pipeline with its own file for each connection."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.count = 0
        self.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        self.set_media_gtype(Media)

    def do_create_element(self, url):
        self.count += 1
        return Gst.parse_bin_from_description(LAUNCH.format(path=self.folder / f"{self.count}.mkv"), False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(str(given.port))
    server.get_mount_points().add_factory("/gate", Factory(given.folder))
    server.attach(None)
    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    print("ready", server.get_bound_port(), flush=True)
    loop.run()


if __name__ == "__main__":
    main()
