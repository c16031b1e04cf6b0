"""Where a configuration pushes annotated video."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from engine.errors import ConfigError
from engine.redaction import hide_address
from pipelines.build.sources import can_change, named_sources
from pipelines.config.hints import at_key
from pipelines.config.models import Config, PublishConfig

if TYPE_CHECKING:
    from engine.video.address import VideoAddress

PLACEHOLDER = "{source_id}"


def push_addresses(config: PublishConfig, source_id: str) -> list[VideoAddress]:
    """Return where the video of a source, or of the grid, is pushed.

    Raises:
        ConfigError: an address is of the wrong kind.
    """
    from engine.sinks.video_push.pusher import push_address
    from engine.video.options import SourceOptions

    options = SourceOptions(tls=config.tls if isinstance(config.tls, str) else config.tls.model_dump())
    given = {"rtsp": config.rtsp, "rtmp": config.rtmp}
    found = []
    for kind, address in given.items():
        if address is not None:
            hide_address(address)
            with at_key(f"publish.{kind}"):
                found.append(push_address(address.replace(PLACEHOLDER, quote(source_id, safe="")), kind, options))
    return found


def check_push(config: Config) -> None:
    """Raise `ConfigError` if an address is invalid, or several sources would be pushed to the same one."""
    names = [source_id for source_id, _ in named_sources(config)]
    push_addresses(config.publish, names[0] if names else "source")
    is_several = not config.output.grid and (len(names) > 1 or can_change(config))
    for kind, address in (("rtsp", config.publish.rtsp), ("rtmp", config.publish.rtmp)):
        if address is not None and is_several and PLACEHOLDER not in address and len(names) != 1:
            raise ConfigError(
                f"publish.{kind}: several sources cannot share one stream: put {PLACEHOLDER} into the address, or set "
                "output.grid for all in one image"
            )
