"""Where SpeakFit's alerts go: critical wakes somebody, warning waits for working hours.

Both are PagerDuty services. `route apply` makes them and reads their keys; where a variable holds
a key, as in the local stack, that one is used.
"""

from __future__ import annotations

from alerts.policy import Channel, ChannelType, PagerDutyService, Route, Severity, Urgency

ROUTES = (
    Route(
        severity=Severity.CRITICAL,
        channel=Channel(
            id="critical",
            display_name="SpeakFit critical",
            type=ChannelType.PAGERDUTY,
            secret="PAGERDUTY_ROUTING_KEY_CRITICAL",
            service=PagerDutyService(
                name="SpeakFit critical",
                urgency=Urgency.HIGH,
                escalation_policy="Default",
            ),
        ),
    ),
    Route(
        severity=Severity.WARNING,
        channel=Channel(
            id="warning",
            display_name="SpeakFit warning",
            type=ChannelType.PAGERDUTY,
            secret="PAGERDUTY_ROUTING_KEY_WARNING",
            service=PagerDutyService(
                name="SpeakFit warning",
                urgency=Urgency.LOW,
                escalation_policy="Default",
            ),
        ),
    ),
)
