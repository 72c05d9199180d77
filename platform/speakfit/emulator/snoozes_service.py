"""SnoozeService: spans of policy time in which policies, or some of their series, open nothing.

Rules are those of googleapis `snooze.proto` and `snooze_service.proto`. Snoozes are never deleted:
one that has ended is read-only.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from google.cloud import monitoring_v3
from google.protobuf import json_format

from speakfit.clock import Clock
from speakfit.emulator.listing import page, select
from speakfit.emulator.masks import apply_mask, snake_path
from speakfit.emulator.naming import check_name, new_number, project_of
from speakfit.emulator.store import Store
from speakfit.engine.filters import parse_filter
from speakfit.engine.incidents import Snooze
from speakfit.errors import InvalidArgument, NotFound

_COLLECTION = "snoozes"
_MAX_POLICIES = 16
_MAX_DISPLAY_NAME = 512
_SECOND = 1_000_000_000
_SKEW_NS = (timedelta(seconds=15) // timedelta(microseconds=1)) * 1_000
"""How far in the past a start may be, for requests that took a while (snooze.proto)."""

_UPDATABLE = frozenset({"display_name", "interval", "interval.start_time", "interval.end_time"})

_Snooze = monitoring_v3.Snooze.pb()
_ListResponse = monitoring_v3.ListSnoozesResponse.pb()


def _ns(stamp: Any) -> int:
    return int(stamp.seconds) * _SECOND + int(stamp.nanos)


def _copy(snooze: Any) -> Any:
    copy = _Snooze()
    copy.CopyFrom(snooze)
    return copy


class SnoozesService:
    """Snoozes of all projects; their times are policy time."""

    def __init__(self, *, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = store.lock
        self._snoozes: dict[str, Any] = {
            name: _Snooze.FromString(body) for name, body in store.documents(_COLLECTION)
        }

    # For the evaluator

    def between(self, project: str, *, after_ns: int, until_ns: int) -> list[Snooze]:
        """The snoozes of a project that last somewhere between two times."""
        prefix = f"projects/{project}/"
        with self._lock:
            found = []
            for name, snooze in self._snoozes.items():
                start_ns = _ns(snooze.interval.start_time)
                end_ns = _ns(snooze.interval.end_time)
                lasts = start_ns < end_ns and start_ns <= until_ns and end_ns > after_ns
                if lasts and name.startswith(prefix):
                    text = snooze.criteria.filter
                    found.append(
                        Snooze(
                            start_ns=start_ns,
                            end_ns=end_ns,
                            policies=frozenset(snooze.criteria.policies),
                            filter=parse_filter(text) if text.strip() else None,
                        )
                    )
            return found

    # Checks

    @staticmethod
    def _check(snooze: Any, project: str) -> None:
        if not snooze.display_name:
            raise InvalidArgument("Field snooze.display_name had an invalid value: must be set.")
        if len(snooze.display_name) > _MAX_DISPLAY_NAME:
            raise InvalidArgument.of_field(
                "snooze.display_name",
                snooze.display_name[:32] + "…",
                f"At most {_MAX_DISPLAY_NAME} characters are allowed.",
            )
        policies = snooze.criteria.policies
        if not 0 < len(policies) <= _MAX_POLICIES:
            raise InvalidArgument.of_field(
                "snooze.criteria.policies",
                len(policies),
                f"A snooze must name 1 to {_MAX_POLICIES} alert policies.",
            )
        for index, name in enumerate(policies):
            field = f"snooze.criteria.policies[{index}]"
            if check_name(name, "alertPolicies", field=field) != project:
                raise InvalidArgument.of_field(
                    field, name, "the policy must belong to the project of the snooze."
                )
        if snooze.criteria.filter.strip():
            if len(policies) != 1:
                raise InvalidArgument.of_field(
                    "snooze.criteria.filter",
                    snooze.criteria.filter[:64],
                    "Exactly 1 alert policy is required if filter is specified.",
                )
            parse_filter(snooze.criteria.filter, field="snooze.criteria.filter")
        for edge in ("start_time", "end_time"):
            stamp = getattr(snooze.interval, edge)
            try:
                stamp.ToJsonString()
            except ValueError as error:
                raise InvalidArgument.of_field(
                    f"snooze.interval.{edge}", _ns(stamp), "the time is out of range."
                ) from error
            if not snooze.interval.HasField(edge) or _ns(stamp) <= 0:
                raise InvalidArgument(
                    f"Field snooze.interval.{edge} had an invalid value: must be set."
                )

    @staticmethod
    def _bad_time(snooze: Any, edge: str, rule: str) -> InvalidArgument:
        text = getattr(snooze.interval, edge).ToJsonString()
        return InvalidArgument.of_field(f"snooze.interval.{edge}", text, rule)

    def _find(self, name: str) -> Any:
        check_name(name, _COLLECTION)
        snooze = self._snoozes.get(name)
        if snooze is None:
            raise NotFound(f"The snooze {name} does not exist.")
        return snooze

    def _save(self, snooze: Any) -> None:
        self._store.put(_COLLECTION, snooze.name, snooze.SerializeToString(deterministic=True))
        self._snoozes[snooze.name] = snooze

    # Calls

    def create(self, request: Any) -> Any:
        """Create a snooze that begins now or later."""
        project = project_of(request.parent, field="parent")
        snooze = _copy(request.snooze)
        self._check(snooze, project)
        start_ns, end_ns = _ns(snooze.interval.start_time), _ns(snooze.interval.end_time)
        if start_ns < self._clock.now_ns() - _SKEW_NS:
            raise self._bad_time(snooze, "start_time", "the start time cannot be in the past.")
        if end_ns <= start_ns:
            raise self._bad_time(snooze, "end_time", "the end time must be after the start time.")
        snooze.name = f"projects/{project}/{_COLLECTION}/{new_number()}"
        with self._lock:
            self._save(snooze)
        return _copy(snooze)

    def get(self, request: Any) -> Any:
        """One snooze."""
        return _copy(self._find(request.name))

    def list(self, request: Any) -> Any:
        """Snoozes of a project in the order of their creation, filtered by their times."""
        project = project_of(request.parent, field="parent")
        prefix = f"projects/{project}/"
        with self._lock:
            mine = [snooze for name, snooze in self._snoozes.items() if name.startswith(prefix)]
        kept = select(
            [
                json_format.MessageToDict(snooze, preserving_proto_field_name=True)
                for snooze in mine
            ],
            filter_text=request.filter,
            order_by="",
        )
        window, token = page(
            len(kept),
            size=request.page_size,
            token=request.page_token,
            about=(self._store.identity, _COLLECTION, project, request.filter),
        )
        return _ListResponse(snoozes=[mine[index] for index in kept[window]], next_page_token=token)

    def update(self, request: Any) -> Any:
        """Change what is still to come of a snooze: its name, its end, a start not yet reached.

        An end that is now cancels it; gcloud sends that without a mask.
        """
        asked = request.snooze
        with self._lock:
            old = self._find(asked.name)
            paths = list(request.update_mask.paths)
            for path in paths:
                if snake_path(path) not in _UPDATABLE:
                    raise InvalidArgument.of_field(
                        "update_mask", path, "the field of a snooze cannot be updated."
                    )
            new = _copy(old)
            if paths:
                apply_mask(new, asked, paths)
            else:
                new = _copy(asked)
            self._check_change(old, new)
            self._check(new, check_name(old.name, _COLLECTION))
            if _ns(new.interval.end_time) < _ns(new.interval.start_time):
                raise self._bad_time(
                    new, "end_time", "the end time must not be before the start time."
                )
            self._save(new)
        return _copy(new)

    def _check_change(self, old: Any, new: Any) -> None:
        now_ns = self._clock.now_ns()
        if _ns(old.interval.end_time) <= now_ns:
            raise InvalidArgument(
                f"The snooze {old.name} has ended; it is read-only and cannot be updated."
            )
        if new.criteria != old.criteria:
            raise InvalidArgument(
                "Field snooze.criteria had an invalid value: the criteria of a snooze cannot be "
                "updated."
            )
        if new.interval.start_time != old.interval.start_time:
            if _ns(old.interval.start_time) <= now_ns:
                raise self._bad_time(
                    new, "start_time", "the start time of an active snooze cannot be updated."
                )
            if _ns(new.interval.start_time) < now_ns - _SKEW_NS:
                raise self._bad_time(new, "start_time", "the start time cannot be in the past.")
        if (
            new.interval.end_time != old.interval.end_time
            and _ns(new.interval.end_time) < now_ns - _SKEW_NS
        ):
            raise self._bad_time(new, "end_time", "the end time cannot be in the past.")
