"""Series of the cases: one value a minute from minute 0, as text, JSON or the engine's columns.

`5x3 _x2 7` is 5 three times, nothing for two minutes, then 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from speakfit.engine.points import (
    Buckets,
    Descriptor,
    Distribution,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
)
from tests.conformance.case import PROJECT

_MINUTE = 60 * 10**9
_FIELDS = {
    ValueType.BOOL: "boolValue",
    ValueType.INT64: "int64Value",
    ValueType.DOUBLE: "doubleValue",
    ValueType.DISTRIBUTION: "distributionValue",
}
_RESOURCE = {"location": "us-central1", "namespace": "", "job": "api", "task_id": "-"}


@dataclass(frozen=True, kw_only=True)
class Line:
    """One series; a cumulative one starts a minute before its first value."""

    metric: str
    kind: MetricKind
    value_type: ValueType
    labels: Mapping[str, str]
    task: str
    points: tuple[tuple[int, Any], ...]

    def has(self, minute: int) -> bool:
        return any(at == minute for at, _value in self.points)

    def descriptor(self) -> dict[str, Any]:
        return {"type": self.metric, "metricKind": self.kind, "valueType": self.value_type}

    def engine_descriptor(self) -> Descriptor:
        return Descriptor(kind=self.kind, value_type=self.value_type)

    @property
    def _resource(self) -> dict[str, str]:
        return {**_RESOURCE, "task_id": self.task}

    def time_series(self, minute: int) -> dict[str, Any]:
        """The point of a minute as JSON; its end is the present."""
        value = dict(self.points)[minute]
        if self.value_type is ValueType.DISTRIBUTION:
            value = {
                "count": str(sum(value["counts"])),
                "mean": value.get("mean", 1),
                "bucketOptions": {"explicitBuckets": {"bounds": value["bounds"]}},
                "bucketCounts": [str(count) for count in value["counts"]],
            }
        interval = {"endTime": "@0s"}
        if self.kind is MetricKind.CUMULATIVE:
            interval["startTime"] = f"@{-60 * (minute + 1)}s"
        elif self.kind is MetricKind.DELTA:
            interval["startTime"] = "@-59s"
        return {
            "metric": {"type": self.metric, "labels": dict(self.labels)},
            "resource": {"type": "generic_task", "labels": self._resource},
            "metricKind": self.kind,
            "points": [{"interval": interval, "value": {_FIELDS[self.value_type]: value}}],
        }

    def series(self, start_ns: int) -> Series:
        """The engine's columns; minute 0 is `start_ns`."""
        ends = [start_ns + minute * _MINUTE for minute, _value in self.points]
        starts = {
            MetricKind.GAUGE: ends,
            MetricKind.DELTA: [end - 59 * 10**9 for end in ends],
            MetricKind.CUMULATIVE: [start_ns - _MINUTE for _end in ends],
        }[self.kind]
        key = SeriesKey.of(
            metric_type=self.metric,
            metric_labels=dict(self.labels),
            resource_type="generic_task",
            resource_labels={"project_id": PROJECT.partition("/")[2], **self._resource},
        )
        if self.value_type is not ValueType.DISTRIBUTION:
            return Series.of_numbers(
                key=key,
                kind=self.kind,
                value_type=self.value_type,
                start_ns=starts,
                end_ns=ends,
                values=[float(value) for _minute, value in self.points],
            )
        return Series.of_distributions(
            key=key,
            kind=self.kind,
            start_ns=starts,
            end_ns=ends,
            values=[
                Distribution(
                    count=sum(value["counts"]),
                    mean=value.get("mean", 1.0),
                    ssd=0.0,
                    buckets=Buckets.explicit(value["bounds"]),
                    bucket_counts=tuple(value["counts"]),
                )
                for _minute, value in self.points
            ],
        )


def _values(raw: Any, value_type: ValueType) -> tuple[tuple[int, Any], ...]:
    if isinstance(raw, (int, float)):
        raw = str(raw)
    if isinstance(raw, str):
        found: list[Any] = []
        for word in raw.split():
            text, _, count = word.partition("x")
            found += [None if text == "_" else text] * int(count or 1)
        raw = [None if text is None else _number(text, value_type) for text in found]
    return tuple((minute, value) for minute, value in enumerate(raw) if value is not None)


def _number(text: str, value_type: ValueType) -> Any:
    if value_type is ValueType.BOOL:
        return text == "true"
    return float(text) if value_type is ValueType.DOUBLE else int(text)


def lines(body: Mapping[str, Any]) -> list[Line]:
    """The series of a case; each may name its own metric, kind and type."""
    found = []
    for raw in body["series"]:
        value_type = ValueType(raw.get("type", body.get("type", "DOUBLE")))
        labels = {"n": raw["n"]} if "n" in raw else {}
        found.append(
            Line(
                metric=raw.get("metric", body["metric"]),
                kind=MetricKind(raw.get("kind", body.get("kind", "GAUGE"))),
                value_type=value_type,
                labels=labels,
                task=raw.get("task", "-"),
                points=_values(raw["values"], value_type),
            )
        )
    return found


def point_values(points: list[Mapping[str, Any]]) -> list[Any]:
    """The numbers of an answer's points, in the order they came."""
    found = []
    for point in points:
        ((name, value),) = point["value"].items()
        found.append(float(value) if name != "boolValue" else value)
    return found
