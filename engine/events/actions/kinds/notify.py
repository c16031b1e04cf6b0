"""Notifies people through Apprise: ntfy, Pushover, Telegram, Signal, mail and about a hundred more services."""

from __future__ import annotations

from typing import Any

from engine.errors import ConfigError
from engine.events.actions.base import DeliveryError, Notice
from engine.optional import require
from engine.redaction import hide_address


class AppriseAction:
    """Sends the text, and the image if there is one, to the services of Apprise URLs. Needs `framewire[notify]`.

    Args:
        urls: such as `ntfys://topic` or `mailtos://user:password@example.org`.

    Raises:
        MissingDependencyError: Apprise is not installed.
        ConfigError: Apprise does not know a URL.
    """

    def __init__(self, urls: list[str]) -> None:
        apprise: Any = require("apprise", extra="notify")
        self._service = apprise.Apprise()
        for number, url in enumerate(urls):
            hide_address(url)
            if not self._service.add(url):
                scheme = url.partition("://")[0] if "://" in url else "no scheme"
                raise ConfigError(f"url {number + 1} ({scheme}) is not supported by Apprise: see its list of services")

    def send(self, notice: Notice) -> None:
        """Send the message. Raises `DeliveryError` if a service did not take it."""
        severity = str(notice.body.get("severity", ""))
        kind = {"alert": "failure", "notice": "warning"}.get(severity, "info")
        title = f"{notice.body.get('rule', 'Framewire')} ({notice.body.get('source_id', '')})"
        attach = notice.picture_path or None
        if not self._service.notify(body=notice.text, title=title, notify_type=kind, attach=attach):
            raise DeliveryError("a notification service did not take the message; the log of Apprise says why")

    def close(self) -> None:
        """Do nothing: each message has its own connection."""
