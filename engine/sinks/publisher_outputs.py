"""All sockets of a publisher: those that readers connect to, and the one that connects to collectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import zmq

from engine.errors import ConfigError, SinkError
from engine.sinks.publisher_sockets import FanOut, LatestOnly, SnapshotServer, SocketOptions
from engine.transport.address import checked_address
from engine.transport.guard import SocketGuard

if TYPE_CHECKING:
    from engine.transport.keys import KeyPair

UNBOUND = "none"
NOT_ON_EVENTS = frozenset(("frame", "stats", "image", "crop"))


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where a publisher connects to, in addition to what it binds.

    Attributes:
        addresses: of collectors (`framewire proxy --collect`).
        server_key: their public key; None: they do not encrypt.
        keys: CURVE keys by which they identify this publisher.
    """

    addresses: tuple[str, ...]
    server_key: str | None = None
    keys: KeyPair | None = None

    @classmethod
    def of(cls, addresses: Sequence[str], server_key: str | None, keys: KeyPair | None) -> Upstream | None:
        """Return where to connect; None if there is no address.

        Raises:
            ConfigError: an address is not valid, or keys are incomplete.
        """
        if not addresses:
            if server_key is not None:
                raise ConfigError("a key of collectors without their addresses: give both, or neither")
            return None
        if (server_key is None) != (keys is None):
            raise ConfigError("publishing to collectors with CURVE needs their public key and keys of this engine")
        checked = tuple(checked_address(each, "publish connect", to_bind=False) for each in addresses)
        return cls(checked, server_key, keys)


class Outputs:
    """The sockets of one publisher; use it on one thread after `bind`.

    Args:
        address: endpoint of the main socket; `none`: it is not bound.
        others: endpoints of `events`, `latest` and `snapshot`, if wanted.
        upstream: where to connect to; None: nowhere.
        options: shared by all sockets.

    Attributes:
        address: the bound endpoint, once bound.
        endpoints: the further bound endpoints by name.
        guard: of the bound sockets.
        is_open: whether the sockets are bound.

    Raises:
        ConfigError: an address is invalid, or there is nothing to bind or connect to.
    """

    def __init__(
        self, address: str, others: Mapping[str, str], upstream: Upstream | None, options: SocketOptions
    ) -> None:
        if address == UNBOUND and (upstream is None or "events" in others):
            raise ConfigError("publish address none: give an address to bind, or collectors to connect to")
        self.address = address if address == UNBOUND else checked_address(address, "publish address")
        self._others = {name: checked_address(each, f"publish {name}") for name, each in others.items()}
        self._upstream, self._options = upstream, options
        self.endpoints: dict[str, str] = {}
        self.guard = SocketGuard()
        self._context: zmq.Context[Any] | None = None
        self._fans: dict[str, FanOut] = {}
        self._latest: LatestOnly | None = None
        self._snapshots: SnapshotServer | None = None

    @property
    def is_open(self) -> bool:
        """Whether `bind` has succeeded and `close` has not been called."""
        return self._context is not None

    @property
    def has_latest(self) -> bool:
        """Whether there is a socket for the newest state."""
        return self._latest is not None

    @property
    def refused(self) -> int:
        """Requests for snapshots that were dropped."""
        return 0 if self._snapshots is None else self._snapshots.refused

    @property
    def overflows(self) -> dict[str, int]:
        """Number of times that a message met a reader's full queue, by kind.

        Entries of the other sockets are marked.
        """
        return {
            (kind if name == "main" else f"{name}:{kind}"): count
            for name, fan in self._fans.items()
            for kind, count in fan.overflows.items()
        }

    def bind(self) -> None:
        """Bind and connect all sockets; harmless when repeated.

        Raises:
            SinkError: a port is in use, or this machine does not have the address.
        """
        if self._context is not None:
            return
        context = self._context = zmq.Context()
        self.guard = SocketGuard()
        curve = self._options.curve
        if curve is not None:
            curve.guard = self.guard
            curve.open(context)
        try:
            self._open(context, replace(self._options, guard=self.guard))
            self.guard.start()
        except SinkError:
            self.close()
            raise

    def _open(self, context: zmq.Context[Any], options: SocketOptions) -> None:
        others = self._others
        if self.address != UNBOUND:
            main = self._fans["main"] = FanOut(context, self.address, options)
            self.address = main.address
        if "events" in others:
            events = self._fans["events"] = FanOut(context, others["events"], options)
            self.endpoints["events"] = events.address
        if "latest" in others:
            self._latest = LatestOnly(context, others["latest"], options)
            self.endpoints["latest"] = self._latest.address
        if "snapshot" in others:
            self._snapshots = SnapshotServer(context, others["snapshot"], options)
            self.endpoints["snapshot"] = self._snapshots.address
        if self._upstream is not None:
            up = self._upstream
            self._fans["collector"] = FanOut.connected(context, up.addresses, options, up.server_key, up.keys)

    def send(self, kind: str, *parts: bytes) -> None:
        """Send a message on the sockets that carry its kind. Raises `SinkError` before `open`."""
        if self._context is None:
            raise SinkError(f"{self.address} is not open: call open() before publishing")
        for name, fan in self._fans.items():
            if name != "events" or kind not in NOT_ON_EVENTS:
                fan.send(kind, *parts)

    def send_latest(self, body: bytes) -> None:
        """Replace the newest state."""
        if self._latest is not None:
            self._latest.send(body)

    def service(self, snapshot: Callable[[], bytes]) -> None:
        """Answer requests for snapshots and for admission."""
        if self._options.curve is not None:
            self._options.curve.service()
        if self._snapshots is not None:
            self._snapshots.service(snapshot)

    def service_readers(self) -> None:
        """Read the readers' subscriptions, so that they do not pile up."""
        for fan in self._fans.values():
            fan.service()

    def close(self) -> None:
        """Close all sockets; messages already sent linger. Harmless when repeated."""
        self.guard.close()
        for socket in (*self._fans.values(), self._latest, self._snapshots):
            if socket is not None:
                socket.close()
        self._fans, self._latest, self._snapshots = {}, None, None
        if self._options.curve is not None:
            self._options.curve.close()
        if self._context is not None:
            self._context.term()
            self._context = None
