"""An RTMP server for one client: writes what it gets into a file. Arguments: the address, and the file."""

from __future__ import annotations

import sys

import av


def main() -> None:
    """Listen, and copy until the client leaves."""
    address, target = sys.argv[1:3]
    with av.open(address, options={"listen": "1"}, timeout=60) as source, av.open(target, "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        try:
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    output.mux(packet)
        except OSError:  # the client has left
            return


if __name__ == "__main__":
    main()
