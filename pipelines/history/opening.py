"""Opens the log that the user names: by a configuration, or by its folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from engine.clock import SYSTEM_CLOCK
from engine.errors import ConfigError
from pipelines.history.times import utc_ns_of

if TYPE_CHECKING:
    from engine.events.store.place import StorePlace
    from engine.events.store.reader import EventReader
    from pipelines.config.models import Config


@dataclass(frozen=True)
class Log:
    """A log and its configuration.

    Attributes:
        place: where it is.
        config: None if only the folder is known.
        zone: time zone of the site.
    """

    place: StorePlace
    config: Config | None
    zone: ZoneInfo

    def reader(self) -> EventReader:
        """Open a reader. Raises `StoreError`."""
        from engine.events.store.reader import EventReader

        return EventReader(self.place)

    def utc_ns(self, text: str | None, name: str) -> int | None:
        """Parse a time given by the user; None if nothing was given. Raises `ConfigError`."""
        return None if text is None else utc_ns_of(text, self.zone, SYSTEM_CLOCK.utc_ns(), f"--{name}")


def open_log(config: str | None, folder: str | None, store: str | None = None) -> Log:
    """Return the log of a configuration file, or of a folder.

    Raises:
        ConfigError: neither is given, or the configuration has no log.
    """
    from engine.analytics.rules.schedule import time_zone
    from pipelines.build.edits import with_edits
    from pipelines.build.events import events_place, place_of
    from pipelines.config.file import load_config

    if config is None and folder is None:
        raise ConfigError("no log named: give --config FILE of the run, or --folder with its events.folder")
    if config is None:
        return Log(place_of(folder, store), None, time_zone("UTC"))
    loaded = load_config(config, {} if folder is None else {"events.folder": folder})
    loaded = with_edits(loaded, config)
    return Log(events_place(loaded), loaded, time_zone(loaded.site.timezone))
