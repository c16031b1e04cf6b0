"""Which protocols an address may lead to, and which TLS servers it may talk to. Imports no numpy.

FFmpeg follows what a file or server names: lists of other files, playlists, redirects. Each address therefore gets the
protocols of its own scheme alone, and no demuxer that only names other files, unless its name says that it is one. A
TLS server must show a certificate that the system, or the file given for this camera, vouches for: FFmpeg itself does
not look at it, and a false server would be sent the password.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from engine.video.address import VideoAddress
from engine.video.uri import NETWORK_SCHEMES, is_playlist, scheme_of

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
"""Protocols that FFmpeg may use for an address, by its scheme; none for a path."""
FOLLOWING = frozenset({"concat", "hls", "applehttp", "sdp", "dash", "imf", "vapoursynth", "avisynth", "lavfi"})
"""Demuxers that open what a file names."""
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
"""Where Debian, Fedora, openSUSE, RHEL and Alpine keep the authorities that they trust."""
_HANDSHAKE_S = 3.0
_NAME_CODES = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH
_OTHER_NAME = "write the address with the name in its certificate, or have one made for this address"
_OWN_CERTIFICATE = (
    "if it is the camera's own, save it as a file, compare its fingerprint with the camera's, and set tls: {ca: FILE}"
    " for the source; tls: insecure trusts every server, also a false one that wants the password"
)


class UntrustedServerError(OSError):
    """The certificate of a TLS server is not one to trust."""


def trust_options(target: VideoAddress, formats: frozenset[str]) -> dict[str, str]:
    """Return FFmpeg's options that hold an address to its protocols, its demuxers and its certificate.

    Args:
        target: what is opened.
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
    """Return the demuxers of lists that the name of an address asks for."""
    path = urlsplit(url).path if scheme_of(url) in NETWORK_SCHEMES else url
    return LISTS.get(Path(path).suffix.lower(), frozenset()) | (LISTS[".m3u8"] if is_playlist(url) else frozenset())


def _tls_options(target: VideoAddress) -> dict[str, str]:
    if target.tls == "insecure":
        return {"tls_verify": "0"}
    bundle = target.ca_file or default_bundle()
    return {"tls_verify": "1", **({"ca_file": bundle} if bundle else {})}


def default_bundle() -> str | None:
    """Return the file of authorities that this system trusts, None where none is found."""
    places = (os.environ.get("SSL_CERT_FILE", ""), *BUNDLES)
    return next((place for place in places if place and Path(place).is_file()), None)


def check_certificate(target: VideoAddress) -> None:
    """Say why a TLS server could not be opened, where that is its certificate; FFmpeg only says that it failed.

    Raises:
        UntrustedServerError: the certificate is not trusted, or is not that of this host.
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
        raise UntrustedServerError(
            f"the certificate of {host}:{port} is not trusted ({error.verify_message.rstrip('.')}): "
            + (_OTHER_NAME if error.verify_code in _NAME_CODES else _OWN_CERTIFICATE)
        ) from error
    except (OSError, ValueError):
        return
