"""Heat maps of the past: by hour, kept when the paths have gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from engine.events.log import EventLog
from engine.events.path_heat import HOUR_NS, HourHeat, packed, unpacked
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventReader
from engine.events.store.writer import StoreWriter
from pipelines.history.heat import heat_between
from tests.events import scenes

MakePlace = Callable[[], StorePlace]
FRAMES = 80
SPAN = scenes.UTC - HOUR_NS, scenes.UTC + 2 * HOUR_NS


def walked(place: StorePlace, epoch: int = scenes.UTC) -> None:
    log = EventLog(place)
    log.open(scenes.run(epoch))
    for packet in scenes.walk(FRAMES, of=scenes.run(epoch)):
        log.write(packet)
    log.close()


def forget(place: StorePlace, table: str) -> None:
    with StoreWriter.edit(place) as store:
        assert store.delete_before(table, 2**62) > 0


def test_the_heat_of_an_hour_outlives_the_paths_and_a_restart(make_place: MakePlace) -> None:
    walked(make_place())
    with EventReader(make_place()) as reader:
        exact = heat_between(reader, "gate", *SPAN)
        assert exact.sum() == pytest.approx(FRAMES / scenes.FPS, abs=0.4)
        assert (exact > 0).any(axis=0).sum() > 30, "from the left to the right"
    forget(make_place(), "track")
    with EventReader(make_place()) as reader:
        assert heat_between(reader, "gate", *SPAN) == pytest.approx(exact, abs=1e-4)
        assert heat_between(reader, "gate", *SPAN, "person") == pytest.approx(exact, abs=1e-4)
        assert not heat_between(reader, "gate", *SPAN, "car").any()
        assert not heat_between(reader, "hall", *SPAN).any()
        assert not heat_between(reader, "gate", scenes.UTC, scenes.UTC + HOUR_NS).any(), "no whole hour with heat"
    walked(make_place(), scenes.UTC + 1)
    forget(make_place(), "track")
    with EventReader(make_place()) as reader:
        assert heat_between(reader, "gate", *SPAN) == pytest.approx(2 * exact, abs=1e-4)
    forget(make_place(), "heat")
    with EventReader(make_place()) as reader:
        assert not heat_between(reader, "gate", *SPAN).any()


def test_an_hour_that_was_stored_before_is_continued(place: StorePlace) -> None:
    walked(place)
    database = place.open("engine")
    store = StoreWriter(database, "engine", scenes.UTC)
    with EventReader(place) as reader:
        rows = list(reader.tracks("gate", *SPAN))
        [before] = reader.heat("gate", 0, 2**31)
    heat = HourHeat("gate", scenes.UTC)
    [after] = heat.add(rows, store)
    assert unpacked(after.grid) == pytest.approx(2 * unpacked(before.grid), abs=1e-4)
    store.put(after)
    later = [
        replace(row, began_utc_ns=row.began_utc_ns + 5 * HOUR_NS, ended_utc_ns=row.ended_utc_ns + 5 * HOUR_NS)
        for row in rows
    ]
    assert [row.hour for row in heat.add(later, store)] == [after.hour + 5]
    [again] = heat.add(rows, store)
    assert unpacked(again.grid) == pytest.approx(3 * unpacked(before.grid), abs=1e-4), (
        "memory holds the newest hours only"
    )
    database.close()
    place.release()


@pytest.mark.parametrize("data", [b"", b"x" * 50, packed(np.ones(5)), packed(np.ones(100_000))])
def test_damaged_heat_is_none(data: bytes) -> None:
    assert unpacked(data).shape == (64 * 36,)
