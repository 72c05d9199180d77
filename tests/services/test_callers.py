"""Who may call the API: keys, ID tokens, scopes, and that nobody sees what is another's."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import re
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi.routing import APIRoute
from sqlalchemy import Engine, event, select, update
from starlette.datastructures import Headers

from services.api import __main__ as command
from services.api.callers import REVOKED_WITHIN, Callers, KeyVerifier, is_open
from services.api.id_tokens import IdTokens, KeysUnavailableError, PublishedKeys
from services.api.keys import Identity, Scope, create_key, identify_key, revoke_key
from services.api.main import every_route
from services.api.problems import Problem
from speakfit.database import ApiKey, Caller, Recording, database_now, transaction
from tests.identity_provider import AUDIENCE, ISSUER, IdentityProvider, claims, signed, signing_key
from tests.services.speech import KENNEDY
from tests.services.test_recordings import assert_problem, upload

OPEN_PATHS = {"/healthz", "/readyz", "/v1/uploads/{upload_id}/content"}
CLOSED = [route for route in every_route() if not is_open(route)]
HOUR = 3600


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def calls(routes: list[APIRoute]) -> list[tuple[str, str]]:
    return [(method, route.path) for route in routes for method in sorted(route.methods or ())]


@pytest.mark.parametrize(("method", "path"), calls(CLOSED))
def test_no_route_but_health_answers_a_stranger(method: str, path: str, api: httpx.Client) -> None:
    somewhere = re.sub(r"{\w+}", str(uuid.UUID(int=7)), path)
    for shown in ("", "Basic c2Y6c2Y=", "Bearer", f"Bearer sf_{'0' * 16}_{'0' * 64}"):
        answer = api.request(method, somewhere, headers={"Authorization": shown})
        assert answer.status_code == 401, shown
        assert answer.headers["www-authenticate"].startswith('Bearer realm="speakfit"')
        # OpenAI's client reads errors of OpenAI's shape.
        openais = path.startswith(("/v1/audio/", "/v1/models"))
        kind = "application/json" if openais else "application/problem+json"
        assert answer.headers["content-type"] == kind
        assert ('error="invalid_token"' in answer.headers["www-authenticate"]) is ("sf_" in shown)


def test_health_and_the_description_are_open(api: httpx.Client) -> None:
    assert {route.path for route in every_route() if is_open(route)} == OPEN_PATHS
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs"):
        assert api.get(path, headers={"Authorization": ""}).status_code == 200
    assert_problem(api.get("/nowhere", headers={"Authorization": ""}), 401, "no-credential")


def test_a_caller_sees_and_changes_only_what_is_theirs(api: httpx.Client, engine: Engine) -> None:
    mine = upload(api, KENNEDY)
    other = bearer(create_key(engine, name="somebody-else").key)
    nowhere = str(uuid.UUID(int=7))
    for method, path in calls(CLOSED):
        if "{" in path:
            found = api.request(method, re.sub(r"{\w+}", mine, path), headers=other)
            unknown = api.request(method, re.sub(r"{\w+}", nowhere, path), headers=other)
            if path == "/v1/models/{model}":
                # A model belongs to nobody, and no recording is one.
                assert (found.status_code, unknown.status_code) == (404, 404)
                continue
            kind = "upload" if "/uploads" in path else "recording"
            assert_problem(found, 404, f"unknown-{kind}")
            assert found.text.replace(mine, nowhere) == unknown.text, (method, path)
        else:
            assert mine not in api.request(method, path, headers=other).text
    with transaction(engine) as session:
        kept = session.get_one(Recording, uuid.UUID(mine))
        assert session.get_one(Caller, kept.caller_id).subject == "key:tests"
    assert api.get(f"/v1/recordings/{mine}").json()["status"] == "queued"


def test_a_recording_of_nobody_is_seen_by_nobody(api: httpx.Client, engine: Engine) -> None:
    old = upload(api, KENNEDY)
    with transaction(engine) as session:
        session.execute(update(Recording).values(caller_id=None))
    assert_problem(api.get(f"/v1/recordings/{old}"), 404, "unknown-recording")


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [(Scope.READ, "POST", "/v1/recordings"), (Scope.WRITE, "GET", "/v1/recordings/x")],
)
def test_a_key_may_do_only_what_its_scopes_say(
    scope: Scope, method: str, path: str, api: httpx.Client, engine: Engine
) -> None:
    key = create_key(engine, name="narrow", scopes=[scope]).key
    answer = api.request(method, path, headers=bearer(key))
    assert_problem(answer, 403, "insufficient-scope")
    challenge = answer.headers["www-authenticate"]
    assert 'error="insufficient_scope"' in challenge
    assert f'scope="{({Scope.READ, Scope.WRITE} - {scope}).pop()}"' in challenge


def test_two_authorization_headers_are_refused(api: httpx.Client) -> None:
    twice = [("Authorization", "Bearer a"), ("Authorization", api.headers["authorization"])]
    assert_problem(api.get("/v1/recordings/x", headers=twice), 400, "invalid-request")


def test_a_key_is_kept_as_a_hash_and_recognised(either_engine: Engine) -> None:
    made = create_key(either_engine, name="mobile-app")
    again = create_key(either_engine, name="mobile-app")
    with transaction(either_engine) as session:
        kept = session.get_one(ApiKey, made.id)
        assert made.key.rpartition("_")[2] not in str(vars(kept))
        assert session.scalars(select(Caller.subject)).all() == ["key:mobile-app"]
    identity = identify_key(either_engine, made.key)
    assert identity == Identity(caller_id=kept.caller_id, scopes=frozenset(Scope))
    assert identify_key(either_engine, again.key) == identity
    with transaction(either_engine) as session:
        assert session.get_one(ApiKey, made.id).last_used_at is not None
    for wrong in ("", "sf_", made.key[:-1], made.key + "0", made.key[:-1] + "é", made.id):
        assert identify_key(either_engine, wrong) is None
    assert identify_key(either_engine, f"sf_{made.id}_{again.key.rpartition('_')[2]}") is None


def test_an_expired_key_is_refused(either_engine: Engine) -> None:
    made = create_key(either_engine, name="a", lifetime=timedelta(days=1))
    assert identify_key(either_engine, made.key) is not None
    with transaction(either_engine) as session:
        session.execute(update(ApiKey).values(expires_at=database_now()))
    assert identify_key(either_engine, made.key) is None


def test_an_unknown_key_costs_what_a_wrong_one_costs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create_key(engine, name="a")
    steps: list[str] = []
    compare = hmac.compare_digest

    def comparing(one: str, other: str) -> bool:
        steps.append(f"compare {len(one)} {len(other)}")
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", comparing)
    event.listen(engine, "before_cursor_execute", lambda *given: steps.append(given[2]))

    def cost(key: str) -> list[str]:
        steps.clear()
        assert identify_key(engine, key) is None
        return list(steps)

    unknown = cost(f"sf_{'0' * 16}_{'0' * 64}")
    assert unknown == cost(f"sf_{made.id}_{'0' * 64}")
    assert "compare 64 64" in unknown


def test_a_revoked_key_is_refused_within_the_stated_time(engine: Engine) -> None:
    now = [0.0]
    callers = Callers([KeyVerifier(engine=engine)], now=lambda: now[0])
    made = create_key(engine, name="a")

    def identify() -> Identity:
        return asyncio.run(callers.identify(Headers(bearer(made.key))))

    known = identify()
    statements: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    assert identify() == known
    assert statements == [], "a key that was just checked costs no query"
    revoke_key(engine, made.id)
    now[0] = REVOKED_WITHIN.total_seconds()
    with pytest.raises(Problem) as refused:
        identify()
    assert (refused.value.status, refused.value.code) == (401, "invalid-token")


def test_keys_are_made_listed_and_revoked_by_a_command(
    database_url: str,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["services.api", "keys", *arguments])
        code = command.main()
        said = capsys.readouterr()
        return code, said.out, said.err

    code, out, err = run("create", "app", "--scope", "recordings:read", "--expires", "P90D")
    key = out.strip()
    assert (code, out) == (0, f"{key}\n")
    identity = identify_key(engine, key)
    assert identity is not None
    assert identity.scopes == {Scope.READ}
    key_id, secret = key.split("_")[1:]
    assert key_id in err
    assert secret not in err
    made = json.loads(run("create", "app", "--json")[1])
    assert identify_key(engine, made["key"]) is not None

    code, out, err = run("list", "--json")
    assert [(one["id"], one["state"]) for one in json.loads(out)] == [
        (key_id, "active"),
        (made["id"], "active"),
    ]
    assert secret not in out + run("list")[1]
    assert run("revoke", key_id)[0] == 0
    assert identify_key(engine, key) is None
    assert "revoked" in run("list")[1]

    for wrong, exit_code, told in (
        (("revoke", "nothing"), 1, "no such key"),
        (("create", "not a name"), 1, "name of a caller"),
        (("create", "app", "--expires", "soon"), 64, "P90D"),
        (("create", "app", "--scope", "all"), 64, "recordings:read"),
    ):
        code, out, err = run(*wrong)
        assert (code, out) == (exit_code, "")
        assert told in err


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider().serving() as serving:
        yield serving


def tokens(provider: IdentityProvider, now: Callable[[], float] = time.monotonic) -> IdTokens:
    return IdTokens(
        keys=PublishedKeys(provider.address, now=now), audience=AUDIENCE, issuers=(ISSUER,)
    )


def public_pem() -> bytes:
    key = signing_key("first").public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def by_hand(header: dict[str, Any], said: dict[str, Any], signature: bytes = b"") -> str:
    """What no library would make."""
    parts = [json.dumps(header).encode(), json.dumps(said).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def confused() -> str:
    """HS256 with the public key, which everybody knows, as the shared secret."""
    head = by_hand({"alg": "HS256", "kid": "first"}, claims()).rpartition(".")[0]
    mac = hmac.digest(public_pem(), head.encode(), "sha256")
    return f"{head}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def embedded_key() -> str:
    """Signed by the attacker's key, which the token itself brings along."""
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(signing_key("theirs").public_key()))
    header = {"kid": "theirs", "jwk": public, "jku": "http://127.0.0.1:1/certs"}
    return jwt.encode(claims(), signing_key("theirs"), "RS256", headers=header)


def tampered() -> str:
    header, _, signature = signed(claims()).split(".")
    said = base64.urlsafe_b64encode(json.dumps(claims(sub="1")).encode()).rstrip(b"=").decode()
    return f"{header}.{said}.{signature}"


FORGERIES: dict[str, Callable[[], str]] = {
    "alg none": lambda: by_hand({"alg": "none", "kid": "first"}, claims()),
    "alg None": lambda: by_hand({"alg": "None", "kid": "first"}, claims(), b"x"),
    "the public key as a shared secret": confused,
    "a key of its own": embedded_key,
    "another key under a known id": lambda: signed(claims(), by="theirs"),
    "an unpublished key": lambda: signed(claims(), key_id="theirs"),
    "no key id": lambda: jwt.encode(claims(), signing_key("first"), "RS256"),
    "a key id that is no text": lambda: by_hand({"alg": "RS256", "kid": 7}, claims(), b"x"),
    "other claims under the signature": tampered,
    "another audience": lambda: signed(claims(aud="other.example")),
    "another issuer": lambda: signed(claims(iss="https://accounts.example")),
    "expired": lambda: signed(claims(exp=int(time.time()) - 60)),
    "issued in the future": lambda: signed(claims(iat=int(time.time()) + HOUR)),
    "an end that is no number": lambda: signed(claims(exp="soon")),
    "an account that is no text": lambda: by_hand({"alg": "RS256", "kid": "first"}, {"sub": 7}),
    "an account without a name": lambda: signed(claims(sub="")),
    "a very long account": lambda: signed(claims(sub="1" * 300)),
    **{
        f"no {name}": (lambda name=name: signed(claims(**{name: None})))  # type: ignore[misc]
        for name in ("aud", "exp", "iat", "iss", "sub")
    },
    "not base64": lambda: "a!.b!.c!",
    "nothing": lambda: "..",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_token_proves_nothing(name: str, provider: IdentityProvider) -> None:
    checked = tokens(provider)
    assert checked.verify(signed(claims())) is not None
    assert checked.verify(FORGERIES[name]()) is None


def test_keys_are_fetched_once_and_again_after_a_rotation(provider: IdentityProvider) -> None:
    now = [0.0]
    checked = tokens(provider, now=lambda: now[0])
    for _ in range(5):
        assert checked.verify(signed(claims())) is not None
    assert provider.fetches == 1
    provider.published = ["second"]
    now[0] = 11.0
    assert checked.verify(signed(claims(), key_id="second")) is not None
    assert checked.verify(signed(claims())) is None, "the old key is no longer published"
    for made_up in range(20):
        assert checked.verify(signed(claims(), key_id=f"x{made_up}", by="first")) is None
    assert provider.fetches == 2, "made-up ids cause no traffic"


def test_keys_outlive_an_outage_of_a_day_and_no_longer(provider: IdentityProvider) -> None:
    now = [0.0]
    checked = tokens(provider, now=lambda: now[0])
    assert checked.verify(signed(claims())) is not None
    provider.broken = True
    now[0] = 23.0 * HOUR
    assert checked.verify(signed(claims())) is not None
    assert provider.fetches == 2
    now[0] = 25.0 * HOUR
    with pytest.raises(KeysUnavailableError):
        checked.verify(signed(claims()))
    provider.broken = False
    now[0] += 11.0
    assert checked.verify(signed(claims())) is not None


def test_a_google_account_is_a_caller_of_its_own(api: httpx.Client, engine: Engine) -> None:
    mine = api.post("/v1/recordings", files={"file": KENNEDY.read_bytes()}).json()["id"]
    person = bearer(signed(claims(sub="42")))
    answer = api.post("/v1/recordings", files={"file": KENNEDY.read_bytes()}, headers=person)
    assert answer.status_code == 202, answer.text
    assert api.get(answer.headers["location"], headers=person).status_code == 200
    assert api.get(answer.headers["location"]).status_code == 404
    assert_problem(api.get(f"/v1/recordings/{mine}", headers=person), 404, "unknown-recording")
    forged = bearer(signed(claims(), by="theirs"))
    assert_problem(api.get(f"/v1/recordings/{mine}", headers=forged), 401, "invalid-token")
    with transaction(engine) as session:
        subjects = set(session.scalars(select(Caller.subject)).all())
    assert subjects == {"key:tests", "google:42"}, "an account's number, never its address"
