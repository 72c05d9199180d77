"""JSON Schemas of the files that people write for this tool; editors and our loader read the same.

The loader checks a file against these very values (alerts.form), so that what an editor marks
and what `python -m alerts test` refuses cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alerts.notation import DURATION

Json = dict[str, Any]

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_TIME: Json = {
    "type": "string",
    "pattern": f"^{DURATION}$",
    "description": "A time from the scenario's start, such as 90s, 11m or 1h30m.",
}
_SPAN: Json = {
    "type": "string",
    "pattern": f"^{DURATION}$",
    "description": "A duration, such as 30s, 5m or 1h30m.",
}
_ONE_LABEL: Json = {"type": ["string", "number", "boolean"], "description": "A label's value."}
_LABELS: Json = {
    "title": "a set of labels",
    "type": "object",
    "description": "Labels by name.",
    "additionalProperties": _ONE_LABEL,
}
_MANY_LABELS: Json = {
    "title": "a set of labels",
    "type": "object",
    "description": "Labels by name; a list of values makes one series for each of them.",
    "additionalProperties": {
        "anyOf": [_ONE_LABEL, {"type": "array", "minItems": 1, "items": _ONE_LABEL}],
        "description": "A label's value, or a list of values.",
    },
}
_POLICIES: Json = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "string", "description": "A policy's id, or a pattern such as queue-*."},
    "description": "Ids of policies, or patterns such as queue-* and *.",
}
_STEP: Json = {**_SPAN, "description": "Time between two exports, 30s unless said."}
_NOTATION = (
    "as text: 0x9 101x19, 0+1x10, _x4, stale, 5 for 3m, reset, or, quoted, "
    "'{mean: 0.2, sd: 0.1, n: 100} for 5m' and '{0.1: 94, 2.4: 6}x9'."
)
_WHEN: Json = {
    "at": {**_TIME, "description": "Exactly in the evaluation at this time, such as 11m."},
    "by": {**_TIME, "description": "At this time, such as 11m, or earlier."},
    "between": {
        "type": "array",
        "minItems": 2,
        "maxItems": 2,
        "items": _TIME,
        "description": "The earliest and the latest time, such as [8m, 11m].",
    },
}

SCENARIOS: Json = {
    "$schema": _DRAFT,
    "$id": "https://speakfit.dev/schemas/alert-scenarios.json",
    "title": "A scenario file",
    "description": "Scripted time series, and what the alert policies must make of them.",
    "type": "object",
    "required": ["scenarios"],
    "additionalProperties": False,
    "properties": {
        "defaults": {"$ref": "#/$defs/defaults"},
        "scenarios": {
            "type": "array",
            "minItems": 1,
            "items": {"$ref": "#/$defs/scenario"},
            "description": "The scenarios, each judged from a fresh start.",
        },
    },
    "$defs": {
        "defaults": {
            "title": "The defaults",
            "type": "object",
            "description": "What all scenarios of the file share unless they say otherwise.",
            "additionalProperties": False,
            "properties": {
                "start": {"$ref": "#/$defs/start"},
                "step": _STEP,
                "resource_type": {"type": "string", "description": "A monitored resource type."},
                "resource": _LABELS,
            },
        },
        "start": {
            "type": "string",
            "pattern": r"^20\d\d-\d\d-\d\dT\d\d:\d\d:00Z$",
            "description": "When the scenario begins: a whole minute in UTC, this century, "
            "such as 2026-01-01T00:00:00Z.",
        },
        "scenario": {
            "title": "A scenario",
            "type": "object",
            "required": ["name", "series"],
            "additionalProperties": False,
            "properties": {
                "name": {
                    "type": "string",
                    "pattern": r"\S",
                    "description": "A sentence that says what is so when the scenario passes.",
                },
                "start": {"$ref": "#/$defs/start"},
                "step": _STEP,
                "lasts": {
                    **_SPAN,
                    "description": "How long is evaluated; as long as the longest series unless "
                    "said.",
                },
                "series": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"$ref": "#/$defs/series"},
                    "description": "What is written to Cloud Monitoring.",
                },
                "snoozes": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/snooze"},
                    "description": "When which policies are snoozed.",
                },
                "pages": {
                    "type": "array",
                    "items": {"$ref": "#/$defs/page"},
                    "description": "What must page; any other page fails the scenario.",
                },
                "quiet": {
                    **_POLICIES,
                    "description": "Policies that must not page, as ids or patterns; * is all "
                    "that `pages` does not name.",
                },
                "may_page": {
                    **_POLICIES,
                    "description": "Policies whose pages are nobody's business here, as ids or "
                    "patterns.",
                },
            },
        },
        "series": {
            "title": "A series",
            "type": "object",
            "required": ["metric"],
            "additionalProperties": False,
            "properties": {
                "metric": {
                    "type": "string",
                    "description": "A metric's name, or its full type.",
                },
                "labels": _MANY_LABELS,
                "resource_type": {"type": "string", "description": "A monitored resource type."},
                "resource": _MANY_LABELS,
                "values": {
                    "type": ["string", "number", "boolean"],
                    "description": f"What each export writes, {_NOTATION}",
                },
                "gains": {
                    "type": ["string", "number", "boolean"],
                    "description": "What a counter gains, or a distribution records, between two "
                    f"exports, {_NOTATION}",
                },
                "noise": {
                    "title": "Noise",
                    "type": "object",
                    "required": ["sd", "seed"],
                    "additionalProperties": False,
                    "description": "Adds normal noise, the same for the same seed.",
                    "properties": {
                        "sd": {
                            "type": "number",
                            "exclusiveMinimum": 0,
                            "description": "Its standard deviation.",
                        },
                        "seed": {"type": "integer", "description": "Any whole number."},
                    },
                },
                "step": _STEP,
                "buckets": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "number"},
                    "description": "Bounds of a distribution's buckets, where the catalog does "
                    "not know them.",
                },
            },
        },
        "snooze": {
            "title": "A snooze",
            "type": "object",
            "required": ["policies", "from", "until"],
            "additionalProperties": False,
            "properties": {
                "policies": _POLICIES,
                "from": _TIME,
                "until": _TIME,
                "filter": {
                    "type": "string",
                    "description": "A Cloud Monitoring filter; only series that pass are snoozed.",
                },
            },
        },
        "page": {
            "title": "A page",
            "type": "object",
            "required": ["policy"],
            "additionalProperties": False,
            "properties": {
                "policy": {"type": "string", "description": "The policy's id."},
                **_WHEN,
                "severity": {
                    "type": "string",
                    "enum": ["warning", "error", "critical"],
                    "description": "The severity of the policy.",
                },
                "condition": {
                    "type": "string",
                    "description": "Only incidents of the condition with this display name.",
                },
                "series": {
                    **_LABELS,
                    "description": "Only incidents whose series has these labels, and perhaps "
                    "more.",
                },
                "incidents": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "How many series of a condition open at once; 1 unless said.",
                },
                "says": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "string", "description": "Part of the notification."},
                    "description": "Texts that the notification must hold.",
                },
                "notifies": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"type": "string", "description": "A channel's id."},
                    "description": "Channels that must be told.",
                },
                "resolves": {
                    "anyOf": [
                        {
                            "type": "string",
                            "enum": ["never"],
                            "description": "Or a mapping, such as {at: 14m}.",
                        },
                        {"$ref": "#/$defs/resolves"},
                    ],
                    "description": "When the incident must close, or never.",
                },
            },
        },
        "resolves": {
            "title": "A resolution",
            "type": "object",
            "additionalProperties": False,
            "description": "When and why the incident must close.",
            "properties": {
                **_WHEN,
                "because": {
                    "type": "string",
                    "enum": [
                        "recovered",
                        "missing-data",
                        "auto-closed",
                        "combiner",
                        "snoozed",
                    ],
                    "description": "Why it closes.",
                },
            },
        },
    },
}


def _suppressions() -> Json:
    from alerts.suppression import suppression_schema

    return suppression_schema()


SCHEMAS: Mapping[str, Callable[[], Json]] = {
    "scenarios": lambda: SCENARIOS,
    "suppressions": _suppressions,
}
"""Every schema by the name that `python -m alerts schema` takes."""
