"""Sandboxes a process before it reads video from, or pushes it to, an untrusted peer; Linux only, as far as it can.

- `no_new_privs`, no core files, and a limit on private memory if the CPU decodes.
- seccomp: no other programs, no access to other processes' memory or signals, no tracing, no namespaces; if the source
  is a device or the screen, no network.
- Landlock: no file may be written, created or removed, except in the folder of a recording; a process that reads
  network streams may read only the files of Python, of system libraries and of devices, so a playlist that names a
  private file cannot open it. An RTSP or RTMP server is reachable only at its own port, and an RTSP camera at its own
  host (`connections`): FFmpeg would send the password along when a camera answers 302 with another address.

The process that cuts clips and images from recordings gets the first two, without network access; it writes files in
several folders. `reader: thread` runs without a sandbox. On a Jetson only the first part applies, because GStreamer
starts its own helper processes. Numbers and layouts: linux/seccomp.h, linux/filter.h, linux/landlock.h. Imports no
numpy.
"""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from engine.video.address import VideoAddress
from engine.video.gstreamer import is_jetson
from engine.video.hardware import CPU, DEVICE_TYPES, why_not_device
from engine.video.network import RTMP_PORTS, RTSP_PORTS
from engine.video.sandbox.connections import DNS_PORT, confine_connections
from engine.video.sizes.limits import MAX_PIXELS, decoder_bytes
from engine.video.trust import default_bundle
from engine.video.uri import NETWORK_SCHEMES, scheme_of

logger = logging.getLogger(__name__)
_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_ARCHES: Mapping[str, tuple[int, int]] = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
_SYSCALLS: Mapping[str, tuple[int, int | None]] = {  # by architecture: x86_64, aarch64
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, None), "vfork": (58, None), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kill": (62, 129), "tkill": (200, 130),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "mount": (165, 40),
    "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "keyctl": (250, 219), "add_key": (248, 217),
    "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104), "chroot": (161, 51),
}  # fmt: skip
_SOCKET = (41, 198)
_ALLOW, _DENY, _KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000  # SECCOMP_RET_ERRNO with EPERM
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32 = 0x40000000
_AF_UNIX = 1
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_EXECUTE, _WRITE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_CHANGE = sum(1 << bit for bit in range(4, 13))  # create and remove entries of every kind
_CONNECT_TCP, _NET_PORT, _NET_ABI = 1 << 1, 2, 4
_SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/opt",
    "/run",
    "/proc",
    "/sys",
    "/nix",
    "/gnu",
    "/var/lib/ca-certificates",
)


def confine(
    target: VideoAddress, writable: str | None = None, *, memory_bytes: int | None = None, pushes: bool = False
) -> None:
    """Drop every permission that `target` does not need, as far as this kernel supports it.

    Args:
        target: what is read, or written to.
        writable: folder in which files may be written, created and removed; it must exist.
        memory_bytes: limit on private memory; None: what decoding its frames can take.
        pushes: the target is written to. FFmpeg then follows no redirect, and PyAV holds the GIL while it connects, so
            that no thread could check its connections.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if not sys.platform.startswith("linux") or libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return
    if is_jetson():
        return
    if _is_decoded_by_cpu(target):
        limit = memory_bytes or decoder_bytes(target.max_pixels)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    is_network = scheme_of(target.url) in NETWORK_SCHEMES
    if not _landlock(libc, target, is_network, writable):
        logger.debug("Landlock is unavailable: this process may open any file")
    if platform.machine() not in _ARCHES or not _seccomp(libc, is_network):
        logger.debug("seccomp is unavailable: this process may make any system call")
    elif not (pushes or _one_host(libc, target)):
        logger.debug("seccomp cannot notify: a redirect of the camera may lead to another host at the same port")


def _one_host(libc: ctypes.CDLL, target: VideoAddress) -> bool:
    """Allow an RTSP camera to be reached only at its own host; return False if the kernel does not support this."""
    if target.host_port is None or scheme_of(target.url) not in RTSP_PORTS:
        return True
    machine = platform.machine()
    return confine_connections(libc, machine, _ARCHES[machine][0], *target.host_port)


def confine_files(*, has_network: bool) -> None:
    """Drop the permissions that a process for media files does not need, as far as this kernel supports it.

    Args:
        has_network: whether it also talks to a database server.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if not sys.platform.startswith("linux") or libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return
    limit = decoder_bytes(MAX_PIXELS)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if platform.machine() not in _ARCHES or not _seccomp(libc, has_network):
        logger.debug("seccomp is unavailable: this process may make any system call")


def _is_decoded_by_cpu(target: VideoAddress) -> bool:
    """Return whether no GPU driver is involved: those reserve memory by the gigabyte."""
    return set(target.decoders) == {CPU} or all(why_not_device(decoder) for decoder in DEVICE_TYPES)


def _seccomp(libc: ctypes.CDLL, has_network: bool) -> bool:
    arch, column = _ARCHES[platform.machine()]
    program = b"".join(_filter(arch, column, has_network))
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code))
    return bool(libc.prctl(_SET_SECCOMP, _FILTER, ctypes.c_char_p(header), 0, 0) == 0)


def _filter(arch: int, column: int, has_network: bool) -> Iterator[bytes]:
    """Yield the instructions of the filter: a deny list, as library updates would break an allow list."""
    yield _step(_LOAD, 4)
    yield _step(_EQUAL, arch, 1, 0)
    yield _step(_RETURN, _KILL)
    yield _step(_LOAD, 0)
    yield _step(_AT_LEAST, _X32, 0, 1)
    yield _step(_RETURN, _DENY)
    for numbers in _SYSCALLS.values():
        number = numbers[column]
        if number is not None:
            yield _step(_EQUAL, number, 0, 1)
            yield _step(_RETURN, _DENY)
    if not has_network:
        yield _step(_EQUAL, _SOCKET[column], 0, 3)
        yield _step(_LOAD, 16)  # the domain, argument 0
        yield _step(_EQUAL, _AF_UNIX, 1, 0)
        yield _step(_RETURN, _DENY)
    yield _step(_RETURN, _ALLOW)


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _landlock(libc: ctypes.CDLL, target: VideoAddress, is_network: bool, writable: str | None) -> bool:
    """Restrict file access; return False if the kernel has no Landlock."""
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    read = _READ_FILE | _READ_DIR if is_network else 0
    ports = _ports(target) if version >= _NET_ABI else ()
    handled = struct.pack("Q", _EXECUTE | _WRITE | _CHANGE | read)
    if ports:
        handled += struct.pack("Q", _CONNECT_TCP)
    rules = libc.syscall(_LANDLOCK_CREATE, ctypes.c_char_p(handled), ctypes.c_size_t(len(handled)), 0)
    if rules < 0:
        return False
    try:
        _allow(libc, rules, "/dev", _WRITE | read)
        if writable is not None:
            _allow(libc, rules, writable, _WRITE | _CHANGE | read)
        for place in _readable(target) if is_network else ():
            _allow(libc, rules, place, read)
        for port in ports:
            rule = struct.pack("QQ", _CONNECT_TCP, port)
            libc.syscall(_LANDLOCK_ADD, rules, _NET_PORT, ctypes.c_char_p(rule), 0)
        return bool(libc.syscall(_LANDLOCK_RESTRICT, rules, 0) == 0)
    finally:
        os.close(rules)


def _ports(target: VideoAddress) -> tuple[int, ...]:
    """Return the TCP ports that the process may connect to; empty means any port."""
    scheme = scheme_of(target.url)
    if scheme in RTMP_PORTS:
        return (urlsplit(target.url).port or RTMP_PORTS[scheme], DNS_PORT)
    return (target.host_port[1], DNS_PORT) if target.host_port is not None and scheme in RTSP_PORTS else ()


def _readable(target: VideoAddress) -> Iterator[str]:
    """Yield the paths that a reader of a network stream may read: Python, libraries, settings, given certificates."""
    yield from (*_SYSTEM, "/var/lib/ca-certificates")
    yield from (sys.prefix, sys.base_prefix, sys.exec_prefix)
    yield from filter(os.path.isdir, sys.path)
    certificates = (target.ca_file, default_bundle(), *map(target.ffmpeg.get, ("ca_file", "cert_file", "key_file")))
    yield from filter(None, certificates)


def _allow(libc: ctypes.CDLL, rules: int, place: str, access: int) -> None:
    """Allow `access` below a path, if it exists."""
    with suppress(OSError):
        fd = os.open(place, os.O_PATH | os.O_CLOEXEC)
        try:
            is_folder = Path(place).is_dir()
            rule = struct.pack("=Qi", access if is_folder else access & (_READ_FILE | _WRITE), fd)
            libc.syscall(_LANDLOCK_ADD, rules, 1, ctypes.c_char_p(rule), 0)
        finally:
            os.close(fd)
