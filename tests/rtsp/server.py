"""An RTSP server for tests, on loopback; runs under the system's Python (`gi`), controlled by its standard input.

usage: server.py [--port P] [--codec h264|h265|vp8|jpeg] [--size 320x240] [--fps 25] [--gop 25] [--clock] [--user U:P]
                 [--file CLIP] [--pattern ball] [--loss 0.3] [--pixel-clock] [--mounts 1] [--sound aac]
Prints `ready PORT` when it serves /stream (/stream1, /stream2, ... are further mounts). Lines on standard input: `drop`
closes every session, `quit` ends.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.freshness.pixel_clock import i420, now_us

ENCODERS = {
    "h264": "x264enc threads=1 tune=zerolatency speed-preset=ultrafast key-int-max={gop} bitrate={kbps} ! "
    "video/x-h264,profile=baseline ! rtph264pay {name} pt=96 config-interval=-1",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast key-int-max={gop} bitrate={kbps} ! "
    "rtph265pay {name} pt=96 config-interval=-1",
    "vp8": "vp8enc deadline=1 keyframe-max-dist={gop} ! rtpvp8pay {name} pt=96",
    "jpeg": "jpegenc ! rtpjpegpay {name} pt=26",
}


SOUNDS = {
    "aac": "avenc_aac ! rtpmp4gpay name=pay1 pt=97",
    "alaw": "audio/x-raw,rate=8000 ! alawenc ! rtppcmapay name=pay1 pt=8",
}


def launch_line(args: argparse.Namespace) -> str:
    """Return the pipeline that generates and encodes the frames."""
    width, height = args.size.split("x")
    encode = ENCODERS[args.codec].format(gop=args.gop, kbps=args.kbps, name="" if args.loss else "name=pay0")
    if args.loss:
        encode += f" ! identity drop-probability={args.loss} name=pay0"
    if args.file:
        return f"( filesrc location={args.file} ! decodebin ! videoconvert ! video/x-raw,format=I420 ! {encode} )"
    if args.pixel_clock:
        caps = f"video/x-raw,format=I420,width={width},height={height},framerate={args.fps}/1"
        return f"( appsrc name=clock is-live=true format=time do-timestamp=true caps={caps} ! {encode} )"
    clock = "! timeoverlay" if args.clock else ""
    tone = f" audiotestsrc is-live=true ! audioconvert ! audioresample ! {SOUNDS[args.sound]}" if args.sound else ""
    return (
        f"( videotestsrc is-live=true pattern={args.pattern} {clock} ! "
        f"video/x-raw,format=I420,width={width},height={height},framerate={args.fps}/1 ! {encode}{tone} )"
    )


def load() -> tuple[Any, Any, Any]:
    """Return GLib, Gst and GstRtspServer: only the system's Python has them, and the tests import this file too."""
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    return GLib, Gst, GstRtspServer


def paint(gst: Any, media: Any, args: argparse.Namespace) -> None:
    """Feed a medium with frames that show when they were painted, at the frame rate, for as long as it takes them."""
    width, height = (int(side) for side in args.size.split("x"))
    source = media.get_element().get_by_name_recurse_up("clock")

    def push() -> None:
        due = time.monotonic()
        while True:
            due += 1 / args.fps
            time.sleep(max(due - time.monotonic(), 0))
            picture = gst.Buffer.new_wrapped(i420(width, height, now_us()))
            if source.emit("push-buffer", picture) not in (gst.FlowReturn.OK, gst.FlowReturn.FLUSHING):
                return

    threading.Thread(target=push, daemon=True).start()


def protect(rtsp: Any, server: Any, factory: Any, user: str) -> None:
    """Ask for a user name and password."""
    name, _, password = user.partition(":")
    auth = rtsp.RTSPAuth()
    token = rtsp.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    auth.add_basic(rtsp.RTSPAuth.make_basic(name, password), token)
    server.set_auth(auth)
    permissions = rtsp.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


def drop_sessions(rtsp: Any, server: Any) -> None:
    """Close every connection, as a camera that restarts does."""
    server.client_filter(lambda _server, _client: rtsp.RTSPFilterResult.REMOVE)


def end_with_parent() -> None:
    """Ask the kernel to end this process when the one that started it ends, however it ends."""
    import ctypes
    import signal

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> None:
    """Serve until told to quit."""
    end_with_parent()
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", default="0")
    parser.add_argument("--codec", choices=sorted(ENCODERS), default="h264")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--gop", type=int, default=25)
    parser.add_argument("--kbps", type=int, default=1000)
    parser.add_argument("--pattern", default="ball")
    parser.add_argument("--clock", action="store_true")
    parser.add_argument("--pixel-clock", action="store_true", help="pictures say when they were painted")
    parser.add_argument("--mounts", type=int, default=1, help="cameras, each with an encoder of its own")
    parser.add_argument("--loss", type=float, default=0.0, help="part of the RTP packets that get lost")
    parser.add_argument("--user")
    parser.add_argument("--file")
    parser.add_argument("--sound", choices=sorted(SOUNDS), help="also send a tone")
    args = parser.parse_args()

    glib, gst, rtsp = load()
    server = rtsp.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(args.port)
    for number in range(args.mounts):
        factory = rtsp.RTSPMediaFactory()
        factory.set_launch(launch_line(args))
        factory.set_shared(False)  # a shared medium hangs for good when one client leaves as another joins
        factory.set_latency(0)
        if args.pixel_clock:
            factory.connect("media-configure", lambda _factory, media: paint(gst, media, args))
        if args.user:
            protect(rtsp, server, factory, args.user)
        server.get_mount_points().add_factory(f"/stream{number or ''}", factory)
    if not server.attach(None):
        sys.exit(f"cannot listen on 127.0.0.1:{args.port}")

    loop = glib.MainLoop()

    def command(channel: Any, _condition: Any) -> bool:
        line = sys.stdin.readline().strip()
        if line == "drop":
            drop_sessions(rtsp, server)
        if line in ("quit", ""):
            loop.quit()
        return True

    glib.io_add_watch(glib.IOChannel.unix_new(0), glib.PRIORITY_DEFAULT, glib.IOCondition.IN, command)
    print(f"ready {server.get_bound_port()}", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
