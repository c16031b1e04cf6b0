"""What an action delivers, and what every kind of action is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from engine.analytics.rules.schedule import Schedule
from engine.errors import ConfigError, EngineError

PLANNED = ("due", "sent", "failed")
"""States of a message that is, or was to be, delivered."""


class DeliveryError(EngineError):
    """The other side was not reached, or cannot take the message now; a retry may help."""


class DeliveryRefusedError(EngineError):
    """The other side will never take the message."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One message of an action.

    Attributes:
        key: the same for every attempt, and for no other message of the action: `<event_id>-<phase>`.
        phase: `begin`, `point`, `end`, or `digest` and `budget` for one that stands for several events.
        body: plain values, ready for JSON; `text` says it in one line.
        picture: a JPEG; empty if there is none.
        picture_path: the file that it comes from.
    """

    key: str
    phase: str
    body: Mapping[str, Any]
    picture: bytes = field(default=b"", repr=False)
    picture_path: str = ""

    @property
    def text(self) -> str:
        """What happened, in one line."""
        return str(self.body.get("text", ""))


class Action(Protocol):
    """One way to deliver; all calls come from one thread of its own."""

    def send(self, notice: Notice) -> None:
        """Deliver, in bounded time. Raises `DeliveryError` or `DeliveryRefusedError`."""

    def close(self) -> None:
        """Disconnect; harmless when repeated."""


@dataclass(frozen=True, slots=True)
class ActionRules:
    """When an action is quiet.

    Attributes:
        schedule: when it may be told of a begin; None: always.
        zone: time zone of the schedule, and of times in texts.
        cooldown_s: after a message about a rule of a source, further events of both are collected for this time and
            told in one digest at its end, which begins the next such time; 0: none.
        per_hour: messages in any hour; beyond it, events are collected for a digest every ten minutes.
        end: also tell that an episode has ended.
        picture: send the picture of the event.
        expire_s: a message that could not be delivered for this time is given up.

    Raises:
        ConfigError: a number is out of range.
    """

    schedule: Schedule | None = None
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))
    cooldown_s: float = 60.0
    per_hour: int = 60
    end: bool = False
    picture: bool = False
    expire_s: float = 3600.0

    def __post_init__(self) -> None:
        if not (0 <= self.cooldown_s <= 86400 and 1 <= self.per_hour <= 100_000 and 1 <= self.expire_s <= 30 * 86400):
            raise ConfigError(
                f"cooldown_s {self.cooldown_s}, per_hour {self.per_hour}, expire_s {self.expire_s}: "
                "expected 0 to 86400, 1 to 100000 and 1 to 2592000"
            )
