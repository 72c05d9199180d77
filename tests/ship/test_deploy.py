"""Releases that go well, that go wrong, and that are interrupted anywhere."""

from __future__ import annotations

import copy
from datetime import timedelta
from itertools import count

import pytest

from speakfit.errors import ApplyError, RefusedError, TargetError
from speakfit.metrics import REQUESTS
from speakfit.settings import release
from speakfit_ops.deploy.journal import Step
from speakfit_ops.deploy.release import Release
from speakfit_ops.deploy.verdict import Health, Verdict
from tests.alerts.timeline import counter
from tests.ship.cloud_endpoint import FIRST, GROUP, CloudEndpoint, Loss
from tests.ship.conftest import NEW, OLD, Bench, MakeBench, Telemetry, labelled, traffic

IMAGE = "us-docker.pkg.dev/speakfit-test/speakfit/api@sha256:" + "a" * 64
WORKER_IMAGE = "us-docker.pkg.dev/speakfit-test/speakfit/worker@sha256:" + "b" * 64
WANTED = Release.of(IMAGE, WORKER_IMAGE, NEW)
SECOND = "speakfit-production-api-r2"
OLD_TEMPLATE, NEW_TEMPLATE = f"{GROUP}-00001", f"{GROUP}-r2"

STEPS = (10, 50)
SOAK = timedelta(minutes=10)


def promote(bench: Bench) -> Verdict:
    return bench.deployer.promote(bench.journal, steps=STEPS, soak=SOAK, every=timedelta(minutes=2))


def template_of(cloud: CloudEndpoint) -> str:
    return str(cloud.group["versions"][0]["instanceTemplate"]).rsplit("/", 1)[1]


def test_a_good_release_gets_all_traffic_in_steps(
    cloud: CloudEndpoint, telemetry: Telemetry, bench: MakeBench
) -> None:
    telemetry.series = [*traffic(OLD), *traffic(NEW)]
    one = bench()
    checks = one.deployer.release(WANTED, one.journal(NEW))
    assert [check.ok for check in checks] == [True, True, True], checks
    # Nobody is sent there yet, and the migration ran on the new image.
    assert cloud.traffic() == {FIRST: 100}
    assert [run["annotations"]["image"] for run in cloud.executions] == [IMAGE]
    assert template_of(cloud) == OLD_TEMPLATE

    other = bench()
    verdict = promote(other)
    assert verdict.health is Health.HEALTHY, verdict
    assert {"api-errors-critical", "api-latency-warning"} <= set(verdict.judged)
    assert cloud.traffic() == {SECOND: 100}
    assert cloud.service["traffic"] == [{"type": 2, "revision": SECOND, "percent": 100}], (
        "the tag is gone"
    )
    shares = [
        entry.facts["percent"]
        for entry in other.journal(NEW).entries
        if entry.step is Step.TRAFFIC and entry.state == "done"
    ]
    assert shares == [10, 50, 100]
    # Only the image is another: variables and secrets are Terraform's.
    before, after = (cloud.revisions[name]["containers"][0] for name in (FIRST, SECOND))
    assert {**after, "image": ""} == {**before, "image": ""}
    # The workers came up before the old ones went, from the same template with another image.
    assert template_of(cloud) == NEW_TEMPLATE
    metadata = cloud.templates[NEW_TEMPLATE]["properties"]["metadata"]["items"]
    assert {item["key"]: item["value"] for item in metadata} == {
        "startup-script": "#!/bin/sh",
        "speakfit-image": WORKER_IMAGE,
        "speakfit-release": NEW,
    }
    assert cloud.group["updatePolicy"]["maxUnavailable"] == {"fixed": 0}
    assert one.journal(NEW).path.stat().st_mode & 0o777 == 0o600
    assert one.journal(NEW).path.parent.stat().st_mode & 0o777 == 0o700


def test_a_release_whose_own_requests_fail_is_rolled_back(
    cloud: CloudEndpoint, telemetry: Telemetry, bench: MakeBench
) -> None:
    # One in five of the new release's requests; all requests together stay under one percent.
    telemetry.series = [*traffic(OLD, served=4000), *traffic(NEW, served=20, failed=5)]
    one = bench()
    one.deployer.release(WANTED, one.journal(NEW))
    verdict = promote(one)
    assert verdict.health is Health.UNHEALTHY
    assert any(reason.startswith("api-errors-critical") for reason in verdict.reasons)
    assert cloud.traffic() == {FIRST: 100}
    assert template_of(cloud) == OLD_TEMPLATE
    # It ended before the pause did: trouble is not watched to its end.
    assert telemetry.now_ns() < telemetry_start(telemetry) + SOAK.total_seconds() * 10**9
    last = one.journal(NEW).last(Step.ROLLBACK)
    assert last is not None
    assert "api-errors-critical" in str(
        [entry.facts for entry in one.journal(NEW).entries if entry.step is Step.ROLLBACK]
    )


def telemetry_start(telemetry: Telemetry) -> int:
    return int(telemetry.series[0].start_ns[0])


def test_too_few_requests_prove_nothing_and_more_of_them_go_on(
    cloud: CloudEndpoint, telemetry: Telemetry, bench: MakeBench
) -> None:
    telemetry.series = [*traffic(OLD), *traffic(NEW, served=2)]
    one = bench()
    one.deployer.release(WANTED, one.journal(NEW))
    verdict = promote(one)
    assert verdict.health is Health.INCONCLUSIVE
    assert verdict.reasons == ("40 of at least 50 requests",)
    assert cloud.traffic() == {FIRST: 90, SECOND: 10}
    # Time went on at the same share; the step is judged from its beginning.
    telemetry.pause(timedelta(minutes=5))
    assert promote(bench()).health is Health.INCONCLUSIVE, "the next step has its own sample"
    assert cloud.traffic() == {FIRST: 50, SECOND: 50}


def test_trouble_that_has_not_lasted_yet_is_no_health(
    cloud: CloudEndpoint, telemetry: Telemetry, bench: MakeBench
) -> None:
    labels = {"http_route": "/v1/recordings", "route_class": "interactive"}
    late = counter(REQUESTS, (8, 0), (52, 20), task="api-2", status_class="5xx", **labels)
    telemetry.series = [*traffic(OLD), *traffic(NEW), labelled(late, NEW)]
    one = bench()
    one.deployer.release(WANTED, one.journal(NEW))
    verdict = promote(one)
    assert verdict.health is Health.INCONCLUSIVE
    assert "api-errors-critical is violated now and has not lasted 2 min yet" in verdict.reasons
    # It lasts: the next look is enough.
    telemetry.pause(timedelta(minutes=3))
    assert promote(bench()).health is Health.UNHEALTHY
    assert cloud.traffic() == {FIRST: 100}


def test_trouble_that_the_release_before_has_too_is_not_blamed_on_the_new_one(
    cloud: CloudEndpoint, telemetry: Telemetry, bench: MakeBench
) -> None:
    telemetry.series = [*traffic(OLD, failed=5), *traffic(NEW, failed=5)]
    one = bench()
    one.deployer.release(WANTED, one.journal(NEW))
    verdict = promote(one)
    assert verdict.health is Health.INCONCLUSIVE
    assert "by the release before it too" in verdict.reasons[0]
    assert cloud.traffic() == {FIRST: 90, SECOND: 10}


def test_a_release_without_telemetry_is_not_promoted(
    cloud: CloudEndpoint, telemetry: Telemetry, bench: MakeBench
) -> None:
    telemetry.series = traffic(OLD)
    one = bench()
    one.deployer.release(WANTED, one.journal(NEW))
    verdict = promote(one)
    assert verdict.health is Health.INCONCLUSIVE
    assert any("api-errors-critical could not be evaluated" in one for one in verdict.reasons)
    assert cloud.traffic() == {FIRST: 90, SECOND: 10}


@pytest.mark.parametrize("loss", [Loss.ANSWER, pytest.param(Loss.REQUEST, marks=pytest.mark.slow)])
def test_a_release_that_is_interrupted_at_any_write_goes_on(
    cloud: CloudEndpoint,
    telemetry: Telemetry,
    bench: MakeBench,
    loss: Loss,
) -> None:
    healthy = Verdict(health=Health.HEALTHY, requests=99, judged=("api-errors",), reasons=())

    def whole(one: Bench) -> None:
        one.deployer._observe = lambda *_: healthy
        if one.deployer.release(WANTED, one.journal(NEW)):
            one.deployer.promote(
                one.journal, steps=STEPS, soak=timedelta(0), every=timedelta(minutes=1)
            )

    interrupted = 0
    for number in count():
        cloud.build()
        cloud.lose = {number: loss}
        for file in bench().folder.rglob("*.jsonl"):
            file.unlink()
        try:
            whole(bench())
        except ApplyError:
            interrupted += 1
            whole(bench())
        assert cloud.traffic() == {SECOND: 100}, number
        assert set(cloud.revisions) == {FIRST, SECOND}
        assert template_of(cloud) == NEW_TEMPLATE
        assert cloud.executions, "the database was migrated"
        if number > interrupted:
            break
    # Job, run, revision, template, group, three shares, and the tag's end.
    assert interrupted == 9


def test_a_revision_that_never_becomes_ready_gets_no_traffic(
    cloud: CloudEndpoint, bench: MakeBench
) -> None:
    cloud.not_ready[IMAGE] = "The user-provided container failed to start and listen on PORT=8080."
    one = bench()
    with pytest.raises(ApplyError, match="failed to start and listen on PORT=8080") as caught:
        one.deployer.release(WANTED, one.journal(NEW))
    assert caught.value.done == 1, "the migration is told of"
    assert cloud.traffic() == {FIRST: 100}
    with pytest.raises(RefusedError, match="not ready: The user-provided container failed"):
        promote(one)
    # The way back works although Cloud Run still calls the service failed.
    assert one.deployer.rollback(None, one.journal) == FIRST
    assert cloud.service["traffic"] == [{"type": 2, "revision": FIRST, "percent": 100}]


def test_what_somebody_else_changes_meanwhile_is_not_overwritten(
    cloud: CloudEndpoint, bench: MakeBench
) -> None:
    def somebody(write: str) -> None:
        if write.startswith("PATCH") and "/services/" in write:
            cloud.service["etag"] = '"theirs"'

    cloud.arrived = somebody
    one = bench()
    with pytest.raises(ApplyError, match="omebody else changed service") as caught:
        one.deployer.release(WANTED, one.journal(NEW))
    assert not caught.value.uncertain
    assert set(cloud.revisions) == {FIRST}


def test_a_second_release_waits_for_the_first(
    cloud: CloudEndpoint, telemetry: Telemetry, bench: MakeBench
) -> None:
    telemetry.series = [*traffic(OLD), *traffic(NEW, served=1)]
    one = bench()
    one.deployer.release(WANTED, one.journal(NEW))
    assert promote(one).health is Health.INCONCLUSIVE
    with pytest.raises(RefusedError, match="Another release is under way"):
        one.deployer.release(Release.of(IMAGE, None, "r3"), one.journal("r3"))
    # Given up, it makes room.
    assert one.deployer.rollback(None, one.journal) == FIRST
    one.deployer.release(Release.of(IMAGE, None, "r3"), one.journal("r3"))


def test_a_migration_that_fails_stops_everything(cloud: CloudEndpoint, bench: MakeBench) -> None:
    cloud.migration_fails = "The container exited with an error."
    one = bench()
    with pytest.raises(ApplyError, match="The container exited with an error"):
        one.deployer.release(WANTED, one.journal(NEW))
    assert set(cloud.revisions) == {FIRST}
    # It is run again once its cause is gone, not waited for.
    cloud.migration_fails = ""
    other = bench()
    other.deployer.release(WANTED, other.journal(NEW))
    assert len(cloud.executions) == 2


def test_an_address_that_leads_to_another_release_fails_the_smoke_check(
    cloud: CloudEndpoint, bench: MakeBench
) -> None:
    one = bench()
    wanted = Release.of(IMAGE, None, "r3")
    checks = one.deployer.release(wanted, one.journal("r3"))
    assert [check.detail for check in checks if not check.ok] == ["release r2 answers, not r3"]
    with pytest.raises(RefusedError, match="does not answer as it must"):
        promote(one)
    assert cloud.traffic() == {FIRST: 100}


def test_behind_a_load_balancer_cloud_runs_own_probe_is_what_answers(
    cloud: CloudEndpoint, bench: MakeBench
) -> None:
    cloud.service["ingress"] = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
    cloud.candidate_url = "http://127.0.0.1:9"
    one = bench()
    (check,) = one.deployer.release(WANTED, one.journal(NEW))
    assert check.ok
    # Without that probe nothing has been asked, and nothing is believed.
    del cloud.service["template"]["containers"][0]["startupProbe"]
    (check,) = one.deployer.release(Release.of(IMAGE, None, "r3"), one.journal("r3"))
    assert not check.ok
    assert "--smoke-url" in check.detail


def test_workers_without_room_are_told_in_computes_words(
    cloud: CloudEndpoint, bench: MakeBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("speakfit_ops.deploy.workers.ROLL_LIMIT", timedelta(0))
    cloud.workers_stuck = True
    cloud.group_errors = [
        {"error": {"code": "QUOTA_EXCEEDED", "message": "Quota 'NVIDIA_T4_GPUS' exceeded."}}
    ]
    one = bench()
    one.deployer.release(WANTED, one.journal(NEW))
    with pytest.raises(ApplyError, match="QUOTA_EXCEEDED: Quota 'NVIDIA_T4_GPUS' exceeded"):
        promote(one)
    assert cloud.traffic() == {FIRST: 100}, "traffic waits for the workers"


def test_workers_are_made_as_terraform_last_declared_them(
    cloud: CloudEndpoint, telemetry: Telemetry, bench: MakeBench
) -> None:
    """Terraform makes a template and leaves it to the next deploy to use it."""
    telemetry.series = [*traffic(OLD), *traffic(NEW)]
    declared = copy.deepcopy(cloud.templates[OLD_TEMPLATE])
    declared |= {"name": f"{GROUP}-00002", "creationTimestamp": "2026-01-05T00:00:00-08:00"}
    declared["properties"]["machineType"] = "g2-standard-4"
    ours = {**copy.deepcopy(declared), "name": f"{GROUP}-r0"}
    ours["description"] = "Made by python -m speakfit_ops.deploy"
    ours["creationTimestamp"] = "2026-01-06T00:00:00-08:00"
    ours["properties"]["machineType"] = "n1-standard-8"
    cloud.templates |= {declared["name"]: declared, ours["name"]: ours}
    one = bench()
    one.deployer.release(WANTED, one.journal(NEW))
    promote(one)
    assert cloud.templates[NEW_TEMPLATE]["properties"]["machineType"] == "g2-standard-4"


def test_workers_may_be_cloud_runs_own(
    cloud: CloudEndpoint, telemetry: Telemetry, bench: MakeBench
) -> None:
    cloud.use_pool()
    (before,) = cloud.pool_revisions
    telemetry.series = [*traffic(OLD), *traffic(NEW)]
    one = bench()
    one.deployer.release(WANTED, one.journal(NEW))
    assert promote(one).health is Health.HEALTHY
    assert cloud.pool_revisions[NEW_TEMPLATE]["containers"][0]["image"] == WORKER_IMAGE
    split = {"type": 2, "percent": 100}
    assert cloud.pool["instanceSplitStatuses"] == [{**split, "revision": NEW_TEMPLATE}]
    assert one.deployer.rollback(FIRST, one.journal) == FIRST
    assert cloud.pool["instanceSplitStatuses"] == [{**split, "revision": before}]


def test_an_environment_without_workers_says_so(cloud: CloudEndpoint, bench: MakeBench) -> None:
    cloud.group = {}
    one = bench()
    with pytest.raises(TargetError, match="There are no workers called"):
        one.deployer.release(WANTED, one.journal(NEW))
    assert cloud.writes == []


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"K_SERVICE": "speakfit-prod-api", "K_REVISION": "speakfit-prod-api-r2"}, "r2"),
        (
            {
                "CLOUD_RUN_WORKER_POOL": "speakfit-prod-gpu-worker",
                "CLOUD_RUN_WORKER_POOL_REVISION": "speakfit-prod-gpu-worker-r2",
                "SERVICE_VERSION": "unreleased",
            },
            "r2",
        ),
        ({"SERVICE_VERSION": "r2"}, "r2"),
    ],
)
def test_a_process_knows_its_release(
    variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert release() == named


def test_a_rollback_by_name_takes_the_workers_along(
    cloud: CloudEndpoint, telemetry: Telemetry, bench: MakeBench
) -> None:
    telemetry.series = [*traffic(OLD), *traffic(NEW)]
    one = bench()
    one.deployer.release(WANTED, one.journal(NEW))
    promote(one)
    other = bench()
    with pytest.raises(RefusedError, match="no revision speakfit-production-api-r9"):
        other.deployer.rollback("speakfit-production-api-r9", other.journal)
    assert other.deployer.rollback(FIRST, other.journal) == FIRST
    assert cloud.traffic() == {FIRST: 100}
    assert template_of(cloud) == OLD_TEMPLATE


@pytest.mark.parametrize(
    ("image", "worker", "name", "what"),
    [
        ("repository/api:latest", None, None, "no image by digest"),
        (IMAGE, "repository/worker:v1", None, "no image by digest"),
        (IMAGE, None, "Release 2", "cannot name a release"),
    ],
)
def test_what_cannot_be_released_is_refused(
    image: str, worker: str | None, name: str | None, what: str
) -> None:
    with pytest.raises(RefusedError, match=what):
        Release.of(image, worker, name)
