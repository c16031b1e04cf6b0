"""The work of a controller's turn: finds owners for cameras without one, and drains and relieves machines."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pipelines.fleet.control.book import Book
from pipelines.fleet.control.facts import Camera
from pipelines.fleet.placement.facts import Need, Placement
from pipelines.fleet.placement.place import place, place_lost
from pipelines.fleet.placement.rebalance import Move, empty, relieve

logger = logging.getLogger(__name__)
RESEND_S = 2.0


@dataclass(slots=True)
class Allowance:
    """Limits moves to a number per minute, with bursts of at most ten seconds' worth.

    Args:
        per_minute: moves per minute.
        left: moves that may be made now.
        as_of_ns: when that was computed.
    """

    per_minute: float
    left: float = 1.0
    as_of_ns: int = 0

    def at(self, now_ns: int) -> int:
        """Return the whole number of moves allowed now."""
        gained = (now_ns - self.as_of_ns) * self.per_minute / 60e9
        self.left, self.as_of_ns = min(self.left + gained, max(self.per_minute / 6, 1.0)), now_ns
        return int(self.left)


def settle(book: Book) -> None:
    """Take the next step for each open camera: free it, find it an owner, start it, or stop it."""
    for source_id in book.open:
        camera = book.cameras[source_id]
        if camera.owner and book.is_gone(camera.owner) and not _is_reported(book, camera):
            _free_lost(book, source_id, camera)
    book.settle_free()
    homeless: list[str] = []
    for source_id in list(book.open):
        camera = book.cameras[source_id]
        if camera.owner:
            _press(book, source_id, camera)
        elif camera.spec is None:
            book.open.discard(source_id)
        elif book.now_ns >= camera.retry_ns:
            homeless.append(source_id)
    _give(book, homeless)


def _is_reported(book: Book, camera: Camera) -> bool:
    """Return whether a camera's owner is alive and answering: then its answers show what it runs."""
    engine = book.engines.get(camera.owner)
    return engine is not None and book.is_live(engine)


def _free_lost(book: Book, source_id: str, camera: Camera) -> None:
    if book.now_ns > max(camera.free_ns, camera.unsure_ns):
        camera.why = f"{camera.owner} was lost"
        book.free(source_id, "lost")


def _press(book: Book, source_id: str, camera: Camera) -> None:
    """Repeat unanswered requests, and stop cameras that should move or be removed."""
    engine = book.engines.get(camera.owner)
    if engine is None or not book.is_live(engine):
        return
    late_ns = book.now_ns - book.options.ns(RESEND_S)
    if camera.spec is None or camera.target:
        if camera.released_ns < max(late_ns, 1):
            book.release(source_id)
    elif not camera.is_running and camera.since_ns < late_ns and book.now_ns > camera.free_ns:
        book.assign(source_id)


def _give(book: Book, names: list[str]) -> None:
    """Find an owner for each of these cameras, and start it there."""
    if not names:
        return
    machines = book.usable()
    chosen = {name: book.cameras[name].target for name in names}
    there = {machine.engine_id for machine in machines}
    wanted = [(name, to, "moved") for name, to in chosen.items() if to in there]
    left = [name for name in names if chosen[name] not in there]
    lost = [name for name in left if book.cameras[name].has_run]
    fresh = [name for name in left if not book.cameras[name].has_run] if not is_gathering(book) else []
    if lost or fresh:
        settled = [*book.settled(), *((book.cameras[name].need(name), to) for name, to, _ in wanted)]
        done = place_lost(_needs(book, lost), machines, settled, book.options.limits) if lost else Placement()
        settled += [(book.cameras[name].need(name), to) for name, to in done.owners.items()]
        wanted += [(name, to, "recovered") for name, to in done.owners.items()]
        first = place(_needs(book, fresh), machines, settled, book.options.limits) if fresh else Placement()
        wanted += [(name, to, "placed") for name, to in first.owners.items()]
        for name, why in (done.unplaced | first.unplaced).items():
            _wait_for_room(book, name, why)
    for name in book.write(wanted):
        book.assign(name)


def _wait_for_room(book: Book, name: str, why: str) -> None:
    camera = book.cameras[name]
    camera.retry_ns, camera.why = book.now_ns + book.options.ns(1.0), why


def _needs(book: Book, names: list[str]) -> list[Need]:
    return [book.cameras[name].need(name) for name in names]


def is_gathering(book: Book) -> bool:
    """Return whether to wait for starting engines, because the first one to answer would get all cameras."""
    late_ns = book.now_ns - book.options.ns(book.options.join_s)
    return any(
        engine.is_expected and not engine.incarnation and not engine.has_ended and engine.joined_ns > late_ns
        for engine in book.engines.values()
    )


def drain(book: Book, allowance: Allowance) -> None:
    """Move cameras off machines that are being drained."""
    for engine_id, engine in book.engines.items():
        if not engine.is_draining or not _has_cameras(book, engine_id):
            continue
        most = allowance.at(book.now_ns)
        if most < 1:
            return
        here = [machine for machine in book.usable() if machine.engine_id != engine_id]
        moves, stuck = empty(book.settled(), here, engine_id, book.options.limits, most)
        _move(book, moves, allowance)
        for source_id, why in stuck.items():
            book.cameras[source_id].why = f"{engine_id} is draining, and {why}"


def _has_cameras(book: Book, engine_id: str) -> bool:
    """Return whether an engine has cameras that will stay, or cameras moving to it; cheap even in a large fleet."""
    if any(not book.cameras[name].target for name in book.owned[engine_id]):
        return True
    return any(book.cameras[name].target == engine_id for name in book.open)


def relieve_machines(book: Book, allowance: Allowance) -> None:
    """Move cameras off overloaded machines."""
    most = allowance.at(book.now_ns)
    if most < 1:
        return
    rested_ns = book.now_ns - book.options.ns(book.options.rest_s)
    resting = {name for name, camera in book.cameras.items() if camera.moved_ns > rested_ns} | book.open
    _move(book, relieve(book.settled(), book.usable(), book.options.limits, most=most, resting=resting), allowance)


def _move(book: Book, moves: list[Move], allowance: Allowance) -> None:
    for source_id, engine_id in moves:
        move(book, source_id, engine_id)
        allowance.left -= 1


def move(book: Book, source_id: str, engine_id: str) -> None:
    """Stop a camera where it runs; once it has stopped, it is started on the other engine."""
    camera = book.cameras[source_id]
    camera.target, camera.moved_ns = engine_id, book.now_ns
    book.open.add(source_id)
    if camera.owner and camera.is_running:
        book.release(source_id)
