"""What an alert policy is: conditions, how urgent they are, what a woken person reads, and where
it is told.

Small frozen values that cannot be wrong once they exist: every rule of the API that can be known
before a write is checked at construction, and a CatalogError names the field and the rule. Nothing
here knows SpeakFit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any

from alerts.channel import Channel, ChannelType, PagerDutyService, Route, Urgency
from alerts.condition import (
    Absence,
    Aggregation,
    Aligner,
    Condition,
    LogMatch,
    MissingData,
    PromQL,
    Ratio,
    Reducer,
    Signal,
    Threshold,
    Trigger,
    Verbatim,
    refuse,
)
from alerts.metric import Metric, MetricRecord
from speakfit.engine.points import MetricKind, ValueType
from speakfit.engine.policies import (
    MAX_AUTO_CLOSE,
    MAX_CHANNELS,
    MAX_CONDITIONS,
    MAX_CONTENT_BYTES,
    MAX_CONTENT_CHARACTERS,
    MAX_DISPLAY_NAME,
    MAX_LABEL_BYTES,
    MAX_LABEL_CHARACTERS,
    MAX_LINK_NAME,
    MAX_LINK_URL,
    MAX_LINKS,
    MAX_SUBJECT_BYTES,
    MAX_USER_LABELS,
    MIN_AUTO_CLOSE,
    Link,
    Prompt,
)

__all__ = [
    "Absence",
    "Aggregation",
    "Aligner",
    "Catalog",
    "Channel",
    "ChannelType",
    "Combiner",
    "Documentation",
    "Guidance",
    "Link",
    "LogMatch",
    "Metric",
    "MetricKind",
    "MetricRecord",
    "MissingData",
    "PagerDutyService",
    "Policy",
    "PromQL",
    "Prompt",
    "Ratio",
    "Reducer",
    "Renotify",
    "Route",
    "Severity",
    "Signal",
    "Threshold",
    "Tier",
    "Trigger",
    "Urgency",
    "ValueType",
    "Verbatim",
    "tiered",
]
"""Everything a catalog is written with."""

_SUBJECT = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]*")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]*|\$\{\w+\}")
"""A placeholder such as ${NAME} may stand in a template; Cloud Monitoring refuses it unfilled."""
_OUR_LABELS = 4
"""Labels that tell whose a policy is; they count too."""


class Severity(StrEnum):
    """How a policy notifies: a warning waits for working hours, a critical one wakes somebody.

    `error` is Cloud Monitoring's third, for policies that were made elsewhere.
    """

    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Combiner(StrEnum):
    """How the conditions of one policy make one verdict."""

    ALL = "AND"
    ANY = "OR"
    ALL_ON_ONE_RESOURCE = "AND_WITH_MATCHING_RESOURCE"


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What a woken person reads first; it travels with the page."""

    meaning: str
    users_feel: str
    first_steps: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Documentation:
    """What travels with the page, word for word; `Guidance` writes it for you.

    Markdown with Google's ${variables}; an empty subject leaves the mail's to Google.
    """

    content: str = ""
    subject: str = ""
    links: tuple[Link, ...] = ()

    def check(self, where: str) -> None:
        """Refuse what the API would."""
        characters = len(self.content)
        if characters > MAX_CONTENT_CHARACTERS or len(self.content.encode()) > MAX_CONTENT_BYTES:
            raise refuse(
                f"{where}, content",
                f"The documentation has {characters} characters.",
                f"Keep it within {MAX_CONTENT_CHARACTERS} characters and {MAX_CONTENT_BYTES} "
                "bytes; the runbook has room for more.",
            )
        if len(self.subject.encode()) > MAX_SUBJECT_BYTES:
            raise refuse(
                f"{where}, subject", "It is too long.", f"Keep it within {MAX_SUBJECT_BYTES} bytes."
            )
        if len(self.links) > MAX_LINKS:
            raise refuse(
                f"{where}, links", f"There are {len(self.links)}.", f"At most {MAX_LINKS} fit."
            )
        for link in self.links:
            if len(link.display_name) > MAX_LINK_NAME or not 0 < len(link.url) <= MAX_LINK_URL:
                raise refuse(
                    f"{where}, link {link.display_name!r}",
                    "Its name or address is too long, or it has no address.",
                    f"Names end at {MAX_LINK_NAME} characters, addresses at {MAX_LINK_URL}.",
                )


@dataclass(frozen=True, kw_only=True)
class Renotify:
    """Repeats the notification every `interval` while an incident stays open.

    `channels` are the server's names of channels; empty means all channels of the policy.
    """

    interval: timedelta
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One Cloud Monitoring alert policy: one subject at one severity."""

    subject: str
    severity: Severity | None
    title: str
    conditions: tuple[Condition, ...]
    guidance: Guidance | Documentation = Documentation()
    owner: str = ""
    combiner: Combiner | None = Combiner.ANY
    """None only for one condition that was declared elsewhere without."""
    auto_close: timedelta | None = MIN_AUTO_CLOSE
    """None is the server's default, seven days."""
    runbook: str = ""
    """The runbook's subject; a policy's own subject unless two share a page."""
    exact_display_name: str = ""
    """The console's name word for word, for what was named elsewhere."""
    channels: tuple[str, ...] | None = None
    """The server's names of its channels, for what no Route decides; None asks the routes."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """User labels beside those that tell whose the policy is."""
    enabled: bool = True
    prompts: tuple[Prompt, ...] = ()
    """What channels are told about; empty is both opening and closing."""
    rate_limit: timedelta | None = None
    """Shortest time between two notifications; log matches must have one, others must not."""
    renotify: tuple[Renotify, ...] = ()

    def __post_init__(self) -> None:
        where = f"policy {self.subject!r}"
        if not _SUBJECT.fullmatch(self.subject) or len(self.id) > MAX_LABEL_CHARACTERS:
            raise refuse(
                f"{where}, subject",
                "It cannot be a label value.",
                "Use lowercase words joined by '-', "
                f"{MAX_LABEL_CHARACTERS} characters with the severity.",
            )
        if not self.runbook:
            # A frozen value can only complete itself this way.
            object.__setattr__(self, "runbook", self.subject)
        where = f"policy {self.id}"
        if not self.title or len(self.display_name) > MAX_DISPLAY_NAME:
            raise refuse(
                f"{where}, title",
                f"title has {len(self.title)} characters.",
                f"Use at least one, and at most {MAX_DISPLAY_NAME} with the severity.",
            )
        self._check_conditions(where)
        if self.auto_close is not None and not MIN_AUTO_CLOSE <= self.auto_close <= MAX_AUTO_CLOSE:
            raise refuse(
                f"{where}, auto_close",
                f"auto_close is {self.auto_close}.",
                "Use 30 minutes to 7 days.",
            )
        if isinstance(self.guidance, Documentation):
            self.guidance.check(f"{where}, guidance")
        if self.channels is not None and len(self.channels) > MAX_CHANNELS:
            raise refuse(
                f"{where}, channels",
                f"There are {len(self.channels)} channels.",
                f"At most {MAX_CHANNELS} fit.",
            )
        self._check_labels(where)
        self._check_notices(where)

    def _check_conditions(self, where: str) -> None:
        if not 1 <= len(self.conditions) <= MAX_CONDITIONS:
            raise refuse(
                f"{where}, conditions",
                f"There are {len(self.conditions)} conditions.",
                f"Use 1 to {MAX_CONDITIONS}.",
            )
        keys = [condition.key for condition in self.conditions]
        if len(set(keys)) != len(keys):
            raise refuse(
                f"{where}, conditions",
                "Two conditions have the same key.",
                "Give each its own: the key is a condition's identity.",
            )
        if len(self.conditions) > 1:
            if any(isinstance(condition, LogMatch) for condition in self.conditions):
                raise refuse(
                    f"{where}, conditions",
                    "A log match is not alone.",
                    "Alert policies with a log matching condition can only have a single "
                    "condition.",
                )
            if self.combiner is None:
                raise refuse(
                    f"{where}, combiner",
                    "Several conditions have no combiner.",
                    "Say whether all or any of them must hold.",
                )

    def _check_labels(self, where: str) -> None:
        if len(self.labels) > MAX_USER_LABELS - _OUR_LABELS:
            raise refuse(
                f"{where}, labels",
                f"There are {len(self.labels)}.",
                f"At most {MAX_USER_LABELS - _OUR_LABELS} fit beside our own.",
            )
        for key, value in self.labels.items():
            fits = all(
                len(text) <= MAX_LABEL_CHARACTERS and len(text.encode()) <= MAX_LABEL_BYTES
                for text in (key, value)
            )
            if not fits or not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
                raise refuse(
                    f"{where}, labels[{key!r}]",
                    f"{key}={value} cannot be a label.",
                    "Use lowercase letters, numerals, underscores and dashes, at most "
                    f"{MAX_LABEL_CHARACTERS} characters; keys begin with a letter.",
                )

    def _check_notices(self, where: str) -> None:
        logs = any(isinstance(condition, LogMatch) for condition in self.conditions)
        raw_logs = any(
            isinstance(condition, Verbatim) and "conditionMatchedLog" in condition.body
            for condition in self.conditions
        )
        if (self.rate_limit is not None) != (logs or raw_logs):
            raise refuse(
                f"{where}, rate_limit",
                "It is missing." if logs or raw_logs else "It is set.",
                "Log matches must have one; metric-based alert policies must not specify a "
                "notification rate limit.",
            )
        allowed = [set(), {Prompt.OPENED}]
        if not (logs or raw_logs):
            allowed.append({Prompt.OPENED, Prompt.CLOSED})
        if set(self.prompts) not in allowed or len(set(self.prompts)) != len(self.prompts):
            raise refuse(
                f"{where}, prompts",
                f"It is {', '.join(self.prompts)}.",
                "Use OPENED alone, or with CLOSED where the conditions are on metrics.",
            )
        for one in self.renotify:
            if one.interval <= timedelta(0):
                raise refuse(f"{where}, renotify", "The interval is not positive.", "Lengthen it.")

    @property
    def needs_all(self) -> bool:
        """Whether all conditions must hold, not just any."""
        return self.combiner in (Combiner.ALL, Combiner.ALL_ON_ONE_RESOURCE)

    @property
    def id(self) -> str:
        """`SUBJECT-SEVERITY`, the label `alert-id` and what every command calls the policy."""
        return f"{self.subject}-{self.severity}" if self.severity else self.subject

    @property
    def display_name(self) -> str:
        """What the console and the page show: title and severity, unless it is given exactly."""
        suffix = f" ({self.severity})" if self.severity else ""
        return self.exact_display_name or self.title + suffix


@dataclass(frozen=True, kw_only=True)
class Tier:
    """What differs between the severities of one subject."""

    limit: float
    duration: timedelta


def tiered(
    *,
    tiers: Mapping[Severity, Tier],
    conditions: Callable[[Tier], tuple[Condition, ...]],
    **shared: Any,
) -> tuple[Policy, ...]:
    """One policy per tier from one declaration; `shared` are the fields of Policy they share."""
    return tuple(
        Policy(severity=severity, conditions=conditions(tier), **shared)
        for severity, tier in tiers.items()
    )


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Everything one team keeps as code: policies, the metrics they need, and their routes."""

    name: str
    policies: tuple[Policy, ...]
    routes: tuple[Route, ...]
    metrics: tuple[MetricRecord, ...] = ()
    """Metrics of this team, whose descriptors `apply` makes before anybody writes to them."""

    def __post_init__(self) -> None:
        where = f"catalog {self.name!r}"
        if not _SUBJECT.fullmatch(self.name) or len(self.name) > MAX_LABEL_CHARACTERS:
            raise refuse(
                f"{where}, name",
                "It cannot be a label value.",
                f"Use lowercase words joined by '-', at most {MAX_LABEL_CHARACTERS} characters.",
            )
        seen: set[str] = set()
        for policy in self.policies:
            if policy.id in seen:
                raise refuse(
                    f"{where}, policies", f"Two policies are called {policy.id}.", "Rename one."
                )
            seen.add(policy.id)
        for metric in self.metrics:
            if metric.kind is None or metric.value_type is None:
                raise refuse(
                    f"{where}, metrics, {metric.type}",
                    "Its kind or value type is not given.",
                    "Give both: `apply` makes a descriptor of it. Metrics of others stay out of "
                    "this list.",
                )
        channels: dict[str, Channel] = {}
        for route in self.routes:
            known = channels.setdefault(route.channel.id, route.channel)
            if known != route.channel:
                raise refuse(
                    f"{where}, routes",
                    f"Two different channels are called {known.id}.",
                    "Rename one, or use one Channel in both routes.",
                )
        routed = {route.severity for route in self.routes}
        for severity in {policy.severity for policy in self.policies if policy.channels is None}:
            if severity not in routed:
                name = f"severity {severity}" if severity else "policies without a severity"
                raise refuse(
                    f"{where}, routes",
                    f"No route for {name}: they would tell nobody.",
                    "Add a Route, or give the policies their channels.",
                )

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels of the routes, each once."""
        return tuple({route.channel.id: route.channel for route in self.routes}.values())

    def channels_of(self, policy: Policy) -> tuple[Channel, ...]:
        """Where the routes send a policy; nowhere when it names its channels itself."""
        if policy.channels is not None:
            return ()
        return tuple(r.channel for r in self.routes if r.severity is policy.severity)
