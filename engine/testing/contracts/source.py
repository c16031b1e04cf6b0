"""What the pipeline relies on in a source."""

from __future__ import annotations

import threading
from collections.abc import Callable

from engine.protocols import Source
from engine.testing.contracts.base import PATIENCE_S, Recorder, ensure, run_all

MakeSource = Callable[[], Source]
ENOUGH = 8
"""Frames that a suite takes from a source, which must have at least this many."""


def it_has_a_name_and_an_address(make: MakeSource) -> None:
    """`info` is known before the source is opened."""
    source = make()
    ensure(isinstance(source, Source), f"the members of engine.Source; found {type(source).__name__}")
    ensure(source.info.source_id, "info.source_id is a name")
    ensure(isinstance(source.info.uri, str), "info.uri is a text")


def frames_are_numbered_read_only_bgr_images(make: MakeSource) -> None:
    """Ids start at 0 or later and increase, capture times never decrease, pixels are uint8 BGR and read-only."""
    source = make()
    ids, times, pts = [], [], []
    for frame in source:
        ids.append(frame.frame_id)
        times.append(frame.captured_ns)
        pts.append(frame.pts_ns)
        ensure(frame.source_id == source.info.source_id, f"frames carry the source_id; found {frame.source_id!r}")
        ensure(not frame.image.flags.writeable, "the image is read-only, as every consumer shares it")
        ensure(frame.captured_source != "file" or not source.info.is_live, "a live source has no times of a file")
        if len(ids) == ENOUGH:
            break
    ensure(len(ids) == ENOUGH, f"a source of at least {ENOUGH} frames; it ended after {len(ids)}")
    ensure(ids == sorted(set(ids)), f"each frame_id is larger than the one before; found {ids}")
    ensure(source.info.is_live or ids == list(range(ENOUGH)), f"a source that can wait loses no frame; found {ids}")
    ensure(times == sorted(times), "captured_ns does not fall")
    known = [one for one in pts if one is not None]
    ensure(known == sorted(known), f"pts_ns does not fall; found {pts}")


def states_begin_connecting_and_end_once(make: MakeSource) -> None:
    """The listener receives `connecting`, then `live`, and `ended` once, as the last state."""
    source, recorder = make(), Recorder()
    source.attach(recorder)
    for count, _ in enumerate(source, 1):
        if count == ENOUGH - 2:
            source.interrupt()
    states = recorder.states
    ensure(states[:1] in (["connecting"], ["live"]), f"the first state is connecting or live; found {states}")
    ensure("live" in states, f"a source that gives frames is live; found {states}")
    ensure(states.count("ended") == 1 and states[-1] == "ended", f"ended comes once, as the last; found {states}")


def delivered_and_lost_frames_add_up(make: MakeSource) -> None:
    """Every missing id was reported as lost."""
    source, recorder = make(), Recorder()
    source.attach(recorder)
    delivered, last_id = 0, -1
    for frame in source:
        delivered, last_id = delivered + 1, frame.frame_id
        if delivered == ENOUGH:
            break
    lost = sum(recorder.losses.values())
    ensure(delivered + lost >= last_id + 1, f"{last_id + 1} ids were used: {delivered} delivered and {lost} lost")


def an_interrupt_before_the_start_yields_nothing(make: MakeSource) -> None:
    """`interrupt` works in any state, even before the iteration."""
    source, recorder = make(), Recorder()
    source.attach(recorder)
    source.interrupt()
    ensure(not list(source), "no frame after an interrupt")
    ensure(recorder.states in (["ended"], []), f"nothing but ended is reported; found {recorder.states}")


def an_interrupt_from_another_thread_ends_the_iteration(make: MakeSource) -> None:
    """A stage that reads the source can be stopped."""
    source, recorder = make(), Recorder()
    source.attach(recorder)
    thread = threading.Thread(target=lambda: [None for _ in source], daemon=True)
    thread.start()
    recorder.wait_for_first()
    source.interrupt()
    thread.join(PATIENCE_S)
    ensure(not thread.is_alive(), f"the iteration ends within {PATIENCE_S:.0f} s of an interrupt")


def leaving_the_iteration_closes_the_source(make: MakeSource) -> None:
    """Closing the iterator releases the source; frames taken before stay as they are."""
    source, recorder = make(), Recorder()
    source.attach(recorder)
    frames = iter(source)
    frame = next(frames)
    before = frame.image.copy()
    ensure(hasattr(frames, "close"), "__iter__ is a generator, so that leaving it closes the source")
    frames.close()  # type: ignore[attr-defined]
    ensure(recorder.states[-1:] == ["ended"], f"a source that was left has ended; found {recorder.states}")
    ensure((frame.image == before).all(), "a frame outlives its source")


SOURCE_CHECKS = (
    it_has_a_name_and_an_address,
    frames_are_numbered_read_only_bgr_images,
    states_begin_connecting_and_end_once,
    delivered_and_lost_frames_add_up,
    an_interrupt_before_the_start_yields_nothing,
    an_interrupt_from_another_thread_ends_the_iteration,
    leaving_the_iteration_closes_the_source,
)


def check_source(make: MakeSource) -> None:
    """Check a source against its contract.

    Args:
        make: returns a new source with at least 8 frames each time.

    Raises:
        ContractError: the source breaks its contract.
    """
    run_all(SOURCE_CHECKS, make)
