"""What a load must and must not do, written with the same Policy objects that page people.

All times are policy time, as the durations of the policies are. A policy that no contract names
must stay quiet: a page that nobody promised fails the gate as much as one that did not come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from alerts.policies.api_latency import POLICIES as API_LATENCY
from alerts.policies.queue_depth import POLICIES as QUEUE_DEPTH
from alerts.policy import Catalog, Policy, Severity, Threshold
from loadtest.scenarios import SCENARIOS
from speakfit.errors import LoadError

MINUTE = timedelta(minutes=1)


class Figure(StrEnum):
    """What a limit is about, from the client's side."""

    P50 = "p50"
    P95 = "p95"
    P99 = "p99"
    FAILURES = "failures"
    """Share of the requests that failed or were never answered, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class MustPage:
    """A page that must come after the load began, and resolve after it ended."""

    policy: Policy
    by: timedelta
    resolves_by: timedelta


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What a figure may be in every window that slides over the load.

    Latencies are seconds, from when the request was meant to begin.
    """

    figure: Figure
    at_most: float
    window: timedelta = MINUTE
    stage: str = ""
    """Only while this stage of the arrivals lasts; empty is always."""


@dataclass(frozen=True, kw_only=True)
class Contract:
    """All that is asked of one scenario."""

    scenario: str
    pages: tuple[MustPage, ...] = ()
    may_page: tuple[Policy, ...] = ()
    limits: tuple[Limit, ...] = ()
    finds_capacity: bool = False
    """Whether its rising rate tells what the API can take."""

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise LoadError(
                f"A contract names the scenario {self.scenario}, which is not there.",
                where=f"contract of {self.scenario}",
                todo="Choose among " + ", ".join(SCENARIOS) + ".",
            )
        stages = {stage.name for stage in SCENARIOS[self.scenario].stages}
        for limit in self.limits:
            if limit.stage and limit.stage not in stages:
                raise LoadError(
                    f"A limit names the stage {limit.stage}, which is not there.",
                    where=f"contract of {self.scenario}",
                    todo="Choose among " + ", ".join(sorted(stages)) + ".",
                )

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All that it names."""
        return (*(page.policy for page in self.pages), *self.may_page)

    def check(self, catalog: Catalog) -> None:
        """A LoadError when a policy is not the catalog's: such a page could never come."""
        for policy in self.policies:
            if policy not in catalog.policies:
                raise LoadError(
                    f"The contract names the policy {policy.id}, which the catalog does not have.",
                    where=f"contract of {self.scenario}, catalog {catalog.name}",
                    todo="`python -m alerts list` shows what there is.",
                )


def of(policies: tuple[Policy, ...], severity: Severity) -> Policy:
    """The policy of a subject at one severity."""
    return next(policy for policy in policies if policy.severity is severity)


def threshold(policy: Policy) -> float:
    """The value that a policy's first condition must not be above."""
    first = policy.conditions[0]
    if not isinstance(first, Threshold) or first.above is None:
        raise LoadError(
            f"{policy.id} begins with no threshold that something may be above.",
            where=f"policy {policy.id}",
            todo="Name the limit yourself.",
        )
    return first.above


QUEUE_WARNING = of(QUEUE_DEPTH, Severity.WARNING)
QUEUE_CRITICAL = of(QUEUE_DEPTH, Severity.CRITICAL)

CALM = (
    # The same two seconds that the policy warns at, read from it.
    Limit(figure=Figure.P95, at_most=threshold(of(API_LATENCY, Severity.WARNING))),
    Limit(figure=Figure.FAILURES, at_most=0.01),
)

CONTRACTS: Mapping[str, Contract] = {
    contract.scenario: contract
    for contract in (
        Contract(scenario="steady", limits=CALM),
        Contract(scenario="ramp", may_page=API_LATENCY, finds_capacity=True),
        Contract(
            scenario="spike",
            limits=tuple(
                Limit(figure=limit.figure, at_most=limit.at_most, stage="before") for limit in CALM
            ),
            # A spike that is over within two minutes is no reason to wake anybody.
            may_page=(),
        ),
        Contract(scenario="uploads", limits=CALM),
        Contract(
            scenario="flood",
            pages=(MustPage(policy=QUEUE_WARNING, by=12 * MINUTE, resolves_by=40 * MINUTE),),
            may_page=(QUEUE_CRITICAL,),
            limits=(Limit(figure=Figure.FAILURES, at_most=0.01),),
        ),
        Contract(scenario="errors", limits=CALM),
        Contract(scenario="slow", limits=(Limit(figure=Figure.FAILURES, at_most=0.01),)),
        Contract(scenario="people", limits=CALM),
        Contract(scenario="soak", limits=CALM),
    )
}
"""By scenario."""
