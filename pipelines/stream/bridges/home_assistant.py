"""MQTT discovery, by which Home Assistant finds cameras automatically.

Home Assistant ignores a discovery topic with characters other than letters, digits, `_` and `-` in a level, so names
are rewritten for topics. Displayed names remain unchanged.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

DISCOVERY_ROOT = "homeassistant"
UNKNOWN = "None"
"""Payload that sets an entity of Home Assistant to unknown."""
_UNSAFE = {ord(c): "_" for c in "+#/\0"}
_FOREIGN = re.compile(r"[^a-zA-Z0-9_-]")
HASH_DIGITS = 6


def level(text: str) -> str:
    """Return a text that forms exactly one level of a topic.

    >>> level("front gate/#1")
    'front gate__1'
    """
    return text.translate(_UNSAFE) or "_"


def node_id(engine_id: str, source_id: str) -> str:
    """Return the name of a camera in discovery topics; different cameras get different names.

    >>> node_id("edge", "front gate")
    'framewire_edge_front_gate'
    >>> node_id("edge", "192.0.2.10:8554")
    'framewire_edge_192_0_2_10_8554_c0ff48'
    """
    return safe(f"framewire_{level(engine_id)}_{level(source_id)}")


def safe(text: str) -> str:
    """Return a text that forms one level of a discovery topic; foreign characters become a hash.

    >>> safe("back yard"), safe("Tür")
    ('back_yard', 'Tur_1cff8a')
    """
    plain = text.replace(" ", "_")
    if not _FOREIGN.search(plain):
        return plain
    ascii_text = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    digest = hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]
    return f"{_FOREIGN.sub('_', ascii_text)}_{digest}"


def device(prefix: str, engine_id: str, source_id: str, model: str = "") -> dict[str, Any]:
    """Return the common part of a camera's entities: its device, and their availability."""
    facts = {"name": source_id, "manufacturer": "Framewire", "model": model or "camera"}
    return {
        "device": {"identifiers": [node_id(engine_id, source_id)], **facts},
        "origin": {"name": "framewire"},
        "availability_topic": f"{prefix}/{level(engine_id)}/available",
        "payload_available": "online",
        "payload_not_available": "offline",
    }


def discovery(prefix: str, engine_id: str, source_id: str, model: str = "") -> dict[str, dict[str, Any]]:
    """Return the discovery payload of each entity by its topic: objects, occupancy and connection of a camera."""
    source, node = level(source_id), node_id(engine_id, source_id)
    common = device(prefix, engine_id, source_id, model)
    entities: dict[tuple[str, str], dict[str, Any]] = {
        ("sensor", "objects"): {
            "name": "Objects",
            "state_topic": f"{prefix}/{source}/count",
            "state_class": "measurement",
            "icon": "mdi:account-eye",
        },
        ("binary_sensor", "occupied"): {
            "name": "Occupied",
            "state_topic": f"{prefix}/{source}/occupied",
            "device_class": "occupancy",
        },
        ("binary_sensor", "connection"): {
            "name": "Connection",
            "state_topic": f"{prefix}/status/{source}",
            "value_template": "{{ 'ON' if value_json.state == 'live' else 'OFF' }}",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
        },
    }
    return {
        f"{DISCOVERY_ROOT}/{component}/{node}/{name}/config": {**entity, "unique_id": f"{node}_{name}", **common}
        for (component, name), entity in entities.items()
    }
