"""The messages that actions deliver, and the interface of every kind of action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from engine.analytics.rules.schedule import Schedule
from engine.errors import ConfigError, EngineError

PLANNED = ("due", "sent", "failed")
"""States of a message that was delivered or should have been."""


class DeliveryError(EngineError):
    """The recipient was not reached, or cannot take the message now; a retry may help."""


class DeliveryRefusedError(EngineError):
    """The recipient will never take the message."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One message of an action.

    Attributes:
        key: the same for every attempt, and for no other message of the action: `<event_id>-<phase>`.
        phase: `begin`, `point`, `end`, or `digest` and `budget` for a message that stands for several events.
        body: plain values, ready for JSON; `text` summarises it in one line.
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
    """One way to deliver; all calls come from one dedicated thread."""

    def send(self, notice: Notice) -> None:
        """Deliver, in bounded time. Raises `DeliveryError` or `DeliveryRefusedError`."""

    def close(self) -> None:
        """Disconnect; harmless when repeated."""


@dataclass(frozen=True, slots=True)
class ActionRules:
    """When an action stays quiet.

    Attributes:
        schedule: when it may be notified that an episode began; None: always.
        zone: time zone of the schedule, and of times in texts.
        cooldown_s: after a message about a rule of a source, further events of that rule and source are collected for
            this time and reported in one digest at its end, which starts the next cooldown; 0: none.
        per_hour: messages in any hour; beyond it, events are collected for a digest every ten minutes.
        end: also notify when an episode ends.
        picture: send the image of the event.
        expire_s: a message is given up if it could not be delivered for this long.

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
