"""The keys of actions: who is notified of events, how, and how often."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipelines.config.scene import ScheduleConfig
from pipelines.config.section import Section


class ActionConfig(Section):
    """Notifies people or machines of events. Which keys apply depends on `kind`; docs/actions.md lists them."""

    kind: Literal["webhook", "apprise", "mqtt", "record", "command"] = Field(description="How it tells")
    url: str | list[str] | None = Field(None, description="webhook, mqtt, apprise: where; apprise takes several")
    hmac_key: str | None = Field(None, min_length=8, description="webhook: signs the body (X-Framewire-Signature)")
    headers: dict[str, str] | None = Field(None, description="webhook: additional headers")
    private_redirects: bool | None = Field(None, description="webhook: follow redirects into private networks")
    topic: str | None = Field(None, min_length=1, description="mqtt: topic to publish on")
    retain: bool | None = Field(None, description="mqtt: let the broker keep the last message")
    command: list[str] | None = Field(None, min_length=1, description="command: the program and its arguments")
    for_s: float | None = Field(None, gt=0, le=86400, description="record: how long to record from the event on")
    timeout_s: float | None = Field(None, gt=0, le=120, description="webhook, mqtt, command: limit for one attempt")
    picture: bool = Field(False, description="Send the image of the event")
    end: bool = Field(False, description="Also notify when an episode ends")
    schedule: ScheduleConfig | None = Field(None, description="When it may report an event; null: always")
    cooldown_s: float = Field(
        60.0, ge=0, le=86400, description="Time after a message in which further events of its rule wait for a digest"
    )
    per_hour: int = Field(60, ge=1, le=100_000, description="Messages in any hour; beyond it, a digest every 10 min")
    expire_s: float = Field(
        3600.0, ge=1, le=30 * 86400, description="When to give up on a message that does not arrive"
    )
