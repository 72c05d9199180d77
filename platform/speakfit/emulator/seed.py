"""Loads a file of resources and series into an emulator, through the same calls that clients use.

The file is one JSON object: `project`, and lists of REST resources under `metricDescriptors`,
`notificationChannels`, `timeSeries`, `services`, `serviceLevelObjectives`, `alertPolicies`,
`snoozes` and `dashboards`. A series may have any number of points. Policies may name channels of
the file by the name they have there; services and objectives keep the name they have there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from speakfit.emulator import rest_front
from speakfit.emulator.backend import Backend
from speakfit.emulator.system_metrics import is_system_metric
from speakfit.errors import SettingsError

_FACT = "seed"
_MAX_SERIES = 200
_PATHS = {
    "metricDescriptors": "/v3/projects/{project}/metricDescriptors",
    "notificationChannels": "/v3/projects/{project}/notificationChannels",
    "timeSeries": "",
    "services": "/v3/projects/{project}/services",
    "serviceLevelObjectives": "",
    "alertPolicies": "/v3/projects/{project}/alertPolicies",
    "snoozes": "/v3/projects/{project}/snoozes",
    "dashboards": "/v1/projects/{project}/dashboards",
}
"""In the order of loading: what is named comes before what names it."""


def _read(file: Path) -> tuple[str, dict[str, Any]]:
    todo = "See `python -m speakfit.emulator --help`."
    try:
        raw = file.read_bytes()
        body = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(
            f"The seed cannot be read: {error}.", where=str(file), todo=todo
        ) from error
    if not isinstance(body, dict) or not isinstance(body.get("project"), str):
        raise SettingsError('A seed is a JSON object with a "project".', where=str(file), todo=todo)
    for name, items in body.items():
        if name != "project" and (name not in _PATHS or not isinstance(items, list)):
            raise SettingsError(
                f'A seed has lists of {", ".join(_PATHS)}; "{name}" is none of them.',
                where=str(file),
                todo=todo,
            )
        if name != "project" and not all(isinstance(item, dict) for item in items):
            raise SettingsError(f"{name} must hold JSON objects.", where=str(file), todo=todo)
    return hashlib.sha256(raw).hexdigest(), body


def _steps(series: list[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Calls that write each series' first point, then each second one: one point per call."""
    ordered = [
        {
            **one,
            "points": sorted(
                one.get("points", ()), key=lambda point: str(point["interval"]["endTime"])
            ),
        }
        for one in series
    ]
    for number in range(max((len(one["points"]) for one in ordered), default=0)):
        step = [
            {**one, "points": [one["points"][number]]}
            for one in ordered
            if number < len(one["points"])
        ]
        for first in range(0, len(step), _MAX_SERIES):
            yield step[first : first + _MAX_SERIES]


def load(backend: Backend, file: Path) -> int:
    """Load a seed; how many resources and points were made, 0 when the data has this seed already.

    A SettingsError names the first entry that is refused, in the API's words.
    """
    digest, body = _read(file)
    if backend.store.fact(_FACT) == digest:
        return 0
    project = body["project"]
    count = 0

    def call(path: str, item: Mapping[str, Any], where: str, **query: str) -> dict[str, Any]:
        status, answer = rest_front.answer(
            backend,
            method="POST",
            path=path,
            query=list(query.items()),
            body=json.dumps(item).encode(),
        )
        if status != 200:
            raise SettingsError(
                answer["error"]["message"],
                where=f"{file}: {where}",
                todo="Correct the entry and start again.",
            )
        return answer

    channels: dict[str, str] = {}
    for name, path in _PATHS.items():
        if name == "timeSeries":
            try:
                for verb, wanted in (("", False), (":createService", True)):
                    chosen = [
                        one
                        for one in body.get(name, ())
                        if is_system_metric(str(one["metric"]["type"])) is wanted
                    ]
                    for step in _steps(chosen):
                        target = f"/v3/projects/{project}/timeSeries{verb}"
                        call(target, {"timeSeries": step}, name)
                        count += len(step)
            except (KeyError, TypeError) as error:
                raise SettingsError(
                    "A series needs metric.type, and its points interval.endTime.",
                    where=f"{file}: {name}",
                    todo="Correct the entry and start again.",
                ) from error
            continue
        for index, item in enumerate(body.get(name, ())):
            if name == "alertPolicies":
                wanted_by = item.get("notificationChannels") or []
                item = {**item, "notificationChannels": [channels.get(n, n) for n in wanted_by]}
            target, query = path.format(project=project), {}
            file_name = str(item.get("name", ""))
            owner, _, identity = file_name.rpartition("/")
            if name == "notificationChannels":
                # It has a name in the file for its policies only; the server makes its own.
                item = {key: value for key, value in item.items() if key != "name"}
            elif name == "services" and identity:
                query["serviceId"] = identity
            elif name == "serviceLevelObjectives":
                # One without a name belongs to no service, and is told so.
                target = f"/v3/{owner or f'projects/{project}/services/-/{name}'}"
            made = call(target, item, f"{name}[{index}]", **query)
            count += 1
            if name == "notificationChannels":
                channels[file_name] = made["name"]
    backend.store.set_fact(_FACT, digest)
    return count
