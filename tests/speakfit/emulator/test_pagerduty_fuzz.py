"""Whatever is sent to the embedded PagerDuty, the answer is one of the documented ones."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from speakfit.clock import ManualClock
from speakfit.emulator.pagerduty_account import DEFAULT_EMAIL
from speakfit.emulator.pagerduty_endpoint import EmbeddedPagerDuty, Request
from speakfit.emulator.store import Store
from tests.speakfit.emulator.bench import KEY, NOON, SERVICES

WORDS = st.sampled_from(
    [
        *("trigger", "resolve", "critical", "info", "incident", "incident_reference", "resolved"),
        *("acknowledged", "constant", "high", "On Call", DEFAULT_EMAIL, "https://x.test", ""),
        "events_api_v2_inbound_integration",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


def _account() -> EmbeddedPagerDuty:
    return EmbeddedPagerDuty(store=Store(None), clock=ManualClock(NOON), services=SERVICES)


def _like(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these fields, each of any value."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, VALUES))


PAYLOAD = _like("summary", "source", "severity", "timestamp", "component", "custom_details")
EVENT = st.fixed_dictionaries(
    {"routing_key": st.just(KEY) | VALUES, "event_action": WORDS | VALUES},
    optional={
        "payload": PAYLOAD | VALUES,
        "dedup_key": st.text(max_size=300) | VALUES,
        "links": st.lists(_like("href", "text"), max_size=2) | VALUES,
        "images": st.lists(_like("src", "href", "alt"), max_size=2) | VALUES,
        "client": VALUES,
    },
)


@settings(deadline=None, max_examples=150)
@given(st.lists(EVENT | VALUES, max_size=4))
def test_any_event_is_taken_or_refused_and_what_was_taken_can_be_shown(bodies: list[Any]) -> None:
    pagerduty = _account()
    for body in bodies:
        raw = json.dumps(body).encode()
        for answer in (pagerduty.enqueue(raw), pagerduty.enqueue_change(raw)):
            assert answer.status in (202, 400)
            assert answer.body is not None
            assert answer.body["status"] in ("success", "invalid event")
    for path in ("incidents", "change_events", "log_entries"):
        shown = _call(pagerduty, "GET", path, None)
        assert shown.status == 200
        for one in (shown.body or {}).get("incidents", ()):
            assert _call(pagerduty, "GET", f"incidents/{one['id']}/alerts", None).status == 200


def _call(
    pagerduty: EmbeddedPagerDuty,
    method: str,
    path: str,
    body: object,
    query: list[tuple[str, str]] | None = None,
) -> Any:
    answer = pagerduty.answer(
        Request(
            method=method,
            path=path,
            query=query or [],
            headers={"authorization": "Token token=a", "from": DEFAULT_EMAIL},
            body=json.dumps(body).encode(),
        )
    )
    # It must go over the wire as strict JSON.
    json.dumps(answer.body, allow_nan=False, ensure_ascii=False).encode()
    return answer


IDENTITY = st.fixed_dictionaries({"id": st.sampled_from(["SERVICE", "POLICY", "USER"]) | VALUES})
MOMENTS = st.sampled_from(["2026-01-05T12:00:00Z", "2026-01-05T13:00:00+01:00", "2026-01-05"])
ENTITY = st.fixed_dictionaries(
    {},
    optional={
        "type": WORDS | VALUES,
        "name": st.text(max_size=3) | VALUES,
        "email": st.just("a@b") | VALUES,
        "title": VALUES,
        "status": WORDS | VALUES,
        "content": VALUES,
        "urgency": WORDS | VALUES,
        "service": IDENTITY | VALUES,
        "escalation_policy": IDENTITY | VALUES,
        "incident_urgency_rule": _like("type", "urgency") | VALUES,
        "auto_resolve_timeout": VALUES,
        "escalation_rules": st.lists(_like("targets", "escalation_delay_in_minutes"), max_size=2)
        | VALUES,
        "num_loops": VALUES,
        "schedule_layers": st.lists(_like("users", "start", "end"), max_size=2) | VALUES,
        "start_time": MOMENTS | VALUES,
        "end_time": MOMENTS | VALUES,
        "services": st.lists(IDENTITY | VALUES, max_size=2) | VALUES,
    },
)
KINDS = {
    "service": "services",
    "user": "users",
    "escalation_policy": "escalation_policies",
    "incident": "incidents",
    "integration": "services/SERVICE/integrations",
    "note": "incidents/INCIDENT/notes",
    "schedule": "schedules",
    "maintenance_window": "maintenance_windows",
}
QUERY = st.lists(
    st.tuples(
        st.sampled_from(["limit", "offset", "total", "since", "until", "statuses[]", "sort_by"])
        | st.text(max_size=3),
        st.sampled_from(["1", "0", "2026-01-01", "2026-01-05T12:00:00Z", "0001-01-01", "resolved"])
        | st.text(max_size=5),
    ),
    max_size=3,
)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["POST", "PUT", "GET", "DELETE"]),
            st.sampled_from(sorted(KINDS)),
            st.booleans(),
            ENTITY | VALUES,
            QUERY,
        ),
        max_size=4,
    )
)
def test_any_rest_call_is_answered_as_documented(calls: list[Any]) -> None:
    pagerduty = _account()
    pagerduty.enqueue(
        json.dumps(
            {
                "routing_key": KEY,
                "event_action": "trigger",
                "payload": {"summary": "Down", "source": "a", "severity": "info"},
            }
        ).encode()
    )

    def first(kind: str) -> str:
        return str(_call(pagerduty, "GET", kind, None).body[kind][0]["id"])

    names = {
        "SERVICE": first("services"),
        "USER": first("users"),
        "POLICY": first("escalation_policies"),
        "INCIDENT": first("incidents"),
    }

    def named(value: Any) -> Any:
        text = json.dumps(value)
        for word, identity in names.items():
            text = text.replace(f'"{word}"', f'"{identity}"')
        return json.loads(text)

    for method, kind, one, entity, query in calls:
        path = KINDS[kind]
        for word, identity in names.items():
            path = path.replace(word, identity)
        if one and kind != "note":
            path += "/" + names.get(kind.upper().replace("ESCALATION_", ""), "NONE")
        answer = _call(pagerduty, method, path, {kind: named(entity)}, query)
        assert answer.status in (200, 201, 204, 400, 404)
        if answer.status >= 400:
            assert {"message", "code"} <= answer.body["error"].keys()
    for kind in (
        "services",
        "users",
        "escalation_policies",
        "incidents",
        "oncalls",
        "schedules",
        "maintenance_windows",
    ):
        assert _call(pagerduty, "GET", kind, None).status == 200
