"""TLS: a certificate and its key, reloaded when their files change, and self-signed ones for a local network."""

from __future__ import annotations

import datetime
import ipaddress
import logging
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from engine.errors import ConfigError
from engine.optional import require
from engine.paths import path_from_text
from pipelines.web.access.listen import address_of

logger = logging.getLogger(__name__)
VALID_DAYS = 825  # the maximum that Apple's systems accept
KEY_MODE = 0o600


@dataclass(slots=True)
class TlsFiles:
    """A certificate chain and its private key, both PEM.

    Attributes:
        certificate: the file of the chain.
        key: the file of the key; may be the same.
    """

    certificate: Path
    key: Path
    _context: ssl.SSLContext | None = field(default=None, repr=False)
    _loaded: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> TlsFiles:
        """Return the files of `CERTIFICATE,KEY`, or of one file that holds both.

        >>> TlsFiles.parse("cert.pem,key.pem").key
        PosixPath('key.pem')
        """
        certificate, _, key = text.partition(",")
        return cls(path_from_text(certificate), path_from_text(key or certificate))

    def context(self) -> ssl.SSLContext:
        """Return the server's context.

        Raises:
            ConfigError: a file cannot be read, or they do not belong together.
        """
        if self._context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            self._load(context)
            self._context = context
        return self._context

    def refresh(self) -> bool:
        """Reload the files if they changed, and return whether they did. New connections use them.

        If the files do not match yet, because they are being replaced, the earlier ones stay in use.
        """
        if self._context is None or self._stamps() == self._loaded:
            return False
        try:
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self._context)
        except ConfigError as error:
            logger.warning("the earlier certificate stays in use: %s", error)
            return False
        return True

    def _load(self, context: ssl.SSLContext) -> None:
        stamps = self._stamps()
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ssl.SSLError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(
                f"TLS with {self.certificate} and {self.key}: {reason}: "
                "expected a PEM certificate and its unencrypted key"
            ) from error
        self._loaded = stamps

    def _stamps(self) -> tuple[int, ...]:
        return tuple(_changed_ns(path) for path in (self.certificate, self.key))


def _no_password() -> str:
    """Reject an encrypted key, because OpenSSL would prompt on the terminal, and a service has none."""
    raise ValueError("the key is encrypted")


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def make_certificate(host: str, folder: str | Path) -> TlsFiles:
    """Create a self-signed certificate for a host name or address; the key's mode is 0600.

    Args:
        host: the name by which browsers and programs reach it.
        folder: where to write `HOST.pem` and `HOST.key`.

    Raises:
        ConfigError: the files exist, the folder is not writable, or the name is not valid.
        MissingDependencyError: the package cryptography is not installed.
    """
    name = host.strip("[]")
    if not name or len(name) > 253 or not set(name).isdisjoint("/\\\0 ,") or name.startswith("."):
        raise ConfigError(f"{host!r}: expected a host name or an address")
    files = TlsFiles(Path(folder) / f"{name}.pem", Path(folder) / f"{name}.key")
    for path in (files.certificate, files.key):
        if path.exists():
            raise ConfigError(f"{path} exists: remove it to make a new one")
    certificate, key = _self_signed(name)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(files.key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, KEY_MODE), "wb") as file:
            file.write(key)
        files.certificate.write_bytes(certificate)
    except OSError as error:
        raise ConfigError(f"cannot write a certificate to {folder}: {error.strerror}") from error
    return files


def _self_signed(name: str) -> tuple[bytes, bytes]:
    x509 = require("cryptography.x509", extra="web")
    oid = require("cryptography.x509.oid", extra="web").NameOID
    hashes = require("cryptography.hazmat.primitives.hashes", extra="web")
    elliptic = require("cryptography.hazmat.primitives.asymmetric.ec", extra="web")
    forms = require("cryptography.hazmat.primitives.serialization", extra="web")
    key = elliptic.generate_private_key(elliptic.SECP256R1())
    subject = x509.Name([x509.NameAttribute(oid.COMMON_NAME, name[:64])])
    address = address_of(name)
    alternative = x509.DNSName(name) if address is None else x509.IPAddress(ipaddress.ip_address(str(address)))
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    return certificate.public_bytes(forms.Encoding.PEM), text
