"""Rules on the control socket: reported with the form of each kind, and replaced as a whole."""

from __future__ import annotations

from dataclasses import MISSING, Field
from typing import Any

from engine.analytics.rules import KINDS
from engine.errors import ConfigError
from engine.flow.pipeline import Pipeline
from pipelines.build.edits import EditsFile, digest
from pipelines.build.events import event_log_of
from pipelines.build.scene import COMMON
from pipelines.config.models import Config
from pipelines.config.scene import RuleConfig
from pipelines.running.control_client import ConflictError
from pipelines.running.places import kept_facts, person
from pipelines.running.reconfigure import Reconfigurer

MAX_RULES = 200


def rules_of(pipeline: Pipeline, config: Config, edits: EditsFile | None) -> dict[str, Any]:
    """Return the `rules` with their `version`, `kinds`: the form of each, names of `actions`, and `kept`.

    `analytics` and `site` are further data for testing rules; `stored` says whether there is a past to test on.
    """
    rules = _plain(config)
    return {
        "version": digest(rules),
        "rules": rules,
        "kinds": {name: _form(name) for name in KINDS},
        "actions": list(config.actions),
        "classes": sorted({name for lane in pipeline.models.values() for name in lane.detector.class_names}),
        "kept": kept_facts(edits),
        "stored": event_log_of(pipeline) is not None,
        "analytics": config.analytics.model_dump(exclude={"state"}),
        "site": config.site.model_dump(),
    }


def change_rules(changes: Reconfigurer, request: dict[str, Any], edits: EditsFile | None) -> dict[str, Any]:
    """Replace all rules; return `done`, one line per change, and `kept`.

    Args:
        changes: applies them.
        request: `rules`, optionally the `version` that they are based on, and `by`, their author.
        edits: stores them; None: they end with the run.

    Raises:
        ConfigError: a rule is invalid; the message names its key.
        ConflictError: the rules have a newer version.
    """
    rules = request.get("rules")
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise ConfigError("set_rules needs rules, a list of objects")
    if len(rules) > MAX_RULES:
        raise ConfigError(f"rules: {len(rules)} are more than {MAX_RULES}: leave some out")
    if request.get("version") not in (None, digest(_plain(changes.config))):
        raise ConflictError("the rules were changed in the meantime: read them again")
    done = changes.set_rules(rules)
    problem = "" if edits is None else edits.keep_rules(rules, person(request))
    return {"done": done, "kept": kept_facts(edits, problem)}


def _plain(config: Config) -> list[dict[str, Any]]:
    return [rule.model_dump(mode="json", exclude_unset=True) for rule in config.rules]


def _form(kind: str) -> dict[str, Any]:
    """Return the JSON schema of a rule kind's keys, derived from the configuration's and the rule's own fields."""
    fields = {name: each for name, each in KINDS[kind].__dataclass_fields__.items() if each.init and name != "_"}
    schema = RuleConfig.model_json_schema()
    known = {**schema["properties"], "schedule": {"description": schema["properties"]["schedule"]["description"]}}
    own = [name for name in fields if name not in COMMON]
    text = (KINDS[kind].__doc__ or "").partition("\n")[0].partition(": ")[0].rstrip(".")
    return {
        "title": text,
        "required": [name for name in own if _is_needed(fields[name])],
        "properties": {name: {**_plain_schema(known[name]), **_default(fields[name])} for name in own},
    }


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _default(field: Field[Any]) -> dict[str, Any]:
    return {} if field.default in (MISSING, None) else {"default": field.default}


def _plain_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a key without null, which is the same as leaving the key out."""
    kinds = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    rest = {key: value for key, value in schema.items() if key in ("type", "items", "description", "enum")}
    return {**(kinds[0] if kinds else {}), **rest}
