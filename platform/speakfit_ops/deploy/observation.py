"""Reads what one release reported from Cloud Monitoring, and has it judged."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from speakfit.metrics import VERSION_LABEL
from speakfit_ops.deploy.verdict import Verdict, answered, judge

if TYPE_CHECKING:
    from alerts.backtest import Backtest
    from alerts.gateway import Gateway
    from alerts.history import History
    from alerts.policy import Catalog

SHORTEST = timedelta(minutes=3)
"""Less is not asked for: the last minute of a history may lack exports that are on their way."""


def observe(
    gateway: Gateway,
    catalog: Catalog,
    *,
    release: str,
    before: str,
    since_ns: int,
    now_ns: int,
    minimum: int,
    runbook_base_url: str,
) -> Verdict:
    """Judge the series labelled with a release since a policy time, beside those before it.

    Raises TargetError when Cloud Monitoring does not answer.
    """
    from alerts.backtest import backtest
    from alerts.encode import engine_descriptors
    from alerts.entrant import either, entrants, proposed_bodies, selections
    from alerts.retrieval import retrieve

    bodies = proposed_bodies(catalog, runbook_base_url=runbook_base_url)
    declared = engine_descriptors(catalog).get
    since = max(SHORTEST, timedelta(microseconds=(now_ns - since_ns) // 1_000))

    def replayed(version: str) -> tuple[History, Backtest]:
        history = retrieve(
            gateway,
            bodies,
            declared=declared,
            since=since,
            only=f'metric.labels.{VERSION_LABEL} = "{version}"',
        )
        history = replace(history, series=list(history.series))
        lookup = either(history.descriptor, declared)
        return history, backtest(entrants(bodies, descriptors=lookup), history, since=since)

    history, mine = replayed(release)
    # Only what is in trouble is compared with what was there before.
    troubled = any(outcome.incidents for outcome in mine.outcomes)
    return judge(
        mine,
        replayed(before)[1] if troubled else None,
        requests=answered(tuple(history.series), since_ns=since_ns),
        minimum=minimum,
        reads=[
            (
                outcome.entrant.id,
                frozenset(one.metric_type for one in selections([outcome.entrant.body])),
            )
            for outcome in mine.outcomes
        ],
    )
