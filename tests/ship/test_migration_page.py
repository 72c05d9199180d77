"""docs/migration.md from top to bottom, on one machine: its own commands, checks and back-outs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import redis
from sqlalchemy import text

from services.api.keys import create_key
from speakfit.database import make_engine, upgrade
from speakfit_ops.deploy.estate import Estate
from speakfit_ops.deploy.release import Release
from tests.conftest import SAMPLES, Process, free_port, service
from tests.migrate import old_databases
from tests.new_postgres import new_postgres
from tests.recording_monitoring import until
from tests.services.speech import known_text, word_error_rate
from tests.services.test_recordings import finished, upload
from tests.ship.cloud_endpoint import (
    ENVIRONMENT,
    FIRST,
    GROUP,
    PREFIX,
    PROJECT,
    REGION,
    CloudEndpoint,
    serving,
)
from tests.ship.conftest import OLD, Telemetry, traffic
from tests.ship.test_deploy import IMAGE, WORKER_IMAGE

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
KENNEDY = SAMPLES / "kennedy.flac"
RELEASE = Release.of(IMAGE, WORKER_IMAGE, None)
ESTATE = Estate(project=PROJECT, region=REGION, environment=ENVIRONMENT)
ELEVENLABS = "sk_5f2c9d0e7a1b4c3d"

Section = tuple[str, str]


def sections() -> dict[Section, list[str]]:
    """The commands in blocks marked `bash`, by phase and section."""
    found = {}
    for phase in re.split(r"(?m)^## ", PAGE)[1:]:
        for part in re.split(r"(?m)^### ", phase)[1:]:
            blocks = re.findall(r"```bash\n(.*?)```", part, re.DOTALL)
            lines = "".join(blocks).replace("\\\n", " ").splitlines()
            found[phase[: len("Phase 1")], part.splitlines()[0]] = lines
    return found


@dataclass(kw_only=True)
class Shell:
    """Runs the page's lines as somebody at a prompt would, and what they leave running."""

    environment: dict[str, str]
    folder: Path
    left: dict[Section, list[str]] = field(default_factory=sections)
    """What was not run yet."""

    def run(self, phase: str, section: str) -> list[str]:
        """All of a section that ends by itself; what each line printed."""
        said = []
        # Whoever sits at the prompt is not on Cloud Run.
        prompt = {name: given for name, given in self.environment.items() if name[:2] != "K_"}
        for line in self.left.pop((phase, section)):
            assert not line.endswith("&"), line
            wanted = re.search(r"# exits (\d)", line)
            done = subprocess.run(
                ["bash", "-c", line],
                cwd=self.folder,
                env=prompt,
                input=ELEVENLABS,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == int(wanted[1] if wanted else 0), (line, done)
            assert ELEVENLABS not in done.stdout + done.stderr
            said.append(done.stdout)
        return said

    def put_off(self, phase: str, section: str) -> None:
        """Keep the line that starts a service for `started`, under `SECTION, later`."""
        *lines, last = self.left[phase, section]
        self.left[phase, section], self.left[phase, f"{section}, later"] = lines, [last]

    @contextmanager
    def started(self, phase: str, section: str) -> Iterator[Process]:
        """The one service that a section starts, on the port of API."""
        (line,) = self.left.pop((phase, section))
        assert line.endswith(" &"), line
        before, _, command = line.removesuffix(" &").partition("python -m ")
        module, *arguments = command.split()
        own = {
            name: re.sub(r"\$(\w+)", lambda found: self.environment[found[1]], value)
            for name, value in re.findall(r'(\w+)="([^"]*)"', before)
        }
        port = self.environment["API"].rpartition(":")[2]
        with service(
            module,
            {**self.environment, **own},
            self.folder / f"{module}.log",
            *(port if one == "8080" else one for one in arguments),
        ) as process:
            if module == "services.api":
                until(self.answers, 60, f"the API of {phase}")
            yield process
            assert process.stop() == 0, process.log.read_text()

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.environment['API']}/healthz", trust_env=False).is_success
        except httpx.TransportError:
            return False


@pytest.fixture
def shell(
    environment: dict[str, str],
    database_url: str,
    broker: redis.Redis,
    telemetry: Telemetry,
    tmp_path: Path,
) -> Iterator[Shell]:
    """What the page tells to export, on this machine; PostgreSQL and Redis are empty."""
    with new_postgres(database_url) as target:
        yield Shell(
            environment={
                **environment,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "NO_PROXY": "127.0.0.1",
                "OLD_DATABASE": str(tmp_path / "speakfit.db"),
                "DATABASE_URL": target,
                "AUDIO_DIR": str(tmp_path / "audio"),
                "GOOGLE_CLOUD_PROJECT": PROJECT,
                "SPEAKFIT_ENVIRONMENT": ENVIRONMENT,
                "RECORDING": str(KENNEDY),
                "API_IMAGE": IMAGE,
                "WORKER_IMAGE": WORKER_IMAGE,
                # In place of `alerts route apply`, which needs PagerDuty.
                "PAGERDUTY_ROUTING_KEY_CRITICAL": "c" * 32,
                "PAGERDUTY_ROUTING_KEY_WARNING": "w" * 32,
                "API": f"http://127.0.0.1:{free_port()}",
                # The API is the release that is going to be deployed.
                "K_SERVICE": ESTATE.service,
                "K_REVISION": RELEASE.revision(ESTATE),
            },
            folder=tmp_path,
        )


def old_application(shell: Shell) -> tuple[str, str]:
    """One machine with SQLite, as it was: a key and a recording; then it is stopped."""
    url = f"sqlite:///{shell.environment['OLD_DATABASE']}"
    old = {**shell.environment, "DATABASE_URL": url}
    engine = make_engine(url)
    upgrade(engine)
    key = create_key(engine, name="coach").key
    engine.dispose()
    port = shell.environment["API"].rpartition(":")[2]
    with (
        service("services.api", old, shell.folder / "old.log", "--port", port) as api,
        service("services.worker", old, shell.folder / "old-worker.log") as worker,
        httpx.Client(base_url=shell.environment["API"], trust_env=False) as client,
    ):
        until(shell.answers, 60, "the old API")
        client.headers["Authorization"] = f"Bearer {key}"
        recording = upload(client, KENNEDY)
        assert finished(client, recording)["status"] == "completed"
        assert worker.stop() == 0
        assert api.stop() == 0
    # What somebody else's code keeps in the same file.
    old_databases.other(Path(shell.environment["OLD_DATABASE"]))
    return key, recording


def rows(url: str) -> dict[str, int]:
    engine = make_engine(url)
    with engine.connect() as connection:
        found = {
            table: connection.execute(text(f'SELECT count(*) FROM "{table}"')).scalar_one()
            for table in ("recordings", "chunks", "api_keys", "users", "sessions", "5% lose notes")
        }
    engine.dispose()
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_four_phases_lead_there_and_back(shell: Shell, telemetry: Telemetry) -> None:
    """Nothing on the page is left out, and each back-out leads to where its phase began."""
    environment = shell.environment
    key, old_recording = old_application(shell)
    environment |= {"KEY": key, "OLD_RECORDING": old_recording}
    file = Path(environment["OLD_DATABASE"])
    checksum = hashlib.sha256(file.read_bytes()).hexdigest()
    old_rows = rows(f"sqlite:///{file}")
    assert min(old_rows.values()) > 0

    with ExitStack() as open_until_the_end:
        client = open_until_the_end.enter_context(
            httpx.Client(base_url=environment["API"], trust_env=False, timeout=30)
        )
        client.headers["Authorization"] = f"Bearer {key}"

        # 1: there and back, and there again.
        shell.put_off("Phase 1", "Command")
        shell.run("Phase 1", "Command")
        assert rows(environment["DATABASE_URL"]) == old_rows
        with shell.started("Phase 1", "Back-out"):
            before = client.get(f"/v1/recordings/{old_recording}/transcript").text
        open_until_the_end.enter_context(shell.started("Phase 1", "Command, later"))
        checked = shell.run("Phase 1", "Check")
        assert '"ready":true' in checked[1]
        assert word_error_rate(known_text("kennedy"), json.loads(before)["text"]) <= 0.1
        assert checked[2] == before
        assert hashlib.sha256(file.read_bytes()).hexdigest() == checksum

        # 2: without a worker what is accepted waits, and is done when one is back.
        waiting = upload(client, KENNEDY)
        with queue_on(shell):
            done = finished(client, waiting)
        assert done["status"] == "completed"
        heard = client.get(done["links"]["transcript"]).json()["text"]
        assert word_error_rate(known_text("kennedy"), heard) <= 0.1

        # 3: a release and its way back.
        with google(shell) as cloud:
            release(shell, cloud, telemetry)
            shell.run("Phase 3", "Back-out")
            assert cloud.traffic() == {FIRST: 100}
            assert _template(cloud) == f"{GROUP}-00001"

        # 4.
        environment["MONITORING_EMULATOR_HOST"] = str(telemetry.target.host)
        shell.run("Phase 4", "Command")
        shell.run("Phase 4", "Gate")
        shell.run("Phase 4", "Check")
        shell.run("Phase 4", "Back-out")
    assert {where: lines for where, lines in shell.left.items() if lines} == {}


@contextmanager
def queue_on(shell: Shell) -> Iterator[None]:
    """A worker, the check of phase 2, and in the end the worker goes as its back-out says."""
    with shell.started("Phase 2", "Command"):
        shell.run("Phase 2", "Gate")
        (accepted, given_up) = shell.run("Phase 2", "Check")
        assert '"status":"queued"' in accepted
        assert given_up == "There is no dead letter.\n"
        yield
    shell.run("Phase 2", "Back-out")


@contextmanager
def google(shell: Shell) -> Iterator[CloudEndpoint]:
    """An estate as Terraform leaves it; its candidate is the API on the moved database."""
    endpoint = CloudEndpoint(candidate_url=shell.environment["API"])
    endpoint.build()
    with serving(endpoint) as running:
        shell.environment["SPEAKFIT_CLOUD_ENDPOINT"] = running.url
        yield running


def release(shell: Shell, cloud: CloudEndpoint, telemetry: Telemetry) -> None:
    """Phase 3 while time goes on in the telemetry and both releases are called."""
    telemetry.series = [*traffic(OLD, minutes=900), *traffic(RELEASE.name, minutes=900)]
    own = shell.environment["MONITORING_EMULATOR_HOST"]
    shell.environment["MONITORING_EMULATOR_HOST"] = str(telemetry.target.host)
    over = threading.Event()

    def time_goes_on() -> None:
        while not over.wait(0.3):
            telemetry.pause(timedelta(minutes=1))

    # What is awaited passes in policy time; only how often it is looked at is real.
    lines = shell.left["Phase 3", "Command"]
    lines[:] = [re.sub(r"promote", "promote --every 1s", line) for line in lines]
    clock = threading.Thread(target=time_goes_on)
    clock.start()
    try:
        shell.run("Phase 3", "Command")
    finally:
        over.set()
        clock.join()
    shell.environment["MONITORING_EMULATOR_HOST"] = own
    shell.run("Phase 3", "Gate")
    assert cloud.secrets[f"{PREFIX}-elevenlabs-api-key"] == [ELEVENLABS]
    revision = RELEASE.revision(ESTATE)
    assert cloud.traffic() == {revision: 100}
    assert _template(cloud) == RELEASE.workers(ESTATE)
    assert f"{revision}" in shell.run("Phase 3", "Check")[0]


def _template(cloud: CloudEndpoint) -> str:
    return str(cloud.group["versions"][0]["instanceTemplate"]).rsplit("/", 1)[1]
