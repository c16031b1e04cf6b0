"""The API of rules: read, replace, test on the stored past, and snooze the actions of a source."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.clock import NS_PER_S, SYSTEM_CLOCK
from engine.errors import ConfigError, EngineError
from engine.events.store.reader import EventReader
from engine.events.store.rows import SnoozeRow
from pipelines.web.access import Identity
from pipelines.web.children import BusyError
from pipelines.web.page.answers import body_of, need, record, reply, who
from pipelines.web.page.api import control
from pipelines.web.page.history import MAX_ASKED_S, Time, place_of, reading
from pipelines.web.page.types import ClassName, Kept, Name, Seconds

TEST_S = 90.0
MAX_SNOOZE_S = 31 * 86_400
Names = Annotated[list[Name], msgspec.Meta(max_length=100)]
Classes = Annotated[list[ClassName], msgspec.Meta(max_length=100)]
Text = Annotated[str, msgspec.Meta(max_length=200)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Clock = Annotated[str, msgspec.Meta(max_length=8)]


class ScheduleEdit(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """When a rule may begin."""

    days: Annotated[list[Clock], msgspec.Meta(max_length=7)] | None = None
    begin: Clock | None = msgspec.field(default=None, name="from")
    end: Clock | None = msgspec.field(default=None, name="to")


class RuleEdit(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A rule; which keys apply depends on `kind`, see `kinds`. Custom rules can only be passed on unchanged."""

    name: Name
    kind: Text
    sources: Names | None = None
    enabled: bool | None = None
    severity: Literal["info", "notice", "alert"] | None = None
    schedule: ScheduleEdit | None = None
    actions: Names | None = None
    zone: Name | None = None
    line: Name | None = None
    lines: Annotated[list[Text], msgspec.Meta(max_length=100)] | None = None
    direction: Name | None = None
    classes: Classes | None = None
    to_classes: Classes | None = None
    owners: Classes | None = None
    for_s: Seconds | None = None
    absence_s: Seconds | None = None
    clear_s: Seconds | None = None
    within_s: Seconds | None = None
    stood_s: Seconds | None = None
    at_least: Annotated[int, msgspec.Meta(ge=1)] | None = None
    at_most: Annotated[int, msgspec.Meta(ge=0)] | None = None
    forbidden_deg: Annotated[float, msgspec.Meta(ge=-360, le=360)] | None = None
    tolerance_deg: Annotated[float, msgspec.Meta(gt=0, le=180)] | None = None
    over_kmh: Amount | None = None
    under_kmh: Amount | None = None
    metres: Amount | None = None
    heights: Amount | None = None
    away_heights: Annotated[float, msgspec.Meta(ge=0.1)] | None = None
    parameters: dict[str, Any] | None = None


class RulesEdit(msgspec.Struct, forbid_unknown_fields=True):
    """All rules."""

    rules: Annotated[list[RuleEdit], msgspec.Meta(max_length=200)]


class Snooze(msgspec.Struct):
    """Actions for events of a source (`all`: of any) are suppressed until a given time."""

    source: str
    until_utc_ns: int


class RulesInfo(msgspec.Struct):
    """The rules, the keys of each kind as JSON schema, and the active snoozes.

    Attributes:
        version: changes with the rules.
        rules: all of them.
        kinds: schema of the keys of each built-in kind.
        actions: names that rules may use.
        classes: of the models.
        snoozes: currently active.
        stored: whether events are stored, so that rules can be tested on the past and sources snoozed.
        kept: where edits survive the run.
        done: what an edit has changed.
    """

    version: str
    rules: list[dict[str, Any]]
    kinds: dict[str, Any]
    actions: list[str]
    classes: list[str]
    snoozes: list[Snooze]
    stored: bool
    kept: Kept
    done: list[str] = []


class RulesQuestion(msgspec.Struct, forbid_unknown_fields=True):
    """Rules, which need not exist, to evaluate on the stored paths of at most 31 days."""

    rules: Annotated[list[RuleEdit], msgspec.Meta(min_length=1, max_length=50)]
    begin: Time = msgspec.field(name="from")
    end: Time = msgspec.field(name="to")


class RulesAnswer(msgspec.Struct):
    """The events that the rules would have raised, newest first, at most 500 of `total`; `would` and `did` by rule."""

    events: list[dict[str, Any]]
    total: int
    rules: dict[str, dict[str, int]]


class SnoozeWish(msgspec.Struct, forbid_unknown_fields=True):
    """How long to suppress the actions for events of a source (`all`: of any); 0 ends it."""

    for_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_SNOOZE_S)]
    source: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] = "all"


def _all_sources(identity: Identity) -> Identity:
    """Return the user if they may see all sources, because rules may concern any of them. Raises 403."""
    if identity.sources is not None:
        raise HTTPException(403, "rules may concern any source, and you may not see all of them")
    return identity


async def _info(request: Request, done: dict[str, Any] | None = None) -> Response:
    found = await control(request, {"command": "rules"})
    info = RulesInfo(
        **{key: found[key] for key in ("version", "rules", "kinds", "actions", "classes", "stored")},
        snoozes=await _snoozes(request),
        kept=msgspec.convert(found["kept"] if done is None else done["kept"], Kept),
        done=[] if done is None else done["done"],
    )
    return reply(info, headers={"ETag": f'"{info.version}"'})


async def _snoozes(request: Request) -> list[Snooze]:
    if place_of(request) is None:
        return []
    now, me = SYSTEM_CLOCK.utc_ns(), who(request)

    def work(reader: EventReader) -> list[SnoozeRow]:
        return reader.snoozes(now)

    rows = await reading(request, work)
    return [Snooze(row.source_id or "all", row.until_utc_ns) for row in rows if me.may_see(row.source_id)]


async def get_rules(request: Request) -> Response:
    """Return the rules, the form of each kind, and the active snoozes; the version is in `ETag`."""
    _all_sources(who(request))
    return await _info(request)


async def put_rules(request: Request) -> Response:
    """Replace all rules; they take effect within a second. With `If-Match`, 409 if they have been changed since."""
    me = _all_sources(need(request, "operator"))
    edit: RulesEdit = await body_of(request, RulesEdit)
    version = request.headers.get("If-Match", "").strip('"') or None
    rules = msgspec.to_builtins(edit.rules)
    done = await control(request, {"command": "set_rules", "rules": rules, "version": version, "by": me.name})
    record(request, "rules", detail={"rules": rules})
    return await _info(request, done)


async def try_rules(request: Request) -> Response:
    """Return the events that rules would have raised in the stored past, and how often the run's own rules fired."""
    me = _all_sources(need(request, "operator"))
    question: RulesQuestion = await body_of(request, RulesQuestion)
    if place_of(request) is None:
        raise HTTPException(404, "this run stores no events: set events.folder")
    if not 0 < question.end - question.begin <= MAX_ASKED_S * NS_PER_S:
        raise HTTPException(422, "from and to: expected a span of at most 31 days")
    places = await control(request, {"command": "places"})
    rules = await control(request, {"command": "rules"})
    known = [(rule["name"], rule["kind"], rule.get("parameters")) for rule in rules["rules"]]
    asked = [{**msgspec.to_builtins(rule), "enabled": True} for rule in question.rules]
    for rule in asked:
        if rule["kind"] not in rules["kinds"] and (rule["name"], rule["kind"], rule.get("parameters")) not in known:
            raise HTTPException(422, f"kind {rule['kind']!r}: expected one of {', '.join(rules['kinds'])}")
    settings = request.app.state.hub.settings
    job = {
        "config": _config(places, rules, asked),
        "events": settings.events,
        "store": settings.store,
        "sources": [name for name in places["places"] if me.may_see(name)],
        "from_utc_ns": question.begin,
        "to_utc_ns": question.end,
    }
    return reply(msgspec.convert(await answered(request, "rules", job, TEST_S), RulesAnswer))


def _config(places: dict[str, Any], rules: dict[str, Any], asked: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a configuration with the run's places and other rules; nothing in it is ever opened."""
    sources = [
        {"uri": "synthetic://", "source_id": name, "zones": found["zones"], "lines": found["lines"]}
        for name, found in places["places"].items()
    ]
    plain = [{key: value for key, value in rule.items() if key != "actions"} for rule in asked]
    return {"sources": sources, "rules": plain, "site": rules["site"], "analytics": rules["analytics"]}


async def answered(request: Request, kind: str, job: dict[str, Any], limit_s: float) -> Any:
    """Return the answer of a job about the past. Raises 422, 429 or 503."""
    try:
        return await request.app.state.jobs.answer(kind, job, limit_s)
    except BusyError as error:
        raise HTTPException(429, str(error), {"Retry-After": "2"}) from error
    except ConfigError as error:
        raise HTTPException(422, str(error)) from error
    except EngineError as error:
        raise HTTPException(503, str(error)) from error


async def post_snooze(request: Request) -> Response:
    """Suppress the actions of a source for a while; its events continue. Returns the active snoozes."""
    me = need(request, "operator")
    wish: SnoozeWish = await body_of(request, SnoozeWish)
    if wish.source == "all":
        _all_sources(me)
    elif not me.may_see(wish.source):
        raise HTTPException(404, "there is no such source")
    await control(request, {"command": "snooze", "source_id": wish.source, "for_s": wish.for_s})
    record(request, "snooze", wish.source, {"for_s": wish.for_s})
    until = SYSTEM_CLOCK.utc_ns() + int(wish.for_s * NS_PER_S)
    others = [each for each in await _snoozes(request) if each.source != wish.source]
    return reply([*others, *([Snooze(wish.source, until)] if wish.for_s else [])])


RULES_ROUTES = [
    Route("/rules", get_rules, methods=["GET"]),
    Route("/rules", put_rules, methods=["PUT"]),
    Route("/rules/test", try_rules, methods=["POST"]),
    Route("/snooze", post_snooze, methods=["POST"]),
]
