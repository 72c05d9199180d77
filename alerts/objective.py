"""Service level objectives, and the policies that page while one burns its error budget too fast.

Multiwindow, multi-burn-rate alerting (SRE workbook, chapter 5, "6: Multiwindow, Multi-Burn-Rate
Alerts"): a page comes when a fixed share of the budget went within a long window and is still
going within a short one. Only goal, period, window and share are given; burn rates and thresholds
are derived. Each pair of windows becomes one ordinary policy, so it is listed, tested, planned and
backtested like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal

from alerts.condition import (
    Aggregation,
    Aligner,
    MissingData,
    Ratio,
    Reducer,
    Signal,
    Threshold,
    refuse,
)
from alerts.policy import Combiner, Guidance, Policy, Severity
from alerts.wording import duration_words
from speakfit.engine.policies import MINUTE
from speakfit.engine.reduce import MAX_ALERT_PERIOD

_DAY = timedelta(days=1)
_SHORTEST_PERIOD, _LONGEST_PERIOD = _DAY, 90 * _DAY


@dataclass(frozen=True, kw_only=True)
class BurnWindow:
    """When to tell: `budget` (a share, 0 to 1) went within `long`, and still goes in `short`."""

    severity: Severity
    budget: float
    long: timedelta
    short: timedelta

    def __post_init__(self) -> None:
        where = f"burn window of {self.long}"
        if not 0 < self.budget < 1:
            raise refuse(
                f"{where}, budget", f"budget is {self.budget}.", "Use a share between 0 and 1."
            )
        if not MINUTE <= self.short < self.long:
            raise refuse(
                f"{where}, short",
                f"short is {self.short}.",
                "Use at least one minute and less than the long window.",
            )
        if self.long > MAX_ALERT_PERIOD:
            raise refuse(
                f"{where}, long",
                f"long is {self.long}.",
                "Alerting aligns over 25 hours at most: watch slower burns on a dashboard.",
            )


WORKBOOK = (
    BurnWindow(
        severity=Severity.CRITICAL,
        budget=0.02,
        long=timedelta(hours=1),
        short=timedelta(minutes=5),
    ),
    BurnWindow(
        severity=Severity.CRITICAL,
        budget=0.05,
        long=timedelta(hours=6),
        short=timedelta(minutes=30),
    ),
    BurnWindow(severity=Severity.WARNING, budget=0.10, long=_DAY, short=timedelta(hours=2)),
)
"""The workbook's pairs (table 5-8, short window a twelfth of the long one) but for its slowest,
three days, which Cloud Monitoring cannot align over."""


@dataclass(frozen=True, kw_only=True)
class Slo:
    """A share of events that must be good over a rolling period.

    `bad` counts the events that miss the objective, `total` all of them; both are counters
    (DELTA or CUMULATIVE). `fewest_bad` guards low traffic: with fewer bad events in the long
    window nobody is told, however large their share, because one failure at night is 100 %.
    """

    subject: str
    title: str
    goal: float
    bad: Signal
    total: Signal
    guidance: Guidance
    owner: str
    fewest_bad: int
    period: timedelta = timedelta(days=30)
    runbook: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    windows: tuple[BurnWindow, ...] = WORKBOOK

    def __post_init__(self) -> None:
        where = f"objective {self.subject!r}"
        if not 0 < self.goal < 1:
            raise refuse(
                f"{where}, goal",
                f"goal is {self.goal}.",
                "Use a share between 0 and 1; 1 leaves no budget to burn.",
            )
        if not _SHORTEST_PERIOD <= self.period <= _LONGEST_PERIOD:
            raise refuse(f"{where}, period", f"period is {self.period}.", "Use 1 to 90 days.")
        if self.fewest_bad < 1:
            raise refuse(
                f"{where}, fewest_bad",
                f"fewest_bad is {self.fewest_bad}.",
                "Use at least 1; about 10 keeps single failures from waking anybody.",
            )
        if not self.windows:
            raise refuse(
                f"{where}, windows", "There are none.", "Use WORKBOOK or windows of yours."
            )
        for signal, name in ((self.bad, "bad"), (self.total, "total")):
            kind = signal.metric.kind if signal.metric is not None else None
            if kind == "GAUGE":
                raise refuse(
                    f"{where}, {name}",
                    "It reads a gauge.",
                    "Count events: the metric must be DELTA or CUMULATIVE.",
                )
        for window in self.windows:
            if window.long > self.period:
                raise refuse(
                    f"{where}, windows",
                    f"The window of {window.long} is longer than the period.",
                    "Shorten it.",
                )
            if self.threshold(window) >= 1:
                rate = f"{self.burn_rate(window):g} times {self.budget * 100:g} %"
                raise refuse(
                    f"{where}, windows",
                    f"Over {duration_words(window.long)} it would need a share of {rate}, which no "
                    "outage reaches.",
                    "Spend a smaller share of the budget per window, or use a longer window.",
                )

    @property
    def budget(self) -> Decimal:
        """The share of events that may be bad, exactly."""
        return 1 - Decimal(str(self.goal))

    def burn_rate(self, window: BurnWindow) -> Decimal:
        """How many times faster than allowed the budget goes when the window's share is spent."""
        second = timedelta(seconds=1)
        return Decimal(str(window.budget)) * (self.period // second) / (window.long // second)

    def threshold(self, window: BurnWindow) -> Decimal:
        """The share of bad events at which the budget burns that fast."""
        return self.burn_rate(window) * self.budget

    @property
    def missed(self) -> str:
        """What a bad event is called."""
        return "bad events"

    def policies(self) -> tuple[Policy, ...]:
        """One policy for each pair of windows."""
        return tuple(self._policy(window) for window in self.windows)

    def _policy(self, window: BurnWindow) -> Policy:
        rate = self.burn_rate(window)
        gone = timedelta(seconds=int(int(self.period.total_seconds()) / rate))
        length = duration_words(window.long)
        guidance = Guidance(
            meaning=f"The error budget of {duration_words(self.period)} burns {rate:.4g} times too "
            f"fast: {window.budget * 100:g} % of it went in {length}, and all of it is gone in "
            f"{duration_words(gone)}. {self.guidance.meaning}",
            users_feel=self.guidance.users_feel,
            first_steps=self.guidance.first_steps,
        )
        return Policy(
            subject=f"{self.subject}-burn-{length.replace(' ', '')}",
            severity=window.severity,
            title=f"{self.title} burns its budget over {length}",
            owner=self.owner,
            guidance=guidance,
            runbook=self.runbook or self.subject,
            labels=self.labels,
            # Long and short window and the guard are each one line over all series, so that AND
            # means what it says.
            combiner=Combiner.ALL,
            conditions=(
                self._share(window, window.long),
                self._share(window, window.short),
                Threshold(
                    key=f"{self.missed} in {length}",
                    signal=self.bad,
                    aggregation=_summed(window.long),
                    # Whole numbers: more than one less is at least that many.
                    above=self.fewest_bad - 1,
                    duration=MINUTE,
                    missing_data=MissingData.CLOSES,
                ),
            ),
        )

    def _share(self, window: BurnWindow, over: timedelta) -> Ratio:
        return Ratio(
            key=f"share of {self.missed} over {duration_words(over)}",
            signal=self.bad,
            denominator=self.total,
            aggregation=_summed(over),
            above=float(self.threshold(window)),
            # The shortest that allows a decision on missing data: without traffic nothing burns.
            duration=MINUTE,
            missing_data=MissingData.CLOSES,
        )


def _summed(over: timedelta) -> Aggregation:
    return Aggregation(aligner=Aligner.ALIGN_DELTA, period=over, reducer=Reducer.REDUCE_SUM)


@dataclass(frozen=True, kw_only=True)
class AvailabilitySlo(Slo):
    """Requests that are answered: `bad` counts the failed ones."""

    @property
    def missed(self) -> str:
        """What a bad event is called."""
        return "failed requests"


@dataclass(frozen=True, kw_only=True)
class LatencySlo(Slo):
    """Requests that are answered in time: `bad` counts those slower than that.

    Cloud Monitoring cannot count inside a distribution, so the service counts slow requests
    itself, or a Service Monitoring SLO with a `distributionCut` does.
    """

    slower_than: timedelta

    @property
    def missed(self) -> str:
        """What a bad event is called."""
        return f"requests slower than {duration_words(self.slower_than)}"
