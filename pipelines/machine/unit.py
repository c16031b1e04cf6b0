"""The systemd unit of a run: restarted when it hangs, and permitted only what a run needs."""

from __future__ import annotations

import grp
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import ConfigError

UNIT_FOLDER = Path("/etc/systemd/system")
STATE_FOLDER = "/var/lib"
TEMPORARY = ("/tmp", "/var/tmp")
HOMES = ("/home", "/root", "/run/user")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")

_SANDBOX = """\
# What a run may do. Everything else is refused; see: systemd-analyze security {name}
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome={protect_home}
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
KeyringMode=private
LockPersonality=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0027
# Not set: MemoryDenyWriteExecute (OpenVINO and ONNX Runtime generate machine code), ProcSubset=pid (they read
# /proc/cpuinfo), and a system call filter without @resources (they pin their threads).
"""
_NO_DEVICES = "PrivateDevices=yes\n"
_DEVICES = {
    "video": ("video", ("char-video4linux", "char-media")),
    "gpu": ("video render", ("char-drm", "char-nvidia-frontend", "char-nvidia", "char-nvidia-uvm", "char-nvidia-caps")),
}


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """A service to install.

    Attributes:
        name: of the unit.
        config: absolute path of the configuration.
        command: absolute path of the command `framewire`.
        user: account to run as; None: one that systemd allocates (`DynamicUser`).
        devices: kinds of devices it may use: `video` (cameras at `/dev/video*`), `gpu`.
        writes: absolute folders that the configuration writes to.
        reads: absolute paths that it must be able to read.
    """

    name: str
    config: Path
    command: Path
    user: str | None = None
    devices: Sequence[str] = ()
    writes: Sequence[Path] = ()
    reads: Sequence[Path] = ()


def unit_text(options: ServiceOptions) -> str:
    """Return the unit.

    Raises:
        ConfigError: the name cannot be used, or the service could not read or write what it must.
    """
    _check(options)
    name, state = options.name, Path(STATE_FOLDER, options.name)
    outside = [folder for folder in options.writes if not folder.is_relative_to(state)]
    account = f"User={options.user}\n" if options.user else "DynamicUser=yes\n"
    paths = "".join(f"ReadWritePaths={_escaped(str(folder))}\n" for folder in outside)
    return (
        f"# Written by framewire service install. Secrets: NAME=value lines in /etc/framewire/{name}.env (mode 0600).\n"
        "[Unit]\n"
        f"Description=Framewire video analytics ({name})\n"
        "Wants=network-online.target\n"
        "After=network-online.target\n"
        "StartLimitIntervalSec=10min\n"
        "StartLimitBurst=5\n"
        "\n[Service]\n"
        "Type=notify\n"
        f"ExecStart={_escaped(str(options.command))} run {_escaped(str(options.config))}\n"
        "Environment=PYTHONUNBUFFERED=1\n"
        f"Environment=XDG_CACHE_HOME=%C/{name}\n"
        f"Environment=HOME=%S/{name}\n"
        f"EnvironmentFile=-/etc/framewire/{name}.env\n"
        f"StateDirectory={name}\n"
        f"CacheDirectory={name}\n"
        f"RuntimeDirectory={name}\n"
        f"WorkingDirectory=%S/{name}\n"
        f"{account}"
        "Restart=on-failure\n"
        "RestartSec=2s\n"
        "# The engine reports each second that its threads run; a TensorRT plan may take minutes before it is ready.\n"
        "WatchdogSec=30s\n"
        "TimeoutStartSec=30min\n"
        "TimeoutStopSec=30s\n"
        "KillMode=mixed\n"
        "LimitNOFILE=65536\n"
        f"{paths}"
        "\n"
        f"{_SANDBOX.format(name=name, protect_home='read-only' if options.user else 'yes')}"
        f"{_devices(options.devices)}"
        "\n[Install]\n"
        "WantedBy=multi-user.target\n"
    )


def _devices(kinds: Sequence[str]) -> str:
    if not kinds:
        return _NO_DEVICES
    groups = [group for kind in kinds for group in _DEVICES[kind][0].split() if _is_group(group)]
    classes = [name for kind in kinds for name in _DEVICES[kind][1]]
    allowed = "".join(f"DeviceAllow={name} rw\n" for name in classes)
    joined = f"SupplementaryGroups={' '.join(dict.fromkeys(groups))}\n" if groups else ""
    return f"DevicePolicy=closed\n{allowed}{joined}"


def _is_group(name: str) -> bool:
    """Return whether this machine has a group, because systemd does not start a unit with a missing one."""
    try:
        return bool(grp.getgrnam(name))
    except KeyError:
        return False


def _check(options: ServiceOptions) -> None:
    if not _NAME.fullmatch(options.name):
        raise ConfigError(f"service name {options.name!r}: expected a-z, 0-9, - and _, starting with a letter")
    if options.user is not None and not _NAME.fullmatch(options.user):
        raise ConfigError(f"user {options.user!r}: expected the name of an account")
    unknown = set(options.devices) - set(_DEVICES)
    if unknown:
        raise ConfigError(f"devices {min(unknown)!r}: expected one of: {', '.join(_DEVICES)}")
    temporary = [path for path in (options.config, *options.reads) if _is_below(path, TEMPORARY)]
    if temporary:
        raise ConfigError(f"the service cannot read {temporary[0]}: it has its own /tmp; put it into /etc or /srv")
    if options.user is not None:
        return
    hidden = [path for path in (options.command, options.config, *options.reads) if _is_below(path, HOMES)]
    if hidden:
        raise ConfigError(
            f"the service cannot read {hidden[0]}, which is in a home folder: put it elsewhere (the program into "
            "/opt/framewire, configurations into /etc/framewire, models into /srv), or give --user ACCOUNT"
        )
    state = Path(STATE_FOLDER, options.name)
    foreign = [folder for folder in options.writes if not folder.is_relative_to(state)]
    if foreign:
        raise ConfigError(
            f"the configuration writes to {foreign[0]}: give --user ACCOUNT of one that may write there, or use a "
            f"folder below {state}, which the service owns"
        )


def _is_below(path: Path, folders: Sequence[str]) -> bool:
    return any(path.is_relative_to(folder) or path.resolve().is_relative_to(folder) for folder in folders)


def _escaped(text: str) -> str:
    r"""Return a word of a unit file as systemd reads it.

    >>> _escaped('/srv/a b/100%')
    '"/srv/a b/100%%"'
    """
    if "\n" in text or "\0" in text:
        raise ConfigError(f"{text!r} cannot be in a unit file")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if re.search(r"[^\w/.:@%$\\-]", text) else text


def is_systemd_running() -> bool:
    """Return whether systemd manages this machine (in containers it usually does not)."""
    return os.path.isdir("/run/systemd/system")
