"""Counts requests by route and status, and measures how long they take, for the metrics of every HTTP server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.stats.histogram import Histogram

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from pipelines.metrics.exposition import Page

OTHER, REFUSED = "other", "refused"
"""Routes of requests for paths that do not exist, and of those that the gate answers itself."""
EDGES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SWITCHED, CLOSED = 101, 403
NO_ANSWER = 499
"""Status of a request whose client disconnected before it was answered."""


class RequestCounts:
    """An ASGI application that counts the answers of the one behind it.

    Labels are the routes of the application, never the paths of clients.

    Args:
        app: the application, with its gate.
        names: name of each route by its endpoint, from `route_names`.
    """

    def __init__(self, app: ASGIApp, names: Mapping[Any, str]) -> None:
        self._app, self._names = app, names
        self._answers: Counter[tuple[str, int]] = Counter()
        self._durations = {route: Histogram() for route in (*names.values(), OTHER, REFUSED)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, WebSocket, or the life of the server."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = NO_ANSWER

        async def counting(message: Message) -> None:
            nonlocal status
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
            elif kind == "websocket.accept":
                self._count(scope, SWITCHED)
                status = 0
            elif kind == "websocket.close" and status:
                status = CLOSED
            await send(message)

        try:
            await self._app(scope, receive, counting)
        finally:
            if status:
                route = self._count(scope, status)
                self._durations[route].add(1000 * (time.perf_counter() - began))

    def _count(self, scope: Scope, status: int) -> str:
        endpoint = scope.get("endpoint")
        if not isinstance(endpoint, Hashable):  # the router itself, which answers 404
            endpoint = None
        route = self._names.get(endpoint, OTHER) if endpoint is not None or status == 404 else REFUSED
        self._answers[route, status] += 1
        return route

    def add_to(self, page: Page, counter: str, histogram: str) -> None:
        """Add the metrics to a page, under these names."""
        answers = page.counter(
            counter, "Answers by route and status; 499: the client had disconnected.", "route", "status"
        )
        for (route, status), count in sorted(self._answers.copy().items()):
            answers.add(count, route, str(status))
        text = "Time from a request's head to the end of its answer."
        durations = page.histogram(histogram, text, "route")
        for route, values in self._durations.items():
            if values.count:
                durations.add_latency(EDGES_S, values.snapshot(), route)


def route_names(routes: Sequence[Any], prefix: str = "") -> dict[Any, str]:
    """Return the path of every endpoint of an application's routes, with its parameters by name."""
    found: dict[Any, str] = {}
    for route in routes:
        path = prefix + route.path
        below = getattr(route, "routes", None)
        if below:
            found |= route_names(below, path)
        else:
            found[getattr(route, "endpoint", None) or route.app] = path
    return found
