"""What is deleted, in which order, and what never is."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from engine.clock import NS_PER_S
from engine.events.media.deletion import delete_files
from engine.events.media.names import clip_name, facts_text, snapshot_name, with_facts
from engine.events.media.retention import RESERVE, KeepOptions, TidyReport, tidy
from engine.events.store.place import StorePlace
from engine.events.store.reader import EventReader
from engine.events.store.rows import EventRow, MediaRow
from engine.events.store.writer import StoreWriter
from engine.sinks.camera_video.keyframe_index import IndexWriter, Keyframe
from tests.events.media.disks import small_disk

NOW_NS = 1_800_000_000 * NS_PER_S
HOUR_NS, DAY_NS = 3600 * NS_PER_S, 86_400 * NS_PER_S
JPEG = b"\xff\xd8" + bytes(998)
NO_LIMIT = KeepOptions(max_bytes=None, min_free_bytes=0)


class Archive:
    """Folders with events, images, clips and recordings of any size and age."""

    def __init__(self, root: Path, store: str = "") -> None:
        self.place = StorePlace(root / "events", store)
        self.recordings = root / "recordings"
        StoreWriter(database := self.place.open("engine"))
        database.close()
        self.place.release()
        self.count = 0

    def event(
        self,
        age_ns: int,
        severity: str = "alert",
        *,
        kept: bool = False,
        size: int = 1000,
        is_stored: bool = True,
        engine_id: str = "engine",
    ) -> EventRow:
        """Keep an event with an image and a clip of `size` bytes together."""
        self.count += 1
        began_ns = NOW_NS - age_ns
        event = EventRow(
            f"gate-{NOW_NS}-rule-{self.count}", engine_id, NOW_NS, "gate", "rule", severity, "yard",  # type: ignore[arg-type]
            "person", "end", began_ns, began_ns + 4 * NS_PER_S, 0, 4.0, clip_state="due", kept=kept,
        )  # fmt: skip
        image, clip = snapshot_name(event, "trigger"), clip_name(event) + ".mp4"
        half = size // 2
        self.write(self.place.folder / image, with_facts(b"\xff\xd8" + bytes(max(half - 900, 0)), facts_text(event)))
        self.write(self.place.folder / clip, bytes(half))
        if is_stored:
            with StoreWriter.edit(self.place) as writer:
                writer.put(event)
                for kind, name in (("snapshot", image), ("clip", clip)):
                    path = self.place.folder / name
                    writer.put(MediaRow(name, kind, "gate", event.event_id, began_ns, began_ns, path.stat().st_size))  # type: ignore[arg-type]
                writer.set_media_of_event(event.event_id, snapshot=image, clip=clip, clip_state="exact")
                writer.keep(event.event_id, kept=kept)
        return event

    def recording(self, age_ns: int, size: int = 1000, source_id: str = "gate") -> Path:
        """Write a recording of a minute."""
        began_ns = NOW_NS - age_ns
        from time import gmtime, strftime

        name = strftime("%Y-%m-%dT%H-%M-%SZ.mp4", gmtime(began_ns // NS_PER_S))
        path = self.write(self.recordings / source_id / name, bytes(size))
        index = IndexWriter(path)
        index.add(Keyframe(0, began_ns, "rtcp"))
        index.close(Keyframe(60_000_000, began_ns + 60 * NS_PER_S, "rtcp"))
        os.utime(path, ns=(began_ns + 60 * NS_PER_S,) * 2)
        return path

    def write(self, path: Path, data: bytes) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def tidy(self, keep: KeepOptions = NO_LIMIT, **given: object) -> TidyReport:
        return tidy(self.place, [self.recordings], keep, **{"now_ns": NOW_NS, **given})  # type: ignore[arg-type]

    def files(self) -> set[Path]:
        found = [path for path in self.place.folder.parent.rglob("*") if path.is_file()]
        return {path for path in found if path.suffix in (".mp4", ".jpg", ".idx")}

    def ids(self) -> set[str]:
        with EventReader(self.place) as reader:
            return {event.event_id for event in reader.events()}


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path)


def test_events_go_when_they_are_too_old_for_their_severity(archive: Archive) -> None:
    ages = [("info", 2), ("info", 4), ("notice", 13), ("notice", 15), ("alert", 59), ("alert", 61)]
    events = {(severity, days): archive.event(days * DAY_NS, severity) for severity, days in ages}
    kept = archive.event(1000 * DAY_NS, "info", kept=True)
    report = archive.tidy()
    left = {events[key].event_id for key in (("info", 2), ("notice", 13), ("alert", 59))} | {kept.event_id}
    assert archive.ids() == left
    assert report.deleted == {"event/age": 3, "snapshot/age": 3, "clip/age": 3}
    assert len(archive.files()) == 2 * len(left)
    assert archive.tidy().deleted == {}


def test_engines_that_share_a_store_leave_each_other_alone(tmp_path: Path, postgres_url: str) -> None:
    one, two = Archive(tmp_path / "one", postgres_url), Archive(tmp_path / "two", postgres_url)
    two.count = 100
    mine = one.event(100 * DAY_NS, engine_id="one", size=300_000)
    young = one.event(2 * HOUR_NS, engine_id="one", size=300_000)
    others = two.event(100 * DAY_NS, engine_id="two", size=300_000)
    report = one.tidy(engine_id="one")
    assert report.deleted == {"event/age": 1, "snapshot/age": 1, "clip/age": 1}
    assert one.ids() == {young.event_id, others.event_id}
    assert len(two.files()) == 2
    with EventReader(one.place) as reader:
        assert len(reader.media(event_id=others.event_id)) == 2, "files that are elsewhere are not forgotten"
    one.tidy(replace(NO_LIMIT, max_bytes=1), engine_id="one", yes=True)
    assert one.ids() == {others.event_id}
    assert mine.event_id not in two.ids()


def test_space_is_made_in_order_oldest_first(archive: Archive) -> None:
    size = 1_000_000
    loose = [archive.recording(hours * HOUR_NS, size) for hours in (50, 40)]
    info = archive.event(30 * HOUR_NS, "info", size=size)
    needed = archive.recording(20 * HOUR_NS + 10 * NS_PER_S, size)
    notice = archive.event(20 * HOUR_NS, "notice", size=size)
    alert = archive.event(60 * HOUR_NS, "alert", size=size)
    archive.event(70 * HOUR_NS, "info", size=size, kept=True)
    young = archive.event(HOUR_NS // 2, "info", size=size)
    archive.tidy()
    order: list[object] = []
    names = {event.event_id: event for event in (info, notice, alert, young)}
    while True:
        before_files, before_ids = archive.files(), archive.ids()
        total = sum(archive.tidy().bytes.values())
        archive.tidy(replace(NO_LIMIT, max_bytes=total - 200_000), yes=True)
        gone = [path for path in before_files - archive.files() if path.suffix == ".mp4" and "recordings" in path.parts]
        gone_ids = [names[event_id] for event_id in before_ids - archive.ids()]
        if not gone and not gone_ids:
            break
        order += [*gone, *gone_ids]
    assert order == [*loose, info, needed, notice, alert, young], "the kept one is still there"
    assert len(archive.ids()) == 1


def test_the_recording_being_written_is_never_deleted(archive: Archive) -> None:
    path = archive.recording(60 * NS_PER_S, 5_000_000)
    os.utime(path, ns=(NOW_NS, NOW_NS))
    report = archive.tidy(replace(NO_LIMIT, max_bytes=1000), yes=True)
    assert path.exists()
    assert "MB too much remain" in report.warnings[0]


def test_a_recording_that_a_kept_event_needs_stays(archive: Archive) -> None:
    path = archive.recording(30 * HOUR_NS + 5 * NS_PER_S)
    archive.event(30 * HOUR_NS, kept=True)
    archive.recording(10 * HOUR_NS)
    archive.tidy(replace(NO_LIMIT, max_bytes=1), yes=True)
    assert path.exists()
    assert len(list((archive.recordings / "gate").glob("*.mp4"))) == 1


def test_more_than_a_third_at_once_asks_first(archive: Archive) -> None:
    for hours in range(2, 42):
        archive.recording(hours * HOUR_NS, 1_000_000)
    archive.tidy()
    half = replace(NO_LIMIT, max_bytes=20_000_000)
    report = archive.tidy(half)
    assert "framewire events tidy --yes" in report.asks
    assert (report.deleted, len(archive.files())) == ({}, 80)
    assert archive.tidy(half, yes=True).deleted["recording/space"] >= 20


def test_what_exceeds_a_limit_that_has_not_changed_makes_room_without_a_question(archive: Archive) -> None:
    keep = replace(NO_LIMIT, max_bytes=30_000_000)
    archive.tidy(keep)
    for hours in range(2, 62):
        archive.recording(hours * HOUR_NS, 1_000_000)
    report = archive.tidy(keep)
    assert (report.asks, report.deleted["recording/space"]) == ("", pytest.approx(31, abs=1))
    assert "tidy --yes" in archive.tidy(replace(keep, max_bytes=5_000_000)).asks, "an edited limit asks"


def test_a_clock_that_jumps_a_year_ahead_deletes_nothing(archive: Archive) -> None:
    for minutes in range(150):
        archive.event(minutes * 60 * NS_PER_S, "info")
    report = archive.tidy(now_ns=NOW_NS + 365 * DAY_NS)
    assert "150 events" in report.asks
    assert len(archive.ids()) == 150


def test_an_empty_store_over_full_folders_adopts_everything(archive: Archive) -> None:
    events = [archive.event(hours * HOUR_NS, "info", is_stored=False) for hours in range(1, 6)]
    recordings = [archive.recording(hours * HOUR_NS) for hours in range(1, 4)]
    bare = archive.write(archive.place.folder / "clips" / "gate" / "2026-01-01" / "gate-1-old-1.mp4", b"no video")
    others = [
        archive.write(archive.place.folder / name, b"mine")
        for name in (
            "notes.txt",
            "clips/readme.mp4",
            "clips/gate/2026-01-01/holiday.mov",
            "snapshots/a/b/c.trigger.jpg",
        )
    ]
    others.append(archive.write(archive.recordings / "gate" / "holiday.mp4", b"mine"))
    (archive.place.folder / "clips" / "gate" / "2026-01-02").symlink_to("/etc")
    before = archive.files()
    report = archive.tidy()
    assert report.deleted == {}
    assert archive.files() == before
    assert report.adopted == 2 * len(events) + len(recordings) + 1
    assert report.rebuilt == len(events) + 1
    with EventReader(archive.place) as reader:
        found = {event.event_id: event for event in reader.events()}
        assert {row.path for row in reader.media("recording")} == {str(path.resolve()) for path in recordings}
        assert [row.ended_utc_ns - row.began_utc_ns for row in reader.media("recording")] == [60 * NS_PER_S] * 3
    for event in events:
        again = found[event.event_id]
        assert (again.rule, again.severity, again.began_utc_ns, again.place) == (
            "rule",
            "info",
            event.began_utc_ns,
            "yard",
        )
        assert (again.snapshot, again.clip) == (snapshot_name(event, "trigger"), clip_name(event) + ".mp4")
    assert found["gate-1-old-1"].severity == "alert", "what is not known is not deleted early"
    assert bare.exists()
    strict = archive.tidy(KeepOptions(0, 0, 0, 0, max_bytes=1, min_free_bytes=0), yes=True)
    assert strict.deleted
    assert all(path.read_bytes() == b"mine" for path in others), "what is not ours is never touched"


def test_files_that_a_person_removed_are_forgotten(archive: Archive) -> None:
    event = archive.event(5 * HOUR_NS)
    archive.tidy()
    (archive.place.folder / snapshot_name(event, "trigger")).unlink()
    assert archive.tidy().lost == 1
    with EventReader(archive.place) as reader:
        (left,) = reader.events()
        assert (left.snapshot, bool(left.clip), len(reader.media())) == ("", True, 1)


def test_a_deletion_that_a_crash_interrupted_is_finished(archive: Archive) -> None:
    event = archive.event(5 * HOUR_NS)
    name = clip_name(event) + ".mp4"
    with StoreWriter.edit(archive.place) as writer:
        writer.database.execute("UPDATE media SET state = 'deleting' WHERE path = :path", {"path": name})
    archive.tidy()
    assert not (archive.place.folder / name).exists()
    with EventReader(archive.place) as reader:
        assert [row.kind for row in reader.media()] == ["snapshot"]


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../victim.txt", "clips/../../victim.txt", "clips/gate/2026-01-01/x.txt"]
)
def test_a_store_that_names_other_files_deletes_none(archive: Archive, tmp_path: Path, name: str) -> None:
    victims = [Path("/etc/hostname"), archive.write(tmp_path / "victim.txt", b"x")]
    victims.append(archive.write(archive.place.folder / "clips/gate/2026-01-01/x.txt", b"x"))
    database = archive.place.open_to_edit()
    writer = StoreWriter(database)
    with writer.transaction():
        writer.put(MediaRow(name, "clip", "gate", "e", 0, 0, 1))
    delete_files(writer, archive.place.folder, [name])
    database.close()
    assert all(victim.exists() for victim in victims)


def test_a_part_of_the_disk_is_kept_for_events(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.tidy()
    reserve = archive.place.folder / RESERVE
    assert reserve.stat().st_size == 1_000_000
    real = os.statvfs(archive.place.folder)
    full = os.statvfs_result((real.f_bsize, real.f_frsize, real.f_blocks, 0, 0, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    archive.tidy()
    assert not reserve.exists()


def test_half_an_hour_on_a_small_disk(tmp_path: Path) -> None:
    """64 MB of disk, 32 MB allowed: recordings of 2 MB a minute and an event every 20 s, for 75 minutes."""
    segment = 2_000_000
    keep = KeepOptions(max_bytes=32_000_000, min_free_bytes=4_000_000)
    with small_disk(tmp_path / "disk", 64) as disk:
        archive = Archive(disk)
        kept = archive.event(6 * HOUR_NS, "info", kept=True, size=500_000)
        severities = ("info", "notice", "alert")
        for minute in range(75, 0, -1):
            archive.recording(minute * 60 * NS_PER_S, segment)
            for number in range(3):
                age_ns = (minute * 60 + 20 * number) * NS_PER_S
                archive.event(age_ns, severities[number], size=300_000)
            now_ns = NOW_NS - (minute - 1) * 60 * NS_PER_S
            report = archive.tidy(keep, now_ns=now_ns)
            assert not report.asks
            used = sum(path.stat().st_size for path in disk.rglob("*") if path.is_file())
            assert used <= keep.max_bytes + segment  # type: ignore[operator]
            assert abs(used - sum(report.bytes.values())) <= 4096 * len(list(disk.rglob("*")))
        assert kept.event_id in archive.ids()
        with EventReader(archive.place) as reader:
            left = [event.severity for event in reader.events()]
        assert left.count("alert") >= left.count("notice") >= left.count("info"), left
        assert report.bytes["snapshot"] + report.bytes["clip"] > report.bytes["recording"], "recordings go first"
