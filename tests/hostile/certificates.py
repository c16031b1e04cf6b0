"""The tests' own certificate authority, and servers with its certificates; made by the openssl command."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Authority:
    """Files of an authority in a folder."""

    folder: Path

    @property
    def ca(self) -> str:
        """The file to trust."""
        return str(self.folder / "ca.pem")

    def server(self, name: str) -> ssl.SSLContext:
        """Return the context of a server with a certificate for `name`, such as `IP:127.0.0.1`."""
        stem = self.folder / name.replace(":", "-")
        Path(f"{stem}.ext").write_text(f"subjectAltName={name}\n")
        request = f"req -newkey rsa:2048 -nodes -keyout {stem}.key -out {stem}.csr -subj /CN=camera"
        _openssl(request)
        sign = f"x509 -req -in {stem}.csr -CA {self.ca} -CAkey {self.folder}/ca.key -CAcreateserial -days 2"
        _openssl(f"{sign} -out {stem}.pem -extfile {stem}.ext")
        return context(f"{stem}.pem", f"{stem}.key")


def authority(folder: Path) -> Authority:
    """Make an authority, or skip the test if the command is missing."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command: apt-get install openssl")
    command = f"req -x509 -newkey rsa:2048 -nodes -keyout {folder}/ca.key -out {folder}/ca.pem -days 2 -subj /CN=test"
    _openssl(f"{command} -addext basicConstraints=critical,CA:TRUE")
    return Authority(folder)


def self_signed(folder: Path) -> tuple[ssl.SSLContext, str]:
    """Return the context of a camera with a self-signed certificate, and that certificate to trust."""
    stem = folder / "own"
    command = f"req -x509 -newkey rsa:2048 -nodes -keyout {stem}.key -out {stem}.pem -days 2 -subj /CN=camera"
    _openssl(f"{command} -addext subjectAltName=IP:127.0.0.1")
    return context(f"{stem}.pem", f"{stem}.key"), f"{stem}.pem"


def context(certificate: str, key: str) -> ssl.SSLContext:
    """Return the context of a server."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(certificate, key)
    return made


def _openssl(arguments: str) -> None:
    subprocess.run(["openssl", *arguments.split()], check=True, capture_output=True, timeout=60)
