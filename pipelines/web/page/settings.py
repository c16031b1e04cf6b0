"""The settings of the web process."""

from __future__ import annotations

import msgspec


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses of one engine, and of the page.

    Attributes:
        publish: address of the engine's stream; here and below several if it has several processes.
        snapshot: address that answers with the current state; None: states are shown as they change.
        media: address of live images; None: tiles show boxes only.
        control: address of the control socket; None: nothing can be edited.
        server_key: file with the public key of an engine that encrypts.
        keys: file with the keys of this reader, if the engine admits only listed ones.
        address: HOST:PORT of the page.
        users: file of users, sessions and tokens; None: no login.
        certificate: file of the TLS certificate chain; None: plain HTTP.
        key: file of its private key; None: in the same file.
        behind_proxy: networks of the reverse proxies in front.
        hosts: further host names by which browsers reach the page.
        embed: origins of pages that may embed this one in a frame.
        metrics: HOST:PORT of metrics and health of the web process, or `none`.
        events: folder of the event log; None: there is none.
        store: address of its database server; None: a file in the folder.
        timezone: of the site.
        audit: the audit log; None: it is kept in memory.
    """

    publish: str | tuple[str, ...]
    snapshot: str | tuple[str, ...] | None = None
    media: str | tuple[str, ...] | None = None
    control: str | None = None
    server_key: str | None = None
    keys: str | None = None
    address: str = "127.0.0.1:8080"
    users: str | None = None
    certificate: str | None = None
    key: str | None = None
    behind_proxy: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    embed: tuple[str, ...] = ()
    metrics: str = "none"
    events: str | None = None
    store: str | None = None
    timezone: str = "UTC"
    audit: str | None = None
