"""What makes a watched model roll back, and what does not: readers that lag, late first frames, busy machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from engine.subscriber import NoMessageError
from engine.wire import FrameMessage
from pipelines.learning.monitor.drift import Reference, make_reference
from pipelines.learning.monitor.stream_facts import facts_of_message
from pipelines.learning.release import watch
from pipelines.learning.release.watch import Watch
from tests.wire.samples import SAMPLES

SAMPLE: Any = SAMPLES["frame"]
S = 1_000_000_000


class Clock:
    """The reader's clock: it stands still while messages are read, unless a message takes long."""

    now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s


class Stream:
    """Messages that arrive one after another, each with the time that the reader needs for it."""

    addresses = ("tcp://127.0.0.1:5555",)

    def __init__(self, clock: Clock, messages: Sequence[tuple[FrameMessage, float]]) -> None:
        self._clock, self._messages = clock, iter(messages)

    def receive(self, timeout_s: float | None = None) -> FrameMessage:
        found = next(self._messages, None)
        if found is None:
            self._clock.now_s += timeout_s or 1.0
            raise NoMessageError("silent")
        self._clock.now_s += found[1]
        return found[0]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watch.time, "monotonic", made.monotonic)
    return made


def frame(at_s: float, model: str = "old.onnx", classes: Sequence[str] = ("person",) * 3, camera: str = "c1") -> Any:
    one = SAMPLE.objects[0]
    objects = [msgspec.structs.replace(one, class_name=name) for name in classes]
    sent_ns = int(at_s * S)
    return msgspec.structs.replace(SAMPLE, source_id=camera, published_utc_ns=sent_ns, model=model, objects=objects)


def frames(begin_s: float, count: int, fps: float = 5.0, **facts: Any) -> Iterator[FrameMessage]:
    return (frame(begin_s + number / fps, **facts) for number in range(count))


def judged(
    clock: Clock,
    before: Sequence[FrameMessage],
    since: Sequence[FrameMessage],
    seconds: float,
    meanwhile: Sequence[FrameMessage] = (),
    tested: Reference | None = None,
) -> str | None:
    """Watch with a reader that gets the old frames in one burst, and the new ones as they come."""
    one = Watch(("c1",), ["person", "dog"], "new.onnx", tested)
    one.measure_before(Stream(clock, [(each, 0.0) for each in before]), 20)  # type: ignore[arg-type]
    one.catch_up(Stream(clock, [(each, 0.0) for each in meanwhile]))  # type: ignore[arg-type]
    return one.judge(Stream(clock, [(each, 0.2) for each in since]), seconds, 0.25)  # type: ignore[arg-type]


def test_a_model_that_says_the_same_stays_also_where_the_reader_lags_behind(clock: Clock) -> None:
    """After a restart of the controller its first frames are read late and all at once."""
    new = list(frames(10, 50, model="new.onnx"))
    assert judged(clock, list(frames(0, 20)), new, 10.0) is None


def test_a_late_first_frame_is_not_a_low_rate(clock: Clock) -> None:
    since = [*frames(10, 25), *frames(15, 25, model="new.onnx")]  # half of the watch is over
    assert judged(clock, list(frames(0, 20)), since, 10.0) is None


def test_a_model_that_halves_the_rate_returns(clock: Clock) -> None:
    new = list(frames(10, 25, fps=2.5, model="new.onnx"))
    assert "2.5 frames per second, 5.0 before" in str(judged(clock, list(frames(0, 20)), new, 5.0))


def test_a_busy_machine_is_not_the_models_fault(clock: Clock) -> None:
    def both(begin_s: float, count: int, fps: float, model: str) -> list[FrameMessage]:
        pairs = zip(
            frames(begin_s, count, fps, model=model), frames(begin_s, count, fps, camera="c2", model="old.onnx"),
            strict=True,
        )  # fmt: skip
        return [each for pair in pairs for each in pair]

    assert judged(clock, both(0, 20, 5.0, "old.onnx"), both(10, 20, 2.0, "new.onnx"), 8.0) is None


def test_only_sources_of_the_same_engine_tell_whether_its_machine_is_busy(clock: Clock) -> None:
    """At the address of a fleet, the sources of its other engines are read as well."""

    def all_of(begin_s: float, seconds: float, fps: float, model: str) -> list[FrameMessage]:
        mine = [*frames(begin_s, int(fps * seconds), fps, model=model)]
        mine += frames(begin_s, int(fps * seconds), fps, camera="c2")
        elsewhere = [each for n in range(8) for each in frames(begin_s, int(5 * seconds), 5.0, camera=f"x{n}")]
        return sorted([*mine, *elsewhere], key=lambda each: each.published_utc_ns)

    before, since = all_of(0, 4.0, 5.0, "old.onnx"), all_of(10, 10.0, 2.0, "new.onnx")
    one = Watch(("c1",), ["person", "dog"], "new.onnx", others=("c1", "c2"))
    one.measure_before(Stream(clock, [(each, 0.0) for each in before]), 20)  # type: ignore[arg-type]
    stream = Stream(clock, [(each, 10.0 / len(since)) for each in since])
    assert one.judge(stream, 10.0, 0.25) is None  # type: ignore[arg-type]


def test_a_reader_without_time_for_the_last_messages_blames_no_model(clock: Clock) -> None:
    one = Watch(("c1",), ["person", "dog"], "new.onnx")
    one.measure_before(Stream(clock, [(each, 0.0) for each in frames(0, 20)]), 20)  # type: ignore[arg-type]
    new = list(frames(10, 100, model="new.onnx"))
    slow = [*((each, 0.2) for each in new[:4]), (frame(10.8, camera="c2"), 20.0), *((each, 0.0) for each in new[4:])]
    assert one.judge(Stream(clock, slow), 20.0, 0.25) is None  # type: ignore[arg-type]


def test_a_model_that_swaps_two_classes_returns_although_one_object_is_lost_meanwhile(clock: Clock) -> None:
    """Two of one class and one of the other: just a third of the objects change theirs."""
    usual, swapped = ("person", "person", "dog"), ("dog", "dog", "person")
    new = list(frames(10, 100, model="new.onnx", classes=swapped))
    new[8] = frame(11.6, "new.onnx", swapped[1:])
    one = Watch(("c1",), ["person", "dog"], "new.onnx")
    one.measure_before(Stream(clock, [(each, 0.0) for each in frames(0, 60, classes=usual)]), 60)  # type: ignore[arg-type]
    why = one.judge(Stream(clock, [(each, 0.2) for each in new]), 20.0, 0.25)  # type: ignore[arg-type]
    assert why is not None
    assert "classes drifted" in why


def test_a_model_that_hangs_returns(clock: Clock) -> None:
    new = list(frames(10, 10, model="new.onnx"))
    assert "no frame of the new model for" in str(judged(clock, list(frames(0, 20)), new, 30.0))
    assert "0 frames of the new model" in str(judged(clock, list(frames(0, 20)), [], 5.0))


@pytest.mark.parametrize(("classes", "what"), [((), "objects"), (("dog",) * 3, "classes"), (("dog",) * 9, "objects")])
def test_a_model_that_says_something_else_returns(clock: Clock, classes: tuple[str, ...], what: str) -> None:
    """Also where the old model reported the same number of objects on every frame."""
    new = list(frames(10, 100, model="new.onnx", classes=classes))
    why = judged(clock, list(frames(0, 20)), new, 20.0)
    assert why is not None
    assert "drifted" in why
    assert what in why or "classes" in why


PEOPLE = {count: {"classes": ("person",) * count} for count in range(10)}


def test_a_scene_that_fills_after_the_change_is_not_the_models_fault(clock: Clock) -> None:
    new = [*frames(10, 20, model="new.onnx", **PEOPLE[3]), *frames(14, 80, model="new.onnx", **PEOPLE[9])]
    assert judged(clock, list(frames(0, 20, **PEOPLE[3])), new, 20.0) is None


def test_a_scene_that_fills_while_the_model_loads_is_not_its_fault(clock: Clock) -> None:
    meanwhile = [*frames(4, 20, **PEOPLE[3]), *frames(8, 20, **PEOPLE[9])]
    new = list(frames(12, 100, model="new.onnx", **PEOPLE[9]))
    assert judged(clock, list(frames(0, 20, **PEOPLE[3])), new, 20.0, meanwhile) is None


def test_a_class_that_comes_into_the_scene_is_not_the_models_fault(clock: Clock) -> None:
    new = [*frames(10, 20, model="new.onnx"), *frames(14, 80, model="new.onnx", classes=("dog",) * 3)]
    assert judged(clock, list(frames(0, 20)), new, 20.0) is None


def test_a_model_that_finds_half_returns_although_old_tracks_live_on_for_a_while(clock: Clock) -> None:
    new = [*frames(10, 4, model="new.onnx", **PEOPLE[6]), *frames(10.8, 80, model="new.onnx", **PEOPLE[3])]
    why = judged(clock, list(frames(0, 20, **PEOPLE[6])), new, 20.0)
    assert why is not None
    assert "objects drifted" in why


def test_a_model_that_finds_nothing_returns_also_where_the_scene_was_empty_at_the_change(clock: Clock) -> None:
    before = [*frames(0, 15, **PEOPLE[3]), *frames(3, 5, **PEOPLE[0])]
    meanwhile = list(frames(4, 20, **PEOPLE[0]))
    new = list(frames(10, 100, model="new.onnx", **PEOPLE[0]))
    why = judged(clock, before, new, 20.0, meanwhile)
    assert why is not None
    assert "objects drifted" in why


def test_frames_of_an_old_model_of_the_same_file_name_are_not_the_new_ones(clock: Clock) -> None:
    """Releases keep the name of the file: 0001/model.onnx, 0002/model.onnx."""
    meanwhile = list(frames(4, 100, model="new.onnx", **PEOPLE[3]))
    new = list(frames(24, 60, model="new.onnx", **PEOPLE[0]))
    why = judged(clock, list(frames(0, 20, model="new.onnx", **PEOPLE[3])), new, 12.0, meanwhile)
    assert why is not None
    assert "objects drifted" in why


@pytest.mark.parametrize(
    ("counts", "classes", "why"),
    [
        pytest.param((7, 8, 8, 9, 9, 9), "person", None, id="a little busier than the test images"),
        pytest.param((3, 3, 2, 3, 4, 3), "person", "objects drifted", id="many more than on the test images"),
        pytest.param((7, 8, 8, 9, 9, 9), "dog", "classes drifted", id="of another class than on the test images"),
    ],
)
def test_a_release_finds_as_many_objects_as_on_its_test_images_in_a_scene_with_others(
    clock: Clock, counts: Sequence[int], classes: str, why: str | None
) -> None:
    """The index of two narrow distributions is large, however little they differ: 9.3 people a frame, and 8.3 there."""
    images = [facts_of_message(frame(0, classes=("person",) * count), ["person", "dog"]) for count in counts * 6]
    new = list(frames(10, 100, model="new.onnx", classes=(classes,) * 9))
    found = judged(clock, list(frames(0, 20, classes=("person",) * 4)), new, 20.0, tested=make_reference(images, 3))
    assert found is None if why is None else why in str(found)


@pytest.mark.parametrize("others", [0, 1000], ids=["the stream is silent", "other cameras go on"])
def test_a_canary_without_frames_ends_the_deployment(clock: Clock, others: int) -> None:
    """Otherwise it would wait forever, and so would the roll of a fleet."""
    heard = [(each, 0.2) for each in frames(0, others, camera="c2")]
    with pytest.raises(NoMessageError, match=r"c1 has sent no frame for 60 s.*ctl status.*tcp://127\.0\.0\.1:5555"):
        Watch(("c1",), ["person"], "new.onnx").measure_before(Stream(clock, heard), 20)  # type: ignore[arg-type]
    assert clock.now_s < 1000 + 70
