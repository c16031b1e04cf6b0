"""The actions of a configuration: how events are reported, and with what restraint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from engine.errors import ConfigError
from engine.net.address import ENCODED, has_two_readings
from pipelines.config.actions import ActionConfig
from pipelines.config.hints import at_key, did_you_mean
from pipelines.config.models import Config

if TYPE_CHECKING:
    from engine.events.actions.base import Action, ActionRules
    from engine.events.actions.outbox import Outbox
    from engine.events.actions.restraint import Restraint

Hold = Callable[[str, float], None]
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "webhook": (("url",), ("hmac_key", "headers", "private_redirects", "timeout_s")),
    "apprise": (("url",), ()),
    "mqtt": (("url", "topic"), ("retain", "timeout_s")),
    "record": (("for_s",), ()),
    "command": (("command",), ("timeout_s",)),
}
"""By kind: the keys that it needs, and those that it may have besides the common ones."""
_OWN = ("url", "hmac_key", "headers", "private_redirects", "topic", "retain", "command", "for_s", "timeout_s")


def build_actions(config: Config, hold: Hold) -> tuple[Restraint, Outbox] | None:
    """Return the planner and the outbox of a run's messages; None if it has no actions.

    Args:
        config: the configuration.
        hold: keeps the recording of a source running for some seconds.

    Raises:
        ConfigError: a key is missing, does not apply, or has an invalid value.
        MissingDependencyError: a package is not installed.
    """
    check_actions(config)
    if not config.actions:
        return None
    from engine.events.actions.outbox import Outbox
    from engine.events.actions.restraint import Restraint

    actions, rules = {}, {}
    for name, options in config.actions.items():
        with at_key(f"actions.{name}"):
            actions[name], rules[name] = _action(options, hold), _rules(options, config)
    outbox = Outbox(actions, rules)
    return Restraint(rules, actions_of_rules(config), wake=outbox.wake), outbox


def actions_of_rules(config: Config) -> dict[str, Sequence[str]]:
    """Return the names of the actions of each rule that has any."""
    return {rule.name: rule.actions for rule in config.rules if rule.actions}


def check_actions(config: Config) -> None:
    """Raise `ConfigError` for a rule that names an unknown action, or uses actions in a run that keeps no events."""
    for index, rule in enumerate(config.rules):
        for name in rule.actions:
            if name not in config.actions:
                hint = did_you_mean(name, list(config.actions))
                raise ConfigError(f"rules.{index}.actions: there is no action {name!r}: {hint}")
    if any(rule.actions for rule in config.rules) and config.events.folder is None:
        raise ConfigError("actions are delivered from the event log, so that none is lost: set events.folder")


def _rules(options: ActionConfig, config: Config) -> ActionRules:
    from engine.analytics.rules.schedule import Schedule, time_zone
    from engine.events.actions.base import ActionRules

    schedule = None
    if options.schedule is not None:
        given = options.schedule.model_dump()
        schedule = Schedule(given["days"], given["from"], given["to"])
    return ActionRules(
        schedule=schedule,
        zone=time_zone(config.site.timezone),
        **options.model_dump(include={"cooldown_s", "per_hour", "end", "picture", "expire_s"}),
    )


def _action(options: ActionConfig, hold: Hold) -> Action:
    _check_keys(options)
    given = options.model_dump(include=set(_OWN), exclude_none=True)
    if options.kind == "webhook":
        from engine.events.actions.kinds.webhook import WebhookAction

        return WebhookAction(**{**given, "url": _one_url(options)})
    if options.kind == "apprise":
        from engine.events.actions.kinds.notify import AppriseAction

        return AppriseAction([options.url] if isinstance(options.url, str) else list(options.url or ()))
    if options.kind == "mqtt":
        from engine.events.actions.kinds.mqtt import MqttAction

        return MqttAction(**_broker(_one_url(options)), **{k: v for k, v in given.items() if k != "url"})
    if options.kind == "record":
        from engine.events.actions.kinds.record import RecordAction

        return RecordAction(hold, options.for_s or 0.0)
    from engine.events.actions.kinds.command import CommandAction

    return CommandAction(options.command or [], **{k: v for k, v in given.items() if k != "command"})


def _check_keys(options: ActionConfig) -> None:
    needed, possible = _KEYS[options.kind]
    for key in _OWN:
        value = getattr(options, key)
        if key in needed and value in (None, "", []):
            raise ConfigError(f"kind {options.kind} needs {key}")
        if value is not None and key not in (*needed, *possible):
            known = ", ".join((*needed, *possible))
            raise ConfigError(f"{key} does not apply to kind {options.kind}; expected some of: {known}")


def _one_url(options: ActionConfig) -> str:
    if not isinstance(options.url, str):
        raise ConfigError(f"url: kind {options.kind} takes one address")
    return options.url


def _broker(url: str) -> dict[str, Any]:
    """Return host, port, user and password of an `mqtt://` or `mqtts://` address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"url: the address of the broker is invalid ({error})") from error
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or has_two_readings(url):
        raise ConfigError(f"url: expected mqtt://HOST or mqtts://user:password@HOST:PORT, {ENCODED}")
    return {
        "host": parts.hostname,
        "port": port or (8883 if parts.scheme == "mqtts" else 1883),
        "username": None if parts.username is None else unquote(parts.username),
        "password": None if parts.password is None else unquote(parts.password),
        "tls": parts.scheme == "mqtts",
    }
