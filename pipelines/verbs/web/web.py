"""`framewire web`: serve the page of a run that was started without it, and manage its users."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import typer

from pipelines import console
from pipelines.verbs.options import Metrics

app = typer.Typer(
    name="web",
    help="Serve the page of a running engine, and manage its users.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
user = typer.Typer(name="user", help="Users who log in with a password.", no_args_is_help=True)
token = typer.Typer(name="token", help="Tokens of programs.", no_args_is_help=True)
app.add_typer(user)
app.add_typer(token)
Users = Annotated[str, typer.Option(help="File of users, sessions and tokens (web.users)")]
Role = Annotated[str, typer.Option(help="viewer: sees; operator: also edits zones; admin: also manages users")]
Sources = Annotated[list[str] | None, typer.Option("--source", help="Only this source; repeat; default: all")]
HEARTBEAT_S = 10.0


@app.callback()
def web(
    context: typer.Context,
    connect: Annotated[str, typer.Option(help="Address of the engine's stream")] = "tcp://127.0.0.1:5555",
    http: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to serve the page")] = "127.0.0.1:8080",
    control: Annotated[str | None, typer.Option(help="Control address of the run; default: of your only run")] = None,
    server_key: Annotated[str | None, typer.Option(help="File NAME.key of an engine that encrypts")] = None,
    keys: Annotated[str | None, typer.Option(help="Your file NAME.key_secret, whose public key it lists")] = None,
    users: Annotated[str | None, typer.Option(help="File of users, sessions and tokens")] = None,
    certificate: Annotated[str | None, typer.Option(help="TLS certificate chain, PEM")] = None,
    key: Annotated[str | None, typer.Option(help="Its private key")] = None,
    behind_proxy: Annotated[list[str] | None, typer.Option(help="Address of the proxy in front")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(help="Host name by which browsers reach the page")] = None,
    embed: Annotated[list[str] | None, typer.Option(help="Origin of a page that may embed this one in a frame")] = None,
    metrics: Metrics = None,
    events: Annotated[str | None, typer.Option(help="Folder of the event log (events.folder)")] = None,
) -> None:
    """Serve the page of a running engine; `run --web` does it for its own run."""
    if context.invoked_subcommand is not None:
        return
    from engine.optional import require
    from pipelines.web.access import Listen, check_exposure

    require("uvicorn", extra="web")
    from pipelines.web.page.app import exposure_of
    from pipelines.web.page.settings import Settings

    found = _endpoints(connect, server_key, keys)
    fields: dict[str, Any] = {
        "publish": connect,
        "snapshot": found.get("snapshot"),
        "media": found.get("media"),
        "control": control or _own_control(),
        "server_key": server_key,
        "keys": keys,
        "address": http,
        "users": users,
        "certificate": certificate,
        "key": key,
        "behind_proxy": tuple(behind_proxy or ()),
        "hosts": tuple(allow_host or ()),
        "embed": tuple(embed or ()),
        "metrics": metrics or "none",
        "events": events,
    }
    if metrics is not None:
        require("prometheus_client", extra="metrics")
    check_exposure(exposure_of(Settings(**fields)))
    Listen.parse(http, "--http")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pipelines.web.page", json.dumps(fields)])  # a process without cv2


def _endpoints(connect: str, server_key: str | None, keys: str | None) -> dict[str, str]:
    """Return the further addresses that the engine announces. Raises `NoMessageError` if there is no engine."""
    from engine.subscriber import Subscriber
    from engine.wire import HeartbeatMessage
    from pipelines.verbs.options import client_keys

    with Subscriber(connect, "v1/heartbeat/", timeout_s=HEARTBEAT_S, **client_keys(server_key, keys)) as subscriber:
        message = subscriber.receive(HEARTBEAT_S)
    return dict(message.endpoints) if isinstance(message, HeartbeatMessage) else {}


def _own_control() -> str | None:
    """Return the control address of this user's only run; None if there is none, or several."""
    from engine.errors import ConfigError
    from pipelines.running.control_access import find_run

    try:
        return find_run().address
    except ConfigError:
        return None


@user.command("add")
def add_user(
    name: Annotated[str, typer.Argument(help="Name of the user")],
    users: Users = "web.sqlite",
    role: Role = "viewer",
    source: Sources = None,
    password_file: Annotated[str | None, typer.Option(help="File with the password; default: ask for it")] = None,
) -> None:
    """Add a user."""
    from pathlib import Path

    from engine.redaction import hide
    from pipelines.web.access import Accounts

    if password_file is not None:
        password = Path(password_file).read_text(encoding="utf-8").rstrip("\n")
    else:
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    hide(password)
    accounts = Accounts(users)
    try:
        accounts.add_user(name, password, role, source)  # type: ignore[arg-type]  # checked there
    finally:
        accounts.close()
    console.say(f"added {name} ({role}) to {users}")


@user.command("remove")
def remove_user(name: Annotated[str, typer.Argument(help="Name of the user")], users: Users = "web.sqlite") -> None:
    """Remove a user and end their sessions."""
    from pipelines.web.access import Accounts

    accounts = Accounts(users)
    try:
        accounts.remove_user(name)
    finally:
        accounts.close()
    console.say(f"removed {name}")


@user.command("list")
def list_users(users: Users = "web.sqlite") -> None:
    """List users and tokens."""
    from pipelines.web.access import Accounts

    accounts = Accounts(users)
    try:
        everybody = [("user", each) for each in accounts.users()] + [("token", each) for each in accounts.tokens()]
    finally:
        accounts.close()
    for kind, each in everybody:
        console.result(f"{kind} {each.name} {each.role} {', '.join(sorted(each.sources)) if each.sources else 'all'}")


@token.command("add")
def add_token(
    name: Annotated[str, typer.Argument(help="Name of the program")],
    users: Users = "web.sqlite",
    role: Role = "viewer",
    source: Sources = None,
) -> None:
    """Create a token and print it: it is shown only once."""
    from pipelines.web.access import Accounts

    accounts = Accounts(users)
    try:
        secret = accounts.add_token(name, role, source)  # type: ignore[arg-type]  # checked there
    finally:
        accounts.close()
    typer.echo(secret)


@token.command("remove")
def remove_token(name: Annotated[str, typer.Argument(help="Name of the program")], users: Users = "web.sqlite") -> None:
    """Remove a token."""
    from pipelines.web.access import Accounts

    accounts = Accounts(users)
    try:
        accounts.remove_token(name)
    finally:
        accounts.close()
    console.say(f"removed {name}")


@app.command("cert")
def certificate_for(
    host: Annotated[str, typer.Argument(help="Name or address of this machine, as browsers use it")],
    folder: Annotated[str, typer.Option(help="Where to write HOST.pem and HOST.key")] = ".",
) -> None:
    """Create a self-signed certificate for a local network."""
    from pipelines.web.access import make_certificate

    made = make_certificate(host, folder)
    console.say(f"wrote {made.certificate} and {made.key}: give them as --certificate and --key")
