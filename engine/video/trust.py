"""Restricts the protocols that an address may lead to, and the TLS servers that it may talk to. Imports no numpy.

FFmpeg follows whatever a file or server refers to: lists of other files, playlists, redirects. Each address may
therefore use only the protocols of its own scheme, and no demuxer that only refers to other files, unless its name has
the suffix of such a list. A TLS server must present a certificate trusted by the system or by the file given for this
camera: FFmpeg does not check it by default, and would send the password to an impostor.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engine.video.address import VideoAddress
from engine.video.uri import NETWORK_SCHEMES, is_playlist, scheme_of

if TYPE_CHECKING:
    import ssl

HTTP = "http,https,tcp,tls,httpproxy,crypto,data"
PROTOCOLS: Mapping[str, str] = {
    "": "file",
    "file": "file",
    **dict.fromkeys(("http", "https"), HTTP),
    "rtsp": "rtsp,rtp,rtcp,srtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,rtcp,srtp,udp,tcp,tls",
    "rtmp": "rtmp,tcp",
    "rtmps": "rtmps,tls,tcp",
    "udp": "udp",
    "rtp": "rtp,rtcp,srtp,udp",
    "srt": "srt,udp",
    "tcp": "tcp",
    "tls": "tls,tcp",
}
"""Protocols that FFmpeg may use for an address, by its scheme, which is empty for a path."""
FOLLOWING = frozenset({"concat", "hls", "applehttp", "sdp", "dash", "imf", "vapoursynth", "avisynth", "lavfi"})
"""Demuxers that open other files named in the input."""
LISTS: Mapping[str, frozenset[str]] = {
    ".m3u8": frozenset({"hls", "applehttp"}),
    ".sdp": frozenset({"sdp"}),
}
TLS_PORTS: Mapping[str, int | None] = {"https": 443, "rtsps": 322, "rtmps": 443, "tls": None}
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""CA bundles of Debian, Fedora, openSUSE, RHEL and Alpine."""
_HANDSHAKE_S = 3.0
_NAME_CODES = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH
_OTHER_NAME = "write the address with the name in its certificate, or have one made for this address"
_OWN_CERTIFICATE = (
    "if it is the camera's own, save it as a file, compare its fingerprint with the camera's, and set tls: {ca: FILE}"
    " for the source; tls: insecure trusts every server, even an impostor that is after the password"
)


class UntrustedServerError(OSError):
    """The certificate of a TLS server is not trusted."""


def trust_options(target: VideoAddress, formats: frozenset[str]) -> dict[str, str]:
    """Return the FFmpeg options that restrict an address to its protocols and demuxers and verify its certificate.

    Args:
        target: the address to open.
        formats: names of FFmpeg's demuxers.
    """
    if target.format is not None and target.format in ("v4l2", "x11grab", "csi"):
        return {}
    scheme = scheme_of(target.url)
    options = {"protocol_whitelist": _protocols(target.url, scheme)}
    if scheme in ("", "file", "http", "https") and target.format is None:
        allowed = {name for name in formats if not FOLLOWING & set(name.split(","))} | _lists(target.url)
        options["format_whitelist"] = ",".join(sorted(allowed))
    if scheme in TLS_PORTS or scheme == "http":  # http may redirect to https
        options |= _tls_options(target)
    return options


def _protocols(url: str, scheme: str) -> str:
    is_list = scheme in ("", "file") and _lists(url)
    return PROTOCOLS[scheme] + (",crypto,data" if is_list else "")


def _lists(url: str) -> frozenset[str]:
    """Return the list demuxers that the name of an address allows."""
    path = urlsplit(url).path if scheme_of(url) in NETWORK_SCHEMES else url
    return LISTS.get(Path(path).suffix.lower(), frozenset()) | (LISTS[".m3u8"] if is_playlist(url) else frozenset())


def _tls_options(target: VideoAddress) -> dict[str, str]:
    if target.tls == "insecure":
        return {"tls_verify": "0"}
    bundle = target.ca_file or default_bundle()
    return {"tls_verify": "1", **({"ca_file": bundle} if bundle else {})}


def default_bundle() -> str | None:
    """Return this system's CA bundle, None if none is found."""
    places = (os.environ.get("SSL_CERT_FILE", ""), *BUNDLES)
    return next((place for place in places if place and Path(place).is_file()), None)


def untrusted_server(error: ssl.SSLCertVerificationError, host: str | None, port: int | None) -> UntrustedServerError:
    """Return the error for a server whose certificate was not accepted, with the remedy."""
    return UntrustedServerError(
        f"the certificate of {host}:{port} is not trusted ({error.verify_message.rstrip('.')}): "
        + (_OTHER_NAME if error.verify_code in _NAME_CODES else _OWN_CERTIFICATE)
    )


def check_certificate(target: VideoAddress) -> None:
    """Check whether a TLS server could not be opened because of its certificate; FFmpeg only reports a failure.

    Raises:
        UntrustedServerError: the certificate is not trusted, or was issued for another host.
    """
    scheme = scheme_of(target.url)
    if scheme not in TLS_PORTS or target.tls == "insecure":
        return
    import ssl

    try:
        parts = urlsplit(target.url)
        host, port = parts.hostname, parts.port or TLS_PORTS[scheme]
        context = ssl.create_default_context(cafile=target.ca_file or default_bundle())
        if not host or not port:
            return
        with socket.create_connection((host, port), _HANDSHAKE_S) as plain:
            context.wrap_socket(plain, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        raise untrusted_server(error, host, port) from error
    except (OSError, ValueError):
        return
