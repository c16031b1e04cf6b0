"""Serves the label page until the user stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.learning.dataset.project import INBOX, Project
from pipelines.learning.label.app import LabelApi, create_app
from pipelines.learning.label.assist import Assist
from pipelines.web.access import Exposure, Gate, GateRules, Listen, ServerLimits, TokenFile, bind, check_exposure, serve
from pipelines.web.access.listen import networks_of
from pipelines.web.access.tls import TlsFiles


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """Where and for whom the page is served.

    Attributes:
        listen: its address; loopback unless `tls` and `token_file`, or a proxy that does both, protect it.
        tls: certificate and key.
        token_file: file with a token per line.
        proxies: addresses of reverse proxies that do TLS and login.
        hosts: host names by which the page is reached.
    """

    listen: Listen
    tls: TlsFiles | None = None
    token_file: str | None = None
    proxies: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


def gated(project: Project, assist: Assist, options: LabelOptions) -> Gate:
    """Return the application behind its gate.

    Raises:
        ConfigError: other machines could use the page without protection.
        MissingDependencyError: the extra `web` is not installed.
    """
    authority = TokenFile(options.token_file) if options.token_file else None
    proxies = networks_of(options.proxies, "--behind-proxy")
    exposure = Exposure(options.listen, options.tls, authority is not None, proxies, "--token-file")
    check_exposure(exposure)
    return Gate(create_app(LabelApi(project, assist)), GateRules(exposure, authority, hosts=options.hosts))


def serve_labels(
    project: Project,
    assist: Assist,
    options: LabelOptions,
    *,
    stopping: Callable[[], bool],
    listening: Callable[[str], None],
) -> dict[str, Any]:
    """Serve the page until `stopping` returns true; return what was labelled in the meantime."""
    before = len(project.labelled())
    gate = gated(project, assist, options)
    bound = bind(options.listen)
    listening(Listen(options.listen.host, bound.getsockname()[1]).url("https" if options.tls else "http"))
    try:
        asyncio.run(serve(gate, bound, tls=options.tls, limits=ServerLimits(), stopping=stopping))
    finally:
        assist.close()
    after = len(project.labelled())
    return {"labelled": after, "new": after - before, "inbox": len(project.images(INBOX))}
