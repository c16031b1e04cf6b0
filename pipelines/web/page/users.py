"""The API of users, tokens of machines, and the audit; for admins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from engine.errors import ConfigError
from engine.redaction import hide
from pipelines.web.access import Accounts, AuditEntry, Identity
from pipelines.web.page.answers import body_of, need, query_of, record, reply
from pipelines.web.page.history import Time

T = TypeVar("T")
RoleName = Literal["viewer", "operator", "admin"]
AccountName = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._@-]+$")]
Password = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
Sources = Annotated[list[Annotated[str, msgspec.Meta(min_length=1, max_length=256)]], msgspec.Meta(max_length=1000)]


class Account(msgspec.Struct):
    """A user, or the token of a machine; `sources` null: all."""

    name: str
    role: str
    sources: list[str] | None


class Everybody(msgspec.Struct):
    """Users and tokens; `login`: whether this server has users at all."""

    login: bool
    users: list[Account]
    tokens: list[Account]


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    """A user to add; the password needs 12 characters. `sources` null: all."""

    name: AccountName
    password: Password
    role: RoleName = "viewer"
    sources: Sources | None = None


class UserChange(msgspec.Struct, forbid_unknown_fields=True):
    """Changes to a user: role and sources, and the password if one is given."""

    role: RoleName
    sources: Sources | None = None
    password: Password | None = None


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """A token to create for a machine. `sources` null: all."""

    name: AccountName
    role: RoleName = "viewer"
    sources: Sources | None = None


class MadeToken(msgspec.Struct):
    """A token, shown only this once."""

    name: str
    token: str


class AuditQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which lines of the audit log: the newest before a given time."""

    before: Time | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class AuditPage(msgspec.Struct):
    """Who did what, newest first; `stored`: whether it is kept in a file."""

    entries: list[AuditEntry]
    stored: bool


def accounts_of(request: Request) -> Accounts:
    """Return the users of this server, for an admin. Raises 403, or 404 if it has none."""
    need(request, "admin")
    accounts: Accounts | None = request.app.state.accounts
    if accounts is None:
        raise HTTPException(404, "this server has no users: name a file for them as web.users")
    return accounts


async def _tried(work: Callable[[], T]) -> T:
    try:
        return await run_in_threadpool(work)
    except ConfigError as error:
        raise HTTPException(422, str(error)) from error


def _account(identity: Identity) -> Account:
    return Account(identity.name, identity.role, None if identity.sources is None else sorted(identity.sources))


def _everybody(accounts: Accounts | None) -> Everybody:
    if accounts is None:
        return Everybody(False, [], [])
    return Everybody(True, [_account(each) for each in accounts.users()], [_account(x) for x in accounts.tokens()])


async def get_users(request: Request) -> Response:
    """Return users and tokens."""
    need(request, "admin")
    return reply(_everybody(request.app.state.accounts))


async def add_user(request: Request) -> Response:
    """Add a user, and return all."""
    accounts = accounts_of(request)
    new: NewUser = await body_of(request, NewUser)
    hide(new.password)
    await _tried(lambda: accounts.add_user(new.name, new.password, new.role, new.sources))
    record(request, "user added", new.name, {"role": new.role, "sources": new.sources})
    return reply(_everybody(accounts))


async def change_user(request: Request) -> Response:
    """Replace role and sources of a user, and the password if one is given, which ends their sessions."""
    accounts, name = accounts_of(request), request.path_params["name"]
    new: UserChange = await body_of(request, UserChange)
    await _tried(lambda: accounts.change_user(name, new.role, new.sources))
    password = new.password
    if password is not None:
        hide(password)
        await _tried(lambda: accounts.set_password(name, password))
    detail = {"role": new.role, "sources": new.sources, "new password": password is not None}
    record(request, "user changed", name, detail)
    return reply(_everybody(accounts))


async def remove_user(request: Request) -> Response:
    """Remove a user and end their sessions, and return the others."""
    accounts, name = accounts_of(request), request.path_params["name"]
    await _tried(lambda: accounts.remove_user(name, keep_an_admin=True))
    record(request, "user removed", name)
    return reply(_everybody(accounts))


async def add_token(request: Request) -> Response:
    """Return a new token for a machine, which is shown only this once."""
    accounts = accounts_of(request)
    new: NewToken = await body_of(request, NewToken)
    token = await _tried(lambda: accounts.add_token(new.name, new.role, new.sources))
    record(request, "token added", new.name, {"role": new.role, "sources": new.sources})
    return reply(MadeToken(new.name, token), headers={"Cache-Control": "no-store"})


async def remove_token(request: Request) -> Response:
    """Remove the token of a machine, and return the others."""
    accounts, name = accounts_of(request), request.path_params["name"]
    await _tried(lambda: accounts.remove_token(name))
    record(request, "token removed", name)
    return reply(_everybody(accounts))


async def get_audit(request: Request) -> Response:
    """Return who watched, changed or deleted what, newest first."""
    need(request, "admin")
    query, audit = query_of(request, AuditQuery), request.app.state.audit
    entries = await run_in_threadpool(audit.read, query.limit, query.before)
    return reply(AuditPage(entries, audit.path is not None))


USERS_ROUTES = [
    Route("/users", get_users, methods=["GET"]),
    Route("/users", add_user, methods=["POST"]),
    Route("/users/{name}", change_user, methods=["PUT"]),
    Route("/users/{name}", remove_user, methods=["DELETE"]),
    Route("/tokens", add_token, methods=["POST"]),
    Route("/tokens/{name}", remove_token, methods=["DELETE"]),
    Route("/audit", get_audit, methods=["GET"]),
]
