"""ONVIF analytics metadata: one `tt:MetadataStream` with one `Frame` per frame message.

Follows the ONVIF Analytics Service Specification, section "Scene description". Coordinates stay in pixels; the
`Transformation` of the frame maps them to ONVIF's normalised ones (-1 to 1, y upwards).
Not represented: drops, latency, pts, epochs and sequence numbers, masks, keypoints, class list.
"""

from __future__ import annotations

from xml.etree import ElementTree

from engine.wire import FrameMessage, TrackedObject
from pipelines.stream.adapters.times import iso_utc

NAMESPACE = "http://www.onvif.org/ver10/schema"
_CONTROL = {code: "�" for code in range(32) if code not in (9, 10, 13)}


def onvif_metadata(message: FrameMessage) -> str:
    """Return the metadata of a frame as an XML document."""
    ElementTree.register_namespace("tt", NAMESPACE)
    stream = ElementTree.Element(_tag("MetadataStream"))
    analytics = ElementTree.SubElement(stream, _tag("VideoAnalytics"))
    utc = iso_utc(message.captured_utc_ns)
    frame = ElementTree.SubElement(analytics, _tag("Frame"), UtcTime=utc, Source=clean(message.source_id))
    transformation = ElementTree.SubElement(frame, _tag("Transformation"))
    ElementTree.SubElement(transformation, _tag("Translate"), x="-1", y="1")
    scale = {"x": f"{2 / max(message.width, 1):.8g}", "y": f"{-2 / max(message.height, 1):.8g}"}
    ElementTree.SubElement(transformation, _tag("Scale"), scale)
    for number, found in enumerate(message.objects):
        _add(frame, number, found)
    return ElementTree.tostring(stream, encoding="unicode", xml_declaration=False)


def _add(frame: ElementTree.Element, number: int, found: TrackedObject) -> None:
    identity = found.track_id if found.track_id >= 0 else -1 - number
    tracked = ElementTree.SubElement(frame, _tag("Object"), ObjectId=str(identity))
    appearance = ElementTree.SubElement(tracked, _tag("Appearance"))
    shape = ElementTree.SubElement(appearance, _tag("Shape"))
    x1, y1, x2, y2 = found.xyxy
    box = {"left": f"{x1:g}", "top": f"{y1:g}", "right": f"{x2:g}", "bottom": f"{y2:g}"}
    ElementTree.SubElement(shape, _tag("BoundingBox"), box)
    ElementTree.SubElement(shape, _tag("CenterOfGravity"), x=f"{(x1 + x2) / 2:g}", y=f"{(y1 + y2) / 2:g}")
    if found.xyxyxyxy:
        polygon = ElementTree.SubElement(shape, _tag("Polygon"))
        for x, y in found.xyxyxyxy:
            ElementTree.SubElement(polygon, _tag("Point"), x=f"{x:g}", y=f"{y:g}")
    kind = ElementTree.SubElement(ElementTree.SubElement(appearance, _tag("Class")), _tag("Type"))
    kind.set("Likelihood", f"{found.score:g}")
    kind.text = clean(found.class_name)


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def clean(text: str) -> str:
    """Return a text without the characters that XML does not allow."""
    return text.translate(_CONTROL)
