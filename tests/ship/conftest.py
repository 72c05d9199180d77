"""A loopback Google, the real API as the candidate, and telemetry that both releases wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from alerts.gateway import Gateway
from alerts.policies import CATALOG
from speakfit.clock import ManualClock, from_ns
from speakfit.database import make_engine, upgrade
from speakfit.emulator.server import Emulator
from speakfit.engine.points import Series, SeriesKey
from speakfit.metrics import REQUEST_DURATION, REQUESTS, VERSION_LABEL, WORKERS_ALIVE
from speakfit.target import Target, TargetKind, policy_now_ns
from speakfit_ops.deploy.cloud import Cloud
from speakfit_ops.deploy.estate import Estate
from speakfit_ops.deploy.journal import Journal
from speakfit_ops.deploy.observation import observe
from speakfit_ops.deploy.release import Deployer
from speakfit_ops.deploy.smoke import smoke
from speakfit_ops.deploy.verdict import Verdict
from tests.alerts.playback import play
from tests.alerts.timeline import START, counter, gauge, latency
from tests.conftest import serving_api
from tests.ship.cloud_endpoint import ENVIRONMENT, PROJECT, REGION, CloudEndpoint, serving

OLD, NEW = "00001-abc", "r2"
"""The release that Terraform made, and the one that the running API says it is."""


@pytest.fixture(scope="session")
def candidate_url(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[str]:
    """The real API, as release r2, on a database of its own."""
    folder = tmp_path_factory.mktemp("candidate")
    database = f"sqlite:///{folder}/speakfit.db"
    engine = make_engine(database)
    upgrade(engine)
    engine.dispose()
    environment = {
        "DATABASE_URL": database,
        "REDIS_URL": redis_url,
        "AUDIO_DIR": str(folder / "audio"),
        "K_SERVICE": "speakfit-production-api",
        "K_REVISION": f"speakfit-production-api-{NEW}",
        "PYTHONPATH": "platform",
    }
    with serving_api(environment, folder / "api.log") as client:
        yield str(client.base_url)


@pytest.fixture
def cloud(candidate_url: str) -> Iterator[CloudEndpoint]:
    """One environment as Terraform leaves it; its candidate is the real API."""
    endpoint = CloudEndpoint(candidate_url=candidate_url.rstrip("/"))
    endpoint.build()
    with serving(endpoint) as running:
        yield running


def estate_at(endpoint: CloudEndpoint) -> Estate:
    """The estate whose calls this endpoint answers."""
    return Estate(project=PROJECT, region=REGION, environment=ENVIRONMENT, endpoint=endpoint.url)


def traffic(
    version: str, *, minutes: int = 60, served: float = 20, failed: float = 0
) -> list[Series]:
    """What one release's API reports: so many requests an export, fast, some of them 5xx."""
    labels = {"http_route": "/v1/recordings", "route_class": "interactive"}
    task = f"api-{version}"
    lines = [
        counter(REQUESTS, (minutes, served), task=task, status_class="2xx", **labels),
        counter(REQUESTS, (minutes, failed), task=task, status_class="5xx", **labels),
        latency(
            REQUEST_DURATION,
            (minutes, ((int(served), 0.05),)),
            task=task,
            http_request_method="GET",
            http_response_status_code="200",
            **labels,
        ),
        gauge(WORKERS_ALIVE, (minutes, 2), task=task),
    ]
    return [labelled(one, version) for one in lines]


def labelled(series: Series, version: str) -> Series:
    """The same series as one release's."""
    key = series.key
    named = SeriesKey.of(
        metric_type=key.metric_type,
        metric_labels={**dict(key.metric), VERSION_LABEL: version},
        resource_type=key.resource_type,
        resource_labels=dict(key.resource),
    )
    return replace(series, key=named)


def between(series: Sequence[Series], after_ns: int, until_ns: int) -> list[Series]:
    """The points that end in (after, until]."""
    found = []
    for one in series:
        kept = np.flatnonzero((one.end_ns > after_ns) & (one.end_ns <= until_ns))
        if len(kept):
            column = one.distributions
            found.append(
                replace(
                    one,
                    start_ns=one.start_ns[kept],
                    end_ns=one.end_ns[kept],
                    values=None if one.values is None else one.values[kept],
                    distributions=None if column is None else column.take(kept),
                )
            )
    return found


@dataclass(kw_only=True)
class Telemetry:
    """Cloud Monitoring in which time goes on when a release waits, and series grow with it."""

    emulator: Emulator
    clock: ManualClock
    target: Target
    series: list[Series] = field(default_factory=list)

    def pause(self, length: timedelta) -> None:
        """Let policy time go on."""
        now = self.clock.now_ns()
        until = now + int(length.total_seconds()) * 10**9
        play(between(self.series, now, until), self.clock, self.target)
        rest = timedelta(microseconds=(until - self.clock.now_ns()) // 1_000)
        if rest:
            self.clock.advance(rest)

    def now_ns(self) -> int:
        """Policy time."""
        return policy_now_ns(self.target)

    def observe(self, minimum: int, release: str, before: str, since_ns: int) -> Verdict:
        """What a deploy's own command line asks."""
        with Gateway(self.target) as gateway:
            return observe(
                gateway,
                CATALOG,
                release=release,
                before=before,
                since_ns=since_ns,
                now_ns=self.now_ns(),
                minimum=minimum,
                runbook_base_url="https://runbooks.test",
            )


@pytest.fixture
def telemetry(monitoring_emulator: Emulator) -> Telemetry:
    """Empty, at a whole minute."""
    clock = ManualClock(from_ns(START))
    monitoring_emulator.reset(clock=clock)
    target = Target(
        kind=TargetKind.EMULATOR, project=PROJECT, host=monitoring_emulator.grpc_address
    )
    return Telemetry(emulator=monitoring_emulator, clock=clock, target=target)


@dataclass(kw_only=True)
class Bench:
    """A deployer, and everything that it says and keeps."""

    deployer: Deployer
    folder: Path
    told: list[str]

    def journal(self, release: str) -> Journal:
        """Read anew from disk, as another process would."""
        return Journal.of(self.deployer.estate, release, self.folder)


MakeBench = Callable[..., Bench]


@pytest.fixture
def bench(cloud: CloudEndpoint, telemetry: Telemetry, tmp_path: Path) -> MakeBench:
    """Makes a deployer; each is a new process as far as it can know."""

    def make(minimum: int = 50) -> Bench:
        told: list[str] = []
        return Bench(
            deployer=Deployer(
                Cloud(estate_at(cloud), pause=lambda _length: None),
                tell=told.append,
                smoke=lambda url, release: smoke(
                    url, release=release, token=None, pause=lambda _length: None
                ),
                observe=partial(telemetry.observe, minimum),
                now_ns=telemetry.now_ns,
                pause=telemetry.pause,
            ),
            folder=tmp_path / "deploys",
            told=told,
        )

    return make
