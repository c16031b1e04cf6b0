"""What the pipeline relies on in a sink and in an analyser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from engine.data import Packet, SourceState
from engine.protocols import Analyser, Sink
from engine.testing.contracts.base import RUN, ensure, packet, run_all, status

MakeSink = Callable[[], Sink]
MakeAnalyser = Callable[[], Analyser]
BEGINNING: tuple[SourceState, ...] = ("connecting", "live")


def it_has_a_name_and_says_whether_it_may_wait(make: MakeSink) -> None:
    """`name` and `blocking` are known before it is open."""
    sink = make()
    ensure(isinstance(sink, Sink), f"the members of engine.Sink; found {type(sink).__name__}")
    ensure(sink.name, "a name")
    ensure(isinstance(sink.blocking, bool), "blocking is True or False")


def closing_is_harmless(make: MakeSink) -> None:
    """`close` may come before `open`, and twice."""
    sink = make()
    sink.close()
    sink.open(RUN)
    sink.close()
    sink.close()


def a_whole_run_passes_and_packets_stay_as_they_are(make: MakeSink) -> None:
    """Frames without objects, with one, and with many; shared arrays are read-only."""
    sink = make()
    sink.open(RUN)
    try:
        for state in BEGINNING:
            sink.status(status(state))
        for number, objects in enumerate((0, 1, 3, 50)):
            given = packet(number, objects)
            before = given.frame.image.copy(), given.tracks.xyxy.copy()
            sink.write(given)
            same = (given.frame.image == before[0]).all() and (given.tracks.xyxy == before[1]).all()
            ensure(same, "the arrays of a packet stay as they are")
            sink.tick()
        sink.status(status("ended"))
    finally:
        sink.close()


def a_source_without_frames_is_accepted(make: MakeSink) -> None:
    """A camera that is never reached has states but no packets."""
    sink = make()
    sink.open(RUN)
    states: tuple[SourceState, ...] = ("connecting", "offline", "ended")
    for state in states:
        sink.status(status(state, "silent"))
    sink.tick()
    sink.close()


SINK_CHECKS = (
    it_has_a_name_and_says_whether_it_may_wait,
    closing_is_harmless,
    a_whole_run_passes_and_packets_stay_as_they_are,
    a_source_without_frames_is_accepted,
)


def check_sink(make: MakeSink) -> None:
    """Check a sink against its contract.

    Args:
        make: returns a new sink each time, not yet open.

    Raises:
        ContractError: the sink breaks its contract.
    """
    run_all(SINK_CHECKS, make)


def every_packet_comes_back_in_order(make: MakeAnalyser) -> None:
    """One inference may hold packets of several sources, with any number of objects."""
    analyser = make()
    ensure(isinstance(analyser, Analyser), f"the members of engine.Analyser; found {type(analyser).__name__}")
    ensure(analyser.name, "a name")
    for number, objects in enumerate((0, 1, 3, 50)):
        _analysed(analyser, [packet(number, objects, "gate"), packet(number, 2, "yard")])
    analyser.close()


def packets_stay_as_they_are(make: MakeAnalyser) -> None:
    """Pixels, detections and tracks are shared and read-only."""
    analyser, given = make(), packet(0, 3)
    before = given.frame.image.copy(), given.tracks.xyxy.copy()
    _analysed(analyser, [given])
    same = (given.frame.image == before[0]).all() and np.array_equal(given.tracks.xyxy, before[1])
    ensure(same, "the arrays of a packet stay as they are")
    analyser.close()


def what_others_found_stays(make: MakeAnalyser) -> None:
    """Results of analysers that ran before it are kept."""
    analyser = make()
    [found] = _analysed(analyser, [packet().with_analysis("another", 5)])
    ensure(found.analyses.get("another") == 5, "results of other analysers are kept")
    analyser.close()


def states_come_back(make: MakeAnalyser) -> None:
    """A state is returned unchanged, or with something added; frames may follow a source's end."""
    analyser = make()
    states: tuple[SourceState, ...] = ("connecting", "live", "offline", "ended")
    for state in states:
        told = status(state)
        found = analyser.status(told)
        ensure((found.source_id, found.state) == (told.source_id, told.state), "the state comes back unchanged")
    _analysed(analyser, [packet(5)])
    analyser.close()


def it_goes_on_after_a_reset(make: MakeAnalyser) -> None:
    """A restarted stream, another model, and a new source do not cause a failure."""
    analyser = make()
    analyser.reset("never seen", "stream_restarted")
    _analysed(analyser, [packet(0)])
    analyser.reset("gate", "stream_restarted")
    _analysed(analyser, [packet(1)])
    analyser.reset("gate", "model_changed")
    _analysed(analyser, [packet(2, run=replace(RUN, class_names=("lorry",)))])
    analyser.close()


def _analysed(analyser: Analyser, given: list[Packet]) -> list[Packet]:
    found = list(analyser.analyse(given))
    ensure(len(found) == len(given), f"every packet comes back: {len(found)} of {len(given)}")
    same = all(after.frame is before.frame for before, after in zip(given, found, strict=True))
    ensure(same, "packets come back in order, each with its frame")
    return found


ANALYSER_CHECKS = (
    every_packet_comes_back_in_order,
    packets_stay_as_they_are,
    what_others_found_stays,
    states_come_back,
    it_goes_on_after_a_reset,
)


def check_analyser(make: MakeAnalyser) -> None:
    """Check an analyser against its contract.

    Args:
        make: returns a new analyser each time.

    Raises:
        ContractError: the analyser breaks its contract.
    """
    run_all(ANALYSER_CHECKS, make)
