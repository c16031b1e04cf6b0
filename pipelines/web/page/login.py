"""Logging in and out. On loopback without users, everyone is logged in."""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipelines.web.access import Accounts, FailureLimiter, Identity
from pipelines.web.access.accounts import session_cookie, session_of
from pipelines.web.access.gate import CLIENT, IDENTITY, PREFIX
from pipelines.web.access.limits import GUESSES_PER_HOUR, HOUR_S, retry_after
from pipelines.web.access.listen import site_of
from pipelines.web.page.answers import body_of, record, reply

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class Login(msgspec.Struct, forbid_unknown_fields=True):
    """A name and its password."""

    name: Text
    password: Text


class Me(msgspec.Struct):
    """The user of a request.

    Attributes:
        login: whether a login is needed first.
        name: of the user or token.
        role: `viewer`, `operator` or `admin`.
        by_cookie: whether there is a session that can be ended.
        stores_events: whether the run keeps events, tracks and counts that can be asked for.
    """

    login: bool
    name: str | None = None
    role: str | None = None
    by_cookie: bool = False
    stores_events: bool = False


class Guesses:
    """Slows down guessing passwords: 5 per minute and address, 20 per hour and user."""

    def __init__(self) -> None:
        self._by_site, self._by_user = FailureLimiter(), FailureLimiter(GUESSES_PER_HOUR, HOUR_S)

    def wait_s(self, site: str, name: str) -> float:
        """Return 0 if an attempt is allowed, else how long to wait."""
        return max(self._by_site.wait_s(site), self._by_user.wait_s(name))

    def failed(self, site: str, name: str) -> None:
        """Count a wrong password."""
        self._by_site.failed(site)
        self._by_user.failed(name)

    def succeeded(self, site: str, name: str) -> None:
        """Forget their wrong passwords."""
        self._by_site.succeeded(site)
        self._by_user.succeeded(name)


async def get_me(request: Request) -> Response:
    """Return who is logged in; `login` says whether a login is needed."""
    identity: Identity | None = request.scope.get(IDENTITY)
    if identity is None:
        return reply(Me(login=True))
    return reply(_me(request, identity, identity.by_cookie))


def _me(request: Request, identity: Identity, by_cookie: bool) -> Me:
    stores_events = request.app.state.hub.settings.events is not None
    return Me(login=False, name=identity.name, role=identity.role, by_cookie=by_cookie, stores_events=stores_events)


async def login(request: Request) -> Response:
    """Begin a session for a name and a password; at most five wrong ones per minute, and 20 per hour and user."""
    accounts: Accounts | None = request.app.state.accounts
    given: Login = await body_of(request, Login)
    if accounts is None:
        raise HTTPException(404, "this server has no users")
    guesses: Guesses = request.app.state.guesses
    keys = site_of(request.scope[CLIENT]), given.name
    if wait_s := guesses.wait_s(*keys):
        raise HTTPException(429, "too many wrong passwords", {"Retry-After": retry_after(wait_s)})
    identity = await run_in_threadpool(accounts.check, given.name, given.password)
    if identity is None:
        guesses.failed(*keys)
        record(request, "login refused", name=given.name[:64])
        raise HTTPException(401, "the name or the password is wrong")
    guesses.succeeded(*keys)
    record(request, "login", name=identity.name)
    return reply(
        _me(request, identity, True), headers={"Set-Cookie": _cookie(request, accounts.begin_session(identity.name))}
    )


async def logout(request: Request) -> Response:
    """End the session of the request."""
    accounts: Accounts | None = request.app.state.accounts
    secret = session_of(request.headers)
    if accounts is not None and secret is not None:
        accounts.end_session(secret)
        record(request, "logout")
    return reply({}, headers={"Set-Cookie": _cookie(request, "")})


def _cookie(request: Request, secret: str) -> str:
    secure = request.url.scheme == "https"
    is_embedded = bool(request.app.state.hub.settings.embed)
    return session_cookie(secret, secure=secure, path=request.scope[PREFIX] + "/", cross_site=secure and is_embedded)


LOGIN_ROUTES = [
    Route("/me", get_me),
    Route("/login", login, methods=["POST"]),
    Route("/logout", logout, methods=["POST"]),
]
