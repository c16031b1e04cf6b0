"""Who may reach a server over HTTP, and what they may do. `framewire serve` and the page share it.

A server describes its exposure (`Exposure`, checked before anything is bound), wraps its application in a `Gate`, and
runs it with `serve`. An `Authority` identifies users: `TokenFile`, or `Accounts` with users and sessions.
"""

from pipelines.web.access.accounts import Accounts
from pipelines.web.access.audit import Audit, AuditEntry
from pipelines.web.access.counting import RequestCounts, route_names
from pipelines.web.access.exposure import Exposure, check_exposure
from pipelines.web.access.gate import Gate, GateRules
from pipelines.web.access.identity import ANYBODY, Authority, Identity, Role
from pipelines.web.access.limits import FailureLimiter, RateLimiter, ServerLimits
from pipelines.web.access.listen import Listen
from pipelines.web.access.server import bind, serve
from pipelines.web.access.tls import TlsFiles, make_certificate
from pipelines.web.access.tokens import TokenFile, bearer_token, new_token

__all__ = [
    "ANYBODY",
    "Accounts",
    "Audit",
    "AuditEntry",
    "Authority",
    "Exposure",
    "FailureLimiter",
    "Gate",
    "GateRules",
    "Identity",
    "Listen",
    "RateLimiter",
    "RequestCounts",
    "Role",
    "ServerLimits",
    "TlsFiles",
    "TokenFile",
    "bearer_token",
    "bind",
    "check_exposure",
    "make_certificate",
    "new_token",
    "route_names",
    "serve",
]
