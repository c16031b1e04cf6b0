"""Identities of a server's users, and how they are established."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Role = Literal["viewer", "operator", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")
"""In ascending order: a viewer sees, an operator reviews and edits places, an admin manages users."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and their permissions.

    Attributes:
        name: of the user or token; for the log.
        role: what they may do.
        sources: names of the sources that they may see; None: all.
        by_cookie: whether this comes from a browser's cookie, which another site's page can make the browser send.
    """

    name: str
    role: Role = "viewer"
    sources: frozenset[str] | None = None
    by_cookie: bool = False

    def may(self, role: Role) -> bool:
        """Return whether the user has at least this role."""
        return ROLES.index(self.role) >= ROLES.index(role)

    def may_see(self, source_id: str) -> bool:
        """Return whether the user may see a source."""
        return self.sources is None or source_id in self.sources


ANYBODY = Identity("local", "admin")
"""Any user of a server on loopback that requires no login."""


class Authority(Protocol):
    """Identifies the sender of a request. Called on the event loop, so it must be quick."""

    def identify(self, headers: Mapping[str, str]) -> Identity | None:
        """Return the sender of a request with these headers (by lower-case name), or None if unknown."""
