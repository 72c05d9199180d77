"""Who calls: every route but those declared open is closed to whoever cannot say.

A route takes `caller: Reader` or `caller: Writer` and gets the Identity, or the caller is told
what is missing (RFC 6750). A route that takes neither is closed to strangers all the same, and
one that declares `openapi_extra=OPEN` is open.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer, SecurityScopes
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from services.api import problems
from services.api.id_tokens import IdTokens, KeysUnavailableError, PublishedKeys
from services.api.keys import ALL_SCOPES, Identity, Scope, caller_of, identify_key
from services.api.problems import Problem
from speakfit.settings import Settings

OPEN: dict[str, Any] = {"security": []}
"""For `openapi_extra` of a route that needs no caller; OpenAPI's own word for it."""
DOCUMENTATION = ("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
"""How the API is spoken to is no secret."""

REVOKED_WITHIN = timedelta(seconds=5)
"""How long a key that was revoked may still be taken by a process that took it before."""

_REMEMBERED = 10_000
_LONGEST_TOKEN = 8192
_REALM = 'Bearer realm="speakfit"'


class Verifier(Protocol):
    """One way to prove who one is. The browser sign-in will be another, that reads its cookie."""

    def credential(self, headers: Headers) -> str | None:
        """What the request shows of this kind, None when it shows nothing."""

    def verify(self, credential: str) -> tuple[Identity, float] | None:
        """Who it is and for how many seconds that is known; None when it proves nothing.

        May ask a database or a server, so it is called in a thread.
        """


@dataclass(frozen=True, kw_only=True)
class KeyVerifier:
    """API keys, as bearer tokens."""

    engine: Engine

    def credential(self, headers: Headers) -> str | None:
        token = _bearer(headers)
        return token if token is not None and token.startswith("sf_") else None

    def verify(self, credential: str) -> tuple[Identity, float] | None:
        identity = identify_key(self.engine, credential)
        return None if identity is None else (identity, REVOKED_WITHIN.total_seconds())


@dataclass(frozen=True, kw_only=True)
class IdTokenVerifier:
    """Google ID tokens, as bearer tokens; a person may read and write what is theirs."""

    engine: Engine
    tokens: IdTokens
    now: Callable[[], float] = time.time

    def credential(self, headers: Headers) -> str | None:
        token = _bearer(headers)
        return token if token is not None and token.count(".") == 2 else None

    def verify(self, credential: str) -> tuple[Identity, float] | None:
        try:
            verified = self.tokens.verify(credential)
        except KeysUnavailableError:
            raise problems.unavailable("server of Google's signing keys") from None
        if verified is None:
            return None
        caller_id = caller_of(self.engine, f"google:{verified.subject}")
        left = min(REVOKED_WITHIN.total_seconds(), verified.expires_at - self.now())
        return Identity(caller_id=caller_id, scopes=frozenset(ALL_SCOPES)), left


def make_verifiers(settings: Settings, engine: Engine) -> tuple[Verifier, ...]:
    """Every way that the settings allow; ID tokens only when an audience is named."""
    keys = KeyVerifier(engine=engine)
    if settings.id_token_audience is None:
        return (keys,)
    tokens = IdTokens(
        keys=PublishedKeys(settings.id_token_keys_url),
        audience=settings.id_token_audience,
        issuers=tuple(issuer.strip() for issuer in settings.id_token_issuers.split(",")),
    )
    return (keys, IdTokenVerifier(engine=engine, tokens=tokens))


def _bearer(headers: Headers) -> str | None:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return (token.strip() or None) if kind.lower() == "bearer" else None


class Callers:
    """Tells who calls, and remembers it for some seconds: a status read must stay cheap."""

    def __init__(
        self, verifiers: Sequence[Verifier], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._verifiers = verifiers
        self._now = now
        self._known: OrderedDict[bytes, tuple[Identity, float]] = OrderedDict()

    async def identify(self, headers: Headers) -> Identity:
        """Who calls; a Problem when the request does not prove it."""
        if len(headers.getlist("authorization")) > 1:
            raise _refused(
                HTTPStatus.BAD_REQUEST, "invalid_request", "More than one Authorization header."
            )
        for verifier in self._verifiers:
            credential = verifier.credential(headers)
            if credential is None:
                continue
            if len(credential) > _LONGEST_TOKEN:
                break
            # Whoever reads our memory finds no key that could be used.
            name = hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()
            remembered = self._known.get(name)
            if remembered is not None and self._now() < remembered[1]:
                return remembered[0]
            asked_at = self._now()
            verified = await run_in_threadpool(verifier.verify, credential)
            if verified is None:
                self._known.pop(name, None)
                break
            self._remember(name, verified[0], asked_at + verified[1])
            return verified[0]
        else:
            if _bearer(headers) is None:
                raise _no_credential()
        raise _refused(
            HTTPStatus.UNAUTHORIZED,
            "invalid_token",
            "The key or token is unknown, malformed, expired or revoked.",
        )

    def _remember(self, name: bytes, identity: Identity, until: float) -> None:
        self._known[name] = (identity, until)
        self._known.move_to_end(name)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


class Guard:
    """ASGI layer that lets nobody past who cannot say who they are, before a body is read."""

    def __init__(self, app: ASGIApp, *, callers: Callers, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._callers = callers
        self._routes = routes
        self._open = [route for route in routes if is_open(route)]

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        try:
            identity = await self._callers.identify(Headers(scope=scope))
        except (Problem, SQLAlchemyError) as error:
            name_route(self._routes, scope)
            problem = error if isinstance(error, Problem) else problems.of_database(error)
            await problem.response(scope["path"])(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = identity
        await self._app(scope, receive, send)

    def _is_open(self, scope: AsgiScope) -> bool:
        return scope["path"] in DOCUMENTATION or any(
            route.matches(scope)[0] is Match.FULL for route in self._open
        )


def name_route(routes: Sequence[APIRoute], scope: AsgiScope) -> None:
    """Find the route of a request that is refused before any was chosen; metrics tell it."""
    for route in routes:
        if route.matches(scope)[0] is Match.FULL:
            scope["route"] = route
            return


def is_open(route: APIRoute) -> bool:
    """Whether a route answers strangers."""
    return (route.openapi_extra or {}).get("security") == []


_scheme = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    description="An API key (`python -m services.api keys create`) or a Google ID token.",
)


async def _allowed(
    request: Request, needed: SecurityScopes, _credential: Annotated[Any, Depends(_scheme)]
) -> Identity:
    identity: Identity = request.state.caller
    missing = [scope for scope in needed.scopes if scope not in identity.scopes]
    if missing:
        raise _refused(
            HTTPStatus.FORBIDDEN,
            "insufficient_scope",
            f"The key may not do this; it needs {', '.join(missing)}.",
            scope=" ".join(needed.scopes),
        )
    return identity


Reader = Annotated[Identity, Security(_allowed, scopes=[Scope.READ])]
Writer = Annotated[Identity, Security(_allowed, scopes=[Scope.WRITE])]


def _no_credential() -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "no-credential",
        title="The request does not say who calls.",
        detail="There is no Authorization header of the form `Bearer KEY`.",
        todo="Send `Authorization: Bearer KEY`; `python -m services.api keys create` makes one.",
        headers={"WWW-Authenticate": _REALM},
    )


def _refused(status: HTTPStatus, error: str, detail: str, *, scope: str = "") -> Problem:
    """RFC 6750, section 3: the error code for programs, in the header too."""
    challenge = f'{_REALM}, error="{error}", error_description="{detail}"'
    if scope:
        challenge += f', scope="{scope}"'
    return Problem(
        status,
        error.replace("_", "-"),
        title="The caller is not allowed to do this."
        if status == HTTPStatus.FORBIDDEN
        else "The request does not prove who calls.",
        detail=detail,
        todo="Ask the operator for a key; `python -m services.api keys list` shows their state.",
        headers={"WWW-Authenticate": challenge},
    )
