"""Whether a server may be reached from other machines, decided before anything is bound."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import ConfigError
from pipelines.web.access.listen import Listen, Network
from pipelines.web.access.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class Exposure:
    """Who can reach a server, and what protects it.

    Attributes:
        listen: where it listens.
        tls: its certificate; None: it speaks plain HTTP.
        has_login: whether a request needs a token or a session.
        proxies: networks of the reverse proxies in front of it, which handle TLS and login.
        login_hint: how to configure a login, for the message.
    """

    listen: Listen
    tls: TlsFiles | None = None
    has_login: bool = False
    proxies: tuple[Network, ...] = ()
    login_hint: str = "a token"


def check_exposure(exposure: Exposure) -> None:
    """Allow loopback, TLS with a login, and a named reverse proxy; refuse everything else.

    Raises:
        ConfigError: others could read the traffic, or use the server without a login.
    """
    if exposure.listen.is_loopback or exposure.proxies:
        return
    missing = [] if exposure.tls else ["TLS (a certificate and its key)"]
    missing += [] if exposure.has_login else [exposure.login_hint]
    if missing:
        raise ConfigError(
            f"{exposure.listen.host} can be reached from other machines: give {' and '.join(missing)}, or name the "
            "reverse proxy in front that does both; or listen on 127.0.0.1"
        )
