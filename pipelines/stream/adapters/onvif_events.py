"""ONVIF notifications about what happens in a scene, as `wsnt:NotificationMessage` in a `tt:MetadataStream`.

Topics of the Analytics Service Specification: `LineDetector/Crossed`, `FieldDetector/ObjectsInside`,
`LoiteringDetector/ObjectIsLoitering`, `CountAggregation/Counter` and `CountAggregation/OccupancyCounter`. Not
represented: severity, why, boxes, identity of episodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from xml.etree import ElementTree

import msgspec

from engine.wire import AnalyticsMessage, EventMessage
from pipelines.stream.adapters.onvif import NAMESPACE, clean
from pipelines.stream.adapters.times import iso_utc

WSNT = "http://docs.oasis-open.org/wsn/b-2"
TOPICS = "http://www.onvif.org/ver10/topics"
DIALECT = "http://www.onvif.org/ver10/tev/topicExpression/ConcreteSet"
ROOT = "tns1:RuleEngine"


def onvif_event(message: EventMessage) -> str | None:
    """Return the notification of an event as an XML document; None for events that ONVIF has no topic for."""
    rule, place = _text(message.rule), _text(message.place)
    if not place:
        return None
    objects = {} if message.track_id is None else {"ObjectId": str(message.track_id)}
    utc_ns = message.captured_utc_ns or message.published_utc_ns
    is_crossing = message.event == "line_crossed" or message.at is not msgspec.UNSET
    operation = "" if is_crossing else "Changed"
    if is_crossing:
        topic, facts = f"{ROOT}/LineDetector/Crossed", objects
    elif message.rule_kind == "loiter":
        topic, facts = f"{ROOT}/LoiteringDetector/ObjectIsLoitering", {**objects, "Since": iso_utc(_began(message))}
        operation = {"begin": "Initialized", "end": "Deleted"}.get(_text(message.phase), "Changed")
    elif message.event in ("zone_entered", "zone_left") or message.phase in ("begin", "end"):
        is_inside = message.event == "zone_entered" or message.phase == "begin"
        topic, facts = f"{ROOT}/FieldDetector/ObjectsInside", {**objects, "IsInside": str(is_inside).lower()}
    else:
        return None
    return _document([_notice(topic, utc_ns, message.source_id, rule or place, facts, operation)])


def onvif_counts(message: AnalyticsMessage) -> str | None:
    """Return the counters of lines and the occupancy of zones as an XML document; None if there are none."""
    notices = []
    for line, directions in message.lines.items():
        for direction, classes in directions.items():
            facts = {"Count": str(sum(classes.values())), "Direction": direction}
            topic = f"{ROOT}/CountAggregation/Counter"
            notices.append(_notice(topic, message.captured_utc_ns, message.source_id, line, facts, "Changed"))
    for zone, inside in message.zones.items():
        facts = {"Count": str(sum(inside.values()))}
        topic = f"{ROOT}/CountAggregation/OccupancyCounter"
        notices.append(_notice(topic, message.captured_utc_ns, message.source_id, zone, facts, "Changed"))
    return _document(notices) if notices else None


def _document(notices: list[ElementTree.Element]) -> str:
    ElementTree.register_namespace("tt", NAMESPACE)
    ElementTree.register_namespace("wsnt", WSNT)
    stream = ElementTree.Element(f"{{{NAMESPACE}}}MetadataStream")
    event = ElementTree.SubElement(stream, f"{{{NAMESPACE}}}Event")
    event.extend(notices)
    return ElementTree.tostring(stream, encoding="unicode", xml_declaration=False)


def _notice(
    topic: str, utc_ns: int, source_id: str, rule: str, facts: Mapping[str, str], operation: str
) -> ElementTree.Element:
    """Return a notification; `operation` is empty for anything other than a property with state."""
    notice = ElementTree.Element(f"{{{WSNT}}}NotificationMessage")
    name = ElementTree.SubElement(notice, f"{{{WSNT}}}Topic", {"Dialect": DIALECT, "xmlns:tns1": TOPICS})
    name.text = topic
    body = ElementTree.SubElement(ElementTree.SubElement(notice, f"{{{WSNT}}}Message"), f"{{{NAMESPACE}}}Message")
    body.set("UtcTime", iso_utc(utc_ns))
    if operation:
        body.set("PropertyOperation", operation)
    source = {"VideoSource": source_id, "AnalyticsConfiguration": "framewire", "Rule": rule}
    for part, items in (("Source", source), ("Data", dict(facts))):
        group = ElementTree.SubElement(body, f"{{{NAMESPACE}}}{part}")
        for key, value in items.items():
            ElementTree.SubElement(group, f"{{{NAMESPACE}}}SimpleItem", Name=key, Value=clean(value))
    return notice


def _began(message: EventMessage) -> int:
    began = message.began_utc_ns
    return began if isinstance(began, int) else message.captured_utc_ns or message.published_utc_ns


def _text(value: str | msgspec.UnsetType) -> str:
    return "" if isinstance(value, msgspec.UnsetType) else value
