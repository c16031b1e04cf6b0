"""What the controller learns from answers: which engines are alive, what runs where, and what has stopped."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from pipelines.fleet.control.book import Book
from pipelines.fleet.control.facts import Camera, Engine
from pipelines.fleet.ledger.records import MAX_EPOCH, MAX_NAME_CHARS, Assignment, Change
from pipelines.fleet.placement.costs import updated
from pipelines.running.control_links import Answer

logger = logging.getLogger(__name__)
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
MAX_WHY_CHARS = 300
MAX_ADOPTED = 20_000
"""Cameras known only from reports: an engine could invent others each time, and the ledger keeps them for ever."""
MAX_CLOCK_NS = 1 << 62
MAX_STATE_CHARS = 20


def hear(book: Book, answer: Answer) -> None:
    """Process one answer."""
    engine = book.engines.get(answer.engine_id)
    command = answer.request.get("command")
    if engine is None:
        return
    if engine.asked.pop(id(answer.request), None) is None:
        answer = replace(answer, reply=None)  # it may come from an earlier process
    if command == "renew":
        engine.is_asked = False
    if command == "assign":
        _hear_of_assign(book, answer, engine)
    if answer.reply is None or engine.has_ended:
        return
    if _hear_engine(book, answer.engine_id, engine, answer.reply):
        if command == "renew":
            _hear_running(book, answer.engine_id, engine, answer)
        elif command == "release" and answer.reply.get("ok") and answer.reply.get("stopped") is True:
            _hear_stopped(book, answer.engine_id, answer.request)
        elif command == "assign":
            _hear_started(book, answer.engine_id, answer.request)
    elif command == "assign" and not answer.reply.get("ok"):
        _hear_refusal(book, answer.engine_id, answer.request, answer.reply)


def _hear_of_assign(book: Book, answer: Answer, engine: Engine) -> None:
    """Count the answer. Without a reply, the request may still arrive and be carried out until its lease expires."""
    camera = book.cameras.get(str(answer.request["source"]["source_id"]))
    if camera is None or (camera.owner, camera.epoch) != (answer.engine_id, answer.request["epoch"]):
        return
    camera.pending = max(camera.pending - 1, 0)
    if answer.reply is None and not engine.has_ended:
        camera.unsure_ns = engine.bound_ns + book.options.ns(book.options.margin_s)


def _hear_engine(book: Book, engine_id: str, engine: Engine, reply: dict[str, Any]) -> bool:
    """Record that an engine answered, with its clock; return whether it did as requested."""
    incarnation, clock_ns = reply.get("incarnation"), reply.get("engine_ns")
    if reply.get("ok") is not True:
        if reply.get("conflict") and "incarnation" in str(reply.get("error")):
            engine.incarnation = ""  # a different process answers there: learn its state first
        return False
    if (
        not isinstance(incarnation, str)
        or not _is_name(incarnation)
        or type(clock_ns) is not int
        or abs(clock_ns) > MAX_CLOCK_NS
    ):
        logger.error("engine %s does not belong to a fleet: its answer has no incarnation and clock", engine_id)
        return False
    if reply.get("engine_id", engine_id) != engine_id:
        logger.error("the engine at the address of %s is %s: not used", engine_id, str(reply["engine_id"])[:100])
        return False
    if incarnation != engine.incarnation:
        book.distrust(engine_id)
    engine.incarnation, engine.clock_ns, engine.heard_ns = incarnation, clock_ns, book.now_ns
    return True


def _hear_running(book: Book, engine_id: str, engine: Engine, answer: Answer) -> None:
    """Compare what an engine runs with the ledger."""
    reply, asked_ns = answer.reply or {}, engine.renewed_ns
    found = reply.get("owned")
    if engine.settled is not None and (found is engine.settled or found == engine.settled):
        return
    engine.running = _reports(found) if isinstance(found, dict) else {}
    left_out = 0
    for source_id, report in engine.running.items():
        camera = _known_camera(book, source_id)
        if camera is None:
            left_out += 1
            continue
        if (engine_id, report["epoch"]) == (camera.owner, camera.epoch):
            if not camera.is_running and report.get("state") != "stopping":
                _run(book, source_id, camera)
            camera.cost = updated(camera.cost, report)
        elif report["epoch"] > camera.epoch:
            _adopt(book, engine_id, source_id, camera, report["epoch"])
        elif report.get("state") != "stopping":
            logger.warning("%s still runs %s of epoch %d: stopping it", engine_id, source_id, report["epoch"])
            book.stop(engine_id, source_id, report["epoch"])
    if left_out:
        logger.error("%s runs %d cameras that nobody configured: %d are known", engine_id, left_out, MAX_ADOPTED)
    for source_id in [name for name in book.owned[engine_id] if name not in engine.running]:
        camera = book.cameras[source_id]
        if camera.since_ns < asked_ns and not camera.pending and _is_sure(book, camera):
            _hear_absent(book, source_id, camera)
    mine = book.owned[engine_id]
    agrees = engine.running.keys() == mine and all(book.cameras[name].is_running for name in mine)
    engine.settled = found if agrees else None


def _known_camera(book: Book, source_id: str) -> Camera | None:
    """Return a camera that an engine reports; None for one that is not configured if there are too many of those."""
    camera = book.cameras.get(source_id)
    if camera is None:
        if len(book.cameras) >= MAX_ADOPTED:
            return None
        camera = book.cameras[source_id] = Camera(None)
    return camera


def _run(book: Book, source_id: str, camera: Camera) -> None:
    camera.is_running, camera.failures, camera.why, camera.free_ns = True, 0, "", 0
    camera.has_run = True
    camera.unsure_ns = 0
    if not camera.target and camera.spec is not None:
        book.open.discard(source_id)


def _adopt(book: Book, engine_id: str, source_id: str, camera: Camera, epoch: int) -> None:
    """Correct a ledger that is behind, as after restoring a backup: it must have assigned that epoch earlier."""
    logger.warning("the ledger is behind: %s runs %s of epoch %d; recorded", engine_id, source_id, epoch)
    done = book.put([Change(camera.held, Assignment(source_id, engine_id, epoch))], ["adopted"])
    if done and camera.spec is not None:
        _run(book, source_id, camera)


def _hear_absent(book: Book, source_id: str, camera: Camera) -> None:
    """Handle a camera that its owner does not run: the request or the lease was lost, or it was told to stop."""
    if camera.is_running and not camera.released_ns:
        camera.why = "its engine stopped it"
    camera.is_running = False
    book.free(source_id, "stopped")


def _hear_stopped(book: Book, engine_id: str, request: dict[str, Any]) -> None:
    camera = book.cameras.get(str(request.get("source_id")))
    if camera is None or (camera.owner, camera.epoch) != (engine_id, request.get("epoch")):
        return  # it was stopped in an earlier epoch
    if book.now_ns > camera.free_ns:
        book.free(str(request["source_id"]), "stopped")


def _hear_started(book: Book, engine_id: str, request: dict[str, Any]) -> None:
    source_id = str(request["source"]["source_id"])
    camera = book.cameras.get(source_id)
    if camera is not None and (camera.owner, camera.epoch) == (engine_id, request["epoch"]):
        _run(book, source_id, camera)


def _hear_refusal(book: Book, engine_id: str, request: dict[str, Any], reply: dict[str, Any]) -> None:
    """Handle a refusal: the engine does not run the camera, but may do so in another epoch, or another engine may."""
    source_id = str(request["source"]["source_id"])
    camera = book.cameras.get(source_id)
    if camera is None or (camera.owner, camera.epoch) != (engine_id, request["epoch"]):
        return
    camera.failures += 1
    epoch = reply.get("epoch")
    if isinstance(epoch, int) and _is_epoch(epoch):
        camera.highest = max(camera.highest, epoch)  # a ledger restored from a backup is behind
    wait_s = 0.0 if reply.get("conflict") else min(FIRST_RETRY_S * 2.0 ** (camera.failures - 1), LAST_RETRY_S)
    camera.retry_ns = book.now_ns + book.options.ns(wait_s)
    camera.why = f"{engine_id} refused it: {str(reply.get('error'))[:MAX_WHY_CHARS]}"
    logger.warning("%s: %s", source_id, camera.why)
    if not camera.pending and _is_sure(book, camera) and source_id not in book.engines[engine_id].running:
        book.free(source_id, "refused")


def _is_sure(book: Book, camera: Camera) -> bool:
    """Return whether no request still on its way can change the engine's report about a camera."""
    return book.now_ns > max(camera.free_ns, camera.unsure_ns)


def _reports(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the reports of cameras that can exist, with an epoch; others are left out."""
    return {
        name: report if _is_short(report.get("state", "")) else report | {"state": "unknown"}
        for name, report in found.items()
        if _is_name(name) and isinstance(report, dict) and _is_epoch(report.get("epoch"))
    }


def _is_short(state: Any) -> bool:
    return isinstance(state, str) and len(state) <= MAX_STATE_CHARS


def _is_epoch(value: Any) -> bool:
    return type(value) is int and 0 < value < MAX_EPOCH


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS
