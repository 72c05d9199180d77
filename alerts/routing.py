"""Where SpeakFit's alerts go: critical wakes somebody, warning waits for working hours.

Both are PagerDuty services; their urgency is set there. The keys come from settings and are never
written down.
"""

from __future__ import annotations

from alerts.policy import Channel, Route, Severity

ROUTES = (
    Route(
        severity=Severity.CRITICAL,
        channel=Channel(
            id="critical",
            display_name="SpeakFit critical",
            secret="pagerduty_routing_key_critical",
        ),
    ),
    Route(
        severity=Severity.WARNING,
        channel=Channel(
            id="warning",
            display_name="SpeakFit warning",
            secret="pagerduty_routing_key_warning",
        ),
    ),
)
