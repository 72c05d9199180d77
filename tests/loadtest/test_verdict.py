"""Measurements that would look green elsewhere, and what the gate says of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from alerts.policies import CATALOG
from alerts.policy import Catalog
from loadtest.contract import (
    CONTRACTS,
    QUEUE_CRITICAL,
    QUEUE_WARNING,
    Contract,
    Figure,
    Limit,
    MustPage,
)
from loadtest.ledger import Ledger
from loadtest.scenarios import SCENARIOS
from loadtest.verdict import PageSeen, Run, ServerSide, Verdict, judge, overall
from speakfit.errors import LoadError

NOW = 0.0


def a_run(*, answers: int = 600, seconds: float = 60.0, latency_ms: float = 40.0) -> Run:
    """A minute of ten good answers a second that both sides agree on."""
    ledger = Ledger(intended=answers)
    for number in range(answers):
        at = number * seconds / answers
        ledger.begin(at, 1.0)
        ledger.answer("GET /v1/recordings", at, intended_ms=latency_ms, service_ms=latency_ms)
    return Run(
        scenario=SCENARIOS["steady"],
        contract=CONTRACTS["steady"],
        seconds=seconds,
        scale=6.0,
        planned=answers,
        ledger=ledger,
        server=ServerSide(requests=answers, errors=0, p95=(0.025, 0.05)),
    )


def failing(run: Run) -> list[str]:
    return [check.name for check in judge(run).checks if not check.passed]


def test_a_sound_run_is_go() -> None:
    assert failing(a_run()) == []
    assert judge(a_run()).verdict is Verdict.GO


def test_nothing_measured_is_invalid_and_not_go() -> None:
    run = replace(a_run(), ledger=Ledger(), planned=600)
    assert judge(run).verdict is Verdict.INVALID
    assert {"samples", "offered rate"} <= set(failing(run))
    assert overall([]) is Verdict.INVALID


def test_a_generator_that_is_late_too_slow_or_gone_is_invalid() -> None:
    late = a_run()
    for _ in range(20):
        late.ledger.begin(5.0, 900.0)
    assert "schedule lag" in failing(replace(late, planned=620))
    assert failing(replace(a_run(), planned=900)) == ["offered rate"]
    assert failing(replace(a_run(), processor=0.99)) == ["generator"]
    assert failing(replace(a_run(), processes=2, ended=1)) == ["processes"]
    assert judge(replace(a_run(), planned=900)).verdict is Verdict.INVALID


def test_sides_that_disagree_are_invalid() -> None:
    # Locust's --otel puts 80 of 80 samples into one bucket of 0 to 5: any p95 is the same then.
    blind = ServerSide(requests=600, errors=0, p95=(4.0, 5.0))
    assert failing(replace(a_run(), server=blind)) == ["latencies agree"]
    dropped = ServerSide(requests=400, errors=0, p95=(0.025, 0.05))
    assert failing(replace(a_run(), server=dropped)) == ["counts agree"]
    unseen = ServerSide(requests=600, errors=100, p95=(0.025, 0.05))
    assert failing(replace(a_run(), server=unseen)) == ["errors agree"]
    assert failing(replace(a_run(), server=None)) == ["telemetry"]
    assert judge(replace(a_run(), server=None)).verdict is Verdict.INVALID


def test_quick_failures_beside_slow_answers_are_no_go_for_both() -> None:
    # Locust's median of these was 38 ms: half of the requests failed at once, half took 3 s.
    run = a_run(answers=300, latency_ms=3000.0)
    for number in range(300):
        at = number * 0.2
        run.ledger.begin(at, 1.0)
        run.ledger.fail("GET /v1/recordings", at, kind="503", intended_ms=2.0)
    run = replace(run, planned=600, server=ServerSide(requests=600, errors=300, p95=(2.5, 3.0)))
    assert failing(run) == ["p95 at most 2.00 s", "failures at most 1.0%"]
    assert judge(run).verdict is Verdict.NO_GO


def test_a_bad_stretch_is_not_thinned_out_by_good_ones() -> None:
    run = a_run(answers=6000)
    for number in range(60):
        run.ledger.answer("GET /v1/recordings", 30.0 + number / 10, intended_ms=4000, service_ms=40)
        run.ledger.begin(30.0, 1.0)
    # Over the whole run the p95 is 40 ms; in the worst ten seconds it is not.
    run = replace(run, planned=6060, server=ServerSide(requests=6060, errors=0, p95=(0.025, 0.05)))
    assert failing(run) == ["p95 at most 2.00 s"]


def test_answers_that_never_came_are_failures() -> None:
    run = a_run()
    for _ in range(50):
        run.ledger.begin(55.0, 1.0)
        run.ledger.abandon("GET /v1/recordings", 60.0, waited_ms=7000)
    assert failing(replace(run, planned=650)) == ["failures at most 1.0%"]


def page(policy: str, at: float, resolved: float | None) -> PageSeen:
    severity = policy.rpartition("-")[2]
    return PageSeen(policy=policy, severity=severity, title="", at=at, resolved=resolved)


FLOOD = Contract(
    scenario="steady",
    pages=(
        MustPage(
            policy=QUEUE_WARNING,
            by=timedelta(minutes=8),
            resolves_by=timedelta(minutes=10),
        ),
    ),
    may_page=(QUEUE_CRITICAL,),
)


@pytest.mark.parametrize(
    ("pages", "wrong"),
    [
        ((page("queue-depth-warning", 70.0, 120.0),), []),
        ((page("queue-depth-warning", 70.0, 120.0), page("queue-depth-critical", 75.0, 110.0)), []),
        ((), ["queue-depth-warning pages within 8 min"]),
        (
            (page("queue-depth-warning", 81.0, 120.0),),
            ["queue-depth-warning pages within 8 min"],
        ),
        (
            (page("queue-depth-warning", 70.0, None),),
            ["queue-depth-warning resolves within 10 min of the end"],
        ),
        (
            (page("queue-depth-warning", 70.0, 161.0),),
            ["queue-depth-warning resolves within 10 min of the end"],
        ),
        (
            (page("queue-depth-warning", 70.0, 120.0), page("worker-down-critical", 9.0, 20.0)),
            ["no false page"],
        ),
        # What nobody can tell the policy of is false, too.
        ((page("queue-depth-warning", 70.0, 120.0), page("", 9.0, 20.0)), ["no false page"]),
    ],
)
def test_pages_must_come_in_time_resolve_and_nothing_else_may(
    pages: tuple[PageSeen, ...], wrong: list[str]
) -> None:
    # The load lasts 60 s and six times as long on the policies' clock.
    assert failing(replace(a_run(), contract=FLOOD, pages=pages)) == wrong


def test_contracts_name_what_is_there() -> None:
    assert set(CONTRACTS) == set(SCENARIOS)
    for contract in CONTRACTS.values():
        contract.check(CATALOG)
    with pytest.raises(LoadError, match="which the catalog does not have"):
        FLOOD.check(Catalog(name="other", policies=(), routes=()))
    with pytest.raises(LoadError, match="the stage nowhere"):
        Contract(scenario="spike", limits=(Limit(figure=Figure.P95, at_most=1.0, stage="nowhere"),))
