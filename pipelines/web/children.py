"""Jobs about the past in separate processes, because they may take long, need FFmpeg, or hang on a disk."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from engine.errors import ConfigError, EngineError

MODULE = "pipelines.history.jobs"
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_HEAD_BYTES = 64 * 1024
MAX_STREAMS = 16
MAX_QUESTIONS = 4
MAX_LONG = 1
LONG = ("rules",)


class BusyError(EngineError):
    """The maximum number of jobs is running: try again later."""


@dataclass
class Running:
    """A job whose answer is a stream.

    Attributes:
        head: its first line, decoded.
        process: the process that runs it.
    """

    head: dict[str, Any]
    process: asyncio.subprocess.Process

    async def chunks(self, size: int = 64 * 1024) -> AsyncIterator[bytes]:
        """Yield the data after the head."""
        assert self.process.stdout is not None
        while data := await self.process.stdout.read(size):
            yield data


class Jobs:
    """Starts jobs, a few at a time. Used on one event loop.

    Attributes:
        streams: number of streams being sent.
    """

    def __init__(self) -> None:
        self.streams = 0
        self._asked = self._long = 0

    async def answer(self, kind: str, job: Mapping[str, Any], limit_s: float) -> Any:
        """Return the answer of a job.

        Raises:
            BusyError: too many jobs are running.
            ConfigError: the job refuses its input.
            EngineError: it failed, or took longer than `limit_s`.
        """
        is_long = kind in LONG
        if (is_long and self._long >= MAX_LONG) or self._asked >= MAX_QUESTIONS:
            raise BusyError("another question is being answered: try again in a moment")
        self._asked, self._long = self._asked + 1, self._long + is_long
        try:
            async with _process(kind, job) as process:
                return _decoded(await asyncio.wait_for(_read(process), limit_s))
        except asyncio.TimeoutError as error:
            raise EngineError(f"no answer within {limit_s:g} s: ask about a shorter span of time") from error
        finally:
            self._asked, self._long = self._asked - 1, self._long - is_long

    @asynccontextmanager
    async def stream(self, kind: str, job: Mapping[str, Any], limit_s: float) -> AsyncIterator[Running]:
        """Yield a job whose head has arrived; it ends with the context. Raises like `answer`."""
        if self.streams >= MAX_STREAMS:
            raise BusyError(f"{MAX_STREAMS} recordings are being played: try again in a moment")
        self.streams += 1
        try:
            async with _process(kind, job) as process:
                assert process.stdout is not None
                head = _decoded(await asyncio.wait_for(process.stdout.readline(), limit_s))
                yield Running(head, process)
        except asyncio.TimeoutError as error:
            raise EngineError("the recording cannot be read in time: is its disk available?") from error
        finally:
            self.streams -= 1


@asynccontextmanager
async def _process(kind: str, job: Mapping[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yield the process of a job, which ends with the context or with this process."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", MODULE, stdin=pipe, stdout=pipe, limit=MAX_HEAD_BYTES
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps({kind: job}).encode() + b"\n")
        await process.stdin.drain()
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)  # process.kill() would take the exit status away from asyncio
        await process.wait()


async def _read(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    found = bytearray()
    while data := await process.stdout.read(1 << 16):
        found += data
        if len(found) > MAX_ANSWER_BYTES:
            raise EngineError("the answer is too large: ask about a shorter time span")
    return bytes(found)


def _decoded(line: bytes) -> Any:
    """Return an answer. Raises `ConfigError` or `EngineError` if it is a refusal."""
    if not line:
        raise EngineError("the answering process ended; see the log")
    answer = json.loads(line)
    if "refused" in answer:
        raise ConfigError(str(answer["refused"]))
    if "broken" in answer:
        raise EngineError(str(answer["broken"]))
    return answer
