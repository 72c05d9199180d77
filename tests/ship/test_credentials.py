"""Secrets are filled, checked and replaced; nothing that is printed or passed on shows a value."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from speakfit.errors import ApplyError, RefusedError
from speakfit_ops.credentials.__main__ import main
from speakfit_ops.credentials.inventory import accept, find_secret
from speakfit_ops.credentials.rotation import CloudSql, Rotation
from speakfit_ops.credentials.vault import SecretManager
from speakfit_ops.deploy.cloud import Cloud
from tests.ship.cloud_endpoint import (
    ENVIRONMENT,
    FIRST,
    GROUP,
    OLD_PASSWORD,
    PREFIX,
    PROJECT,
    CloudEndpoint,
    Loss,
    serving,
)
from tests.ship.conftest import estate_at

KEY = "sk_5f2c9d0e7a1b4c3d"
ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., int]


@pytest.fixture
def google():
    """One project as Terraform leaves it; nothing of the services is asked."""
    endpoint = CloudEndpoint()
    endpoint.build()
    with serving(endpoint) as running:
        yield running


@pytest.fixture
def credentials(google: CloudEndpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs one command line here with a text on standard input; its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPEAKFIT_CLOUD_ENDPOINT", google.url)
    monkeypatch.setenv("SPEAKFIT_ENVIRONMENT", ENVIRONMENT)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)

    def run(*arguments: str, stdin: str = "") -> int:
        monkeypatch.setattr(sys, "argv", ["credentials", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        return main()

    return run


def test_a_secret_is_set_from_standard_input_and_never_shown(
    credentials: Run, google: CloudEndpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    assert credentials("check") == 3
    assert "elevenlabs-api-key: it has no enabled version" in capfd.readouterr().out
    assert credentials("set", "elevenlabs-api-key", stdin=f"{KEY}\n") == 0
    assert google.secrets[f"{PREFIX}-elevenlabs-api-key"] == [KEY], "without the line's end"
    assert credentials("check") == 0
    assert credentials("list", "--json") == 0
    said = capfd.readouterr()
    rows = json.loads(said.out[said.out.index("[") :])
    assert {row["name"]: row["version"] for row in rows}["elevenlabs-api-key"] == 1
    values = [value for values in google.secrets.values() for value in values]
    assert not [value for value in values if value in said.out + said.err]


@pytest.mark.slow
def test_no_other_process_can_read_a_value(google: CloudEndpoint, tmp_path: Path) -> None:
    """Arguments and variables of a process are in /proc for whoever may look."""
    hit, go_on = threading.Event(), threading.Event()

    def hold(_write: str) -> None:
        hit.set()
        go_on.wait(30)

    google.arrived = hold
    where = ["--project", PROJECT, "--environment", ENVIRONMENT, "--endpoint", google.url]
    process = subprocess.Popen(
        [sys.executable, "-m", "speakfit_ops.credentials", "set", "elevenlabs-api-key", *where],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}",
            # What Google's own libraries log of a request when they are asked to.
            "GOOGLE_SDK_PYTHON_LOGGING_SCOPE": "google",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(KEY)
    process.stdin.close()
    process.stdin = None
    assert hit.wait(60)
    seen = b"".join(
        Path(f"/proc/{process.pid}/{what}").read_bytes() for what in ("cmdline", "environ")
    )
    go_on.set()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert b"elevenlabs-api-key" in seen
    assert KEY.encode() not in seen
    assert KEY not in said
    assert base64.b64encode(KEY.encode()).decode() not in said
    assert google.secrets[f"{PREFIX}-elevenlabs-api-key"] == [KEY]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("elevenlabs-api-key", "your-api-key", "looks like a placeholder"),
        ("elevenlabs-api-key", "<ELEVENLABS KEY>", "looks like a placeholder"),
        ("elevenlabs-api-key", "xxxxxxxxxxxx", "looks like a placeholder"),
        ("elevenlabs-api-key", "changeme", "looks like a placeholder"),
        ("elevenlabs-api-key", "", "is empty"),
        ("elevenlabs-api-key", f" {KEY}", "white space"),
        ("elevenlabs-api-key", "sk_1", "fewer than 8"),
        ("google-oauth-client-id", "GOCSPX-abcdefgh", "does not end in .apps.google"),
        ("database-url", "postgresql://u:p4ssw0rd@host/db", "no address that begins with"),
        ("database-url", "postgresql+psycopg://speakfit@host/db", "carries no password"),
        ("database-url", "postgresql+psycopg://s:changeme@host/db", "password looks like"),
    ],
)
def test_what_cannot_be_the_value_is_refused_without_repeating_it(
    name: str, value: str, why: str
) -> None:
    with pytest.raises(RefusedError, match=why) as caught:
        accept(find_secret(name), value)
    assert not value or value not in str(caught.value)


def test_a_refused_value_reaches_nobody(
    credentials: Run, google: CloudEndpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    assert credentials("set", "elevenlabs-api-key", stdin="your-api-key") == 5
    assert credentials("set", "eleven-labs", stdin=KEY) == 5
    # A value as an argument would be in the list of processes: it is not taken.
    assert credentials("set", "elevenlabs-api-key", KEY) == 64
    assert google.writes == []
    assert "your-api-key" not in capfd.readouterr().err


def test_who_may_read_a_secret_is_checked(
    credentials: Run, google: CloudEndpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    bindings = google.policies[f"{PREFIX}-redis-url"]["bindings"]
    bindings[0]["members"] = [bindings[0]["members"][0]]
    google.policies[f"{PREFIX}-google-oauth-client-secret"]["bindings"].append(
        {"role": "roles/secretmanager.admin", "members": ["allUsers"]}
    )
    del google.secrets[f"{PREFIX}-database-ca"]
    assert credentials("check") == 3
    said = capfd.readouterr().out
    worker = f"{PREFIX}-worker@{PROJECT}.iam.gserviceaccount.com"
    assert f"redis-url: {worker} may not read it" in said
    assert "google-oauth-client-secret: allUsers may read or change it" in said
    assert "database-ca: it does not exist" in said
    assert "7 secrets checked, 4 problem(s)." in said


def test_the_replicas_address_is_asked_for_where_the_api_reads_it(
    credentials: Run, google: CloudEndpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    name = f"{PREFIX}-database-replica-url"
    credentials("check")
    assert "7 secrets checked, 1 problem(s)." in capfd.readouterr().out
    google.use_replica()
    google.policies[name] = {}
    credentials("check")
    said = capfd.readouterr().out
    assert "8 secrets checked, 2 problem(s)." in said
    assert "database-replica-url: speakfit-production-api@" in said
    del google.secrets[name]
    credentials("check")
    assert "database-replica-url: it does not exist" in capfd.readouterr().out


def test_local_files_are_their_owners_alone(
    credentials: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert credentials("set", "elevenlabs-api-key", "--local", stdin=KEY) == 0
    file = tmp_path / ".speakfit" / "credentials" / "elevenlabs-api-key"
    assert file.read_text() == KEY
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o644)
    assert credentials("check", "--local") == 3
    assert "others may read" in capfd.readouterr().out


def rotation(google: CloudEndpoint, told: list[str]) -> Rotation:
    def no_pause(_length: timedelta) -> None:
        pass

    estate = estate_at(google)
    return Rotation(
        SecretManager(estate),
        CloudSql(estate=estate, pause=no_pause),
        Cloud(estate, pause=no_pause),
        tell=told.append,
    )


def password_in(google: CloudEndpoint, number: int, name: str = "database-url") -> str:
    url = urlsplit(google.secrets[f"{PREFIX}-{name}"][number - 1])
    host = "10.0.0.5" if name == "database-replica-url" else "10.0.0.3"
    assert (url.username, url.hostname, url.query) == ("speakfit", host, "sslmode=verify-ca")
    return str(url.password)


def test_a_new_database_password_reaches_everybody_before_the_old_one_goes(
    google: CloudEndpoint,
) -> None:
    told: list[str] = []
    assert rotation(google, told).rotate() == 2
    new = password_in(google, 2)
    assert new != OLD_PASSWORD
    assert len(new) == 40
    kinds = (str.islower, str.isupper, str.isdigit, set("-_").__contains__)
    assert all(any(map(kind, new)) for kind in kinds), "what COMPLEXITY_DEFAULT asks for"
    assert google.passwords == [new]
    assert google.enabled(f"{PREFIX}-database-url") == [2]
    (serving,) = google.traffic()
    live = google.revisions[serving]
    assert serving != FIRST
    assert live["annotations"]["speakfit.dev/database-url-version"] == "2"
    assert live["containers"] == google.revisions[FIRST]["containers"], "nothing else changed"
    assert google.group["versions"][0]["instanceTemplate"].endswith(f"{GROUP}-k2")
    # The order: kept, told, made anew, and only then is the old one closed.
    kinds = [write.rsplit("/", 1)[1].rpartition(":")[2] for write in google.writes]
    assert kinds[0] == "addVersion"
    assert kinds[1] == "users"
    assert kinds[-1] == "disable"
    assert not [line for line in told if new in line or OLD_PASSWORD in line]


@pytest.mark.parametrize("loss", Loss)
def test_a_rotation_that_is_interrupted_at_any_write_goes_on(
    google: CloudEndpoint, loss: Loss
) -> None:
    interrupted = 0
    replica = f"{PREFIX}-database-replica-url"
    for number in count():
        google.build()
        google.use_replica()
        google.lose = {number: loss}
        try:
            version = rotation(google, []).rotate()
        except ApplyError:
            interrupted += 1
            version = rotation(google, []).rotate()
        # What the database was told last is what the only readable version says.
        name = f"{PREFIX}-database-url"
        assert google.enabled(name) == [version], number
        assert google.passwords[-1] == password_in(google, version)
        (readable,) = google.enabled(replica)
        assert google.passwords[-1] == password_in(google, readable, "database-replica-url")
        (serving,) = google.traffic()
        mark = google.revisions[serving]["annotations"]["speakfit.dev/database-url-version"]
        assert mark == str(version)
        if number > interrupted:
            break
    # Two versions, user, revision, traffic, template, group, two old versions.
    assert interrupted == 9


def test_cloud_runs_own_workers_get_the_new_password_too(google: CloudEndpoint) -> None:
    google.use_pool()
    (before,) = google.pool_revisions
    rotation(google, []).rotate()
    revision = google.pool["instanceSplitStatuses"][0]["revision"]
    assert revision == f"{GROUP}-k2"
    renewed = google.pool_revisions[revision]["containers"]
    assert renewed == google.pool_revisions[before]["containers"]


def test_a_revision_that_cannot_reach_the_database_keeps_the_old_version(
    google: CloudEndpoint,
) -> None:
    google.not_ready[google.service["template"]["containers"][0]["image"]] = "probe failed"
    with pytest.raises(ApplyError, match="probe failed"):
        rotation(google, []).rotate()
    assert google.enabled(f"{PREFIX}-database-url") == [1, 2]
    assert google.traffic() == {FIRST: 100}


def test_what_cloud_sql_says_is_told_and_no_password(google: CloudEndpoint) -> None:
    google.sql_fails = {"code": "INVALID_PASSWORD", "message": "Password policy."}
    with pytest.raises(ApplyError, match=r"Password policy\.") as caught:
        rotation(google, []).rotate()
    assert password_in(google, 2) not in str(caught.value)
    assert google.traffic() == {FIRST: 100}
    # It is not tried again: the next one is new.
    assert google.enabled(f"{PREFIX}-database-url") == [1]
    google.sql_fails = {}
    assert rotation(google, []).rotate() == 3
    assert google.passwords[-1] == password_in(google, 3) != password_in(google, 2)


def test_a_password_that_may_be_in_use_stays_readable_when_it_is_refused(
    credentials: Run, google: CloudEndpoint
) -> None:
    google.not_ready[google.service["template"]["containers"][0]["image"]] = "probe failed"
    assert credentials("rotate", "database-password", "--yes") == 4
    # A policy may forbid setting what is set already.
    google.sql_fails = {"code": "INVALID_PASSWORD", "message": "Used before."}
    assert credentials("rotate", "database-password", "--yes") == 4
    assert google.enabled(f"{PREFIX}-database-url") == [1, 2]
