"""Lets a process connect only to its camera, because FFmpeg would send the password wherever a camera redirects.

The kernel asks a thread here about each `connect` (seccomp user notification, Linux 5.5), as neither seccomp nor
Landlock can look at an address. Only FFmpeg's own calls are checked: code that controls the process could race the
check. Numbers and layouts: linux/seccomp.h. Imports no numpy.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

logger = logging.getLogger(__name__)
DNS_PORT = 53
LOOK_UPS = 3  # a name server may list the addresses of a name in parts
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_CONNECT = {"x86_64": 42, "aarch64": 203}
_SET_FILTER, _NEW_LISTENER = 1, 8
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_CONTINUE = 1
_NOTIFICATION = struct.Struct("QIIiIQ6Q")
_REPLY = struct.Struct("QqiI")
_ADDRESS_BYTES = 28
_EACCES, _EINTR, _ENOENT = 13, 4, 2


def confine_connections(libc: ctypes.CDLL, machine: str, arch: int, host: str, port: int) -> bool:
    """Let this thread, and those that it starts, connect over TCP only to one host and port, and to name servers.

    Returns:
        Whether the kernel supports it.
    """
    ready: threading.Event = threading.Event()
    listener: list[int] = []

    def judge() -> None:
        ready.wait()
        if listener:
            _judge(libc, listener[0], lambda address, to: _is_allowed(host, port, address, to))

    thread = threading.Thread(target=judge, name="connections", daemon=True)
    thread.start()  # started before the filter, which new threads inherit: otherwise it would wait for itself
    descriptor = _install(libc, machine, arch)
    if descriptor >= 0:
        listener.append(descriptor)
    ready.set()
    return descriptor >= 0


def _install(libc: ctypes.CDLL, machine: str, arch: int) -> int:
    """Return the descriptor on which the kernel asks; negative if it is not supported."""
    steps = (
        (_LOAD, 4, 0, 0),
        (_EQUAL, arch, 0, 3),
        (_LOAD, 0, 0, 0),
        (_EQUAL, _CONNECT[machine], 0, 1),
        (_RETURN, _ASK, 0, 0),
        (_RETURN, _ALLOW, 0, 0),
    )
    program = b"".join(struct.pack("HBBI", code, yes, no, value) for code, value, yes, no in steps)
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code))
    return int(libc.syscall(_SECCOMP[machine], _SET_FILTER, _NEW_LISTENER, ctypes.c_char_p(header)))


def _judge(libc: ctypes.CDLL, listener: int, is_allowed: Callable[[str, int], bool]) -> None:
    """Answer the kernel until the last thread with the filter has ended."""
    while True:
        notification = ctypes.create_string_buffer(_NOTIFICATION.size)
        if libc.ioctl(listener, ctypes.c_ulong(_RECEIVE), notification) != 0:
            if ctypes.get_errno() in (_EINTR, _ENOENT):
                continue
            return
        identifier, _, _, _, _, _, descriptor, place, size, *_ = _NOTIFICATION.unpack(notification.raw)
        error = -_EACCES
        with suppress(Exception):  # without an answer FFmpeg would hang
            error = 0 if _may_connect(descriptor, place, size, is_allowed) else error
        reply = _REPLY.pack(identifier, 0, error, 0 if error else _CONTINUE)
        libc.ioctl(listener, ctypes.c_ulong(_ANSWER), ctypes.create_string_buffer(reply, len(reply)))


def _may_connect(descriptor: int, place: int, size: int, is_allowed: Callable[[str, int], bool]) -> bool:
    with socket.socket(fileno=os.dup(descriptor & 0xFFFFFFFF)) as connecting:
        is_tcp = connecting.type == socket.SOCK_STREAM and connecting.family in (socket.AF_INET, socket.AF_INET6)
    if not is_tcp:
        return True
    raw = ctypes.string_at(place, min(size, _ADDRESS_BYTES))
    family, port = struct.unpack_from("=H", raw)[0], struct.unpack_from("!H", raw, 2)[0]
    if family == socket.AF_INET:
        return is_allowed(socket.inet_ntop(socket.AF_INET, raw[4:8]), port)
    if family == socket.AF_INET6:
        return is_allowed(socket.inet_ntop(socket.AF_INET6, raw[8:24]), port)
    return True  # AF_UNSPEC disconnects


def _is_allowed(host: str, port: int, address: str, to: int) -> bool:
    if to == DNS_PORT:
        return True
    if to != port:
        return False
    for _ in range(LOOK_UPS):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        if address.removeprefix("::ffff:") in {str(entry[4][0]).partition("%")[0] for entry in found}:
            return True
    return False
