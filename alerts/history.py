"""Recorded history: the series that policies read, in one file that people can read too.

The file is JSON Lines, compressed with gzip: `zcat FILE | head -1` shows the header (what was
recorded, from where, with the metric descriptors), each further line is one series in columns, and
the last line counts them, so that a file cut off between two lines is noticed. A reader believes
nothing: every line is checked, and a HistoryError names the one that is wrong.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np

from speakfit.clock import from_ns, to_ns
from speakfit.engine.points import (
    Buckets,
    Descriptor,
    Distributions,
    Floats,
    Ints,
    MetricKind,
    Series,
    SeriesKey,
    ValueType,
)
from speakfit.errors import HistoryError, InvalidArgument

Json = dict[str, Any]
Progress = Callable[[float], None]
"""Is told how much of the work is done, 0 to 1."""

FORMAT = "speakfit-history"
VERSION = 1

_SECOND = 1_000_000_000
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z")
_COMPRESSION = 6
_GZIP = b"\x1f\x8b"
_LONGEST_STEP = 2**33
"""Seconds; longer would not fit into the 64 bits of a time."""


def no_progress(_share: float) -> None:
    """For those who do not watch."""


def instant(ns: int) -> str:
    """RFC 3339, with nanoseconds only where there are any."""
    seconds, rest = divmod(ns, _SECOND)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{from_ns(seconds * _SECOND):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def parse_instant(text: object) -> int:
    """Nanoseconds of what `instant` wrote; a ValueError for anything else."""
    found = _INSTANT.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(f"{text!r} is no instant such as 2026-01-05T12:00:00Z")
    whole = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    return to_ns(whole) + int((found[2] or "0").ljust(9, "0"))


@dataclass(frozen=True, kw_only=True, order=True)
class Selection:
    """Series that were read whole: a metric type on one resource type, or on any."""

    metric_type: str
    resource_type: str = ""
    """Empty for any."""

    @property
    def filter(self) -> str:
        """As ListTimeSeries takes it."""
        on = f' AND resource.type = "{self.resource_type}"' if self.resource_type else ""
        return f'metric.type = "{self.metric_type}"{on}'

    def covers(self, other: Selection) -> bool:
        """Whether everything of another selection is part of this one."""
        return self.metric_type == other.metric_type and self.resource_type in (
            "",
            other.resource_type,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class History:
    """The series of some selections over (start_ns, end_ns], and what is known about them.

    `series` can be iterated once, and again when it comes from a file: they are read as they are
    asked for, because a month of them need not fit into memory at once.
    """

    project: str
    source: str
    """Where it was recorded, for people."""
    start_ns: int
    end_ns: int
    selections: tuple[Selection, ...]
    descriptors: Mapping[str, Json]
    """Metric descriptors in REST form, by type; none for a metric that nobody ever wrote."""
    series: Iterable[Series]

    def descriptor(self, metric_type: str) -> Descriptor | None:
        """Kind and value type of a metric, for the engine."""
        body = self.descriptors.get(metric_type)
        return None if body is None else _descriptor(body)

    def covers(self, selection: Selection) -> bool:
        """Whether these series were recorded, be there any or not."""
        return any(one.covers(selection) for one in self.selections)


def _descriptor(body: Mapping[str, Any]) -> Descriptor:
    return Descriptor(
        kind=MetricKind(body["metricKind"]), value_type=ValueType(body.get("valueType", ""))
    )


# Writing


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a file holds, by selection's metric and resource type."""

    series: Mapping[Selection, int]
    points: Mapping[Selection, int]
    size: int
    """Bytes of the file."""


def write_history(history: History, path: Path) -> Written:
    """Write a history; the file appears whole or not at all, and replaces an older one.

    Raises HistoryError when there is no series to write, or nowhere to write it.
    """
    count: dict[Selection, int] = {}
    points: dict[Selection, int] = {}
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(handle, "wb") as file:
            # Neither name nor time in the gzip header: the same history is the same file.
            with (
                gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as packed,
                io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as out,
            ):
                _put(out, _header(history))
                for series in history.series:
                    _put(out, series_json(series))
                    kind = Selection(
                        metric_type=series.key.metric_type, resource_type=series.key.resource_type
                    )
                    count[kind] = count.get(kind, 0) + 1
                    points[kind] = points.get(kind, 0) + len(series)
                _put(out, {"series": sum(count.values()), "points": sum(points.values())})
            if not count:
                raise HistoryError(
                    f"There is nothing to record between {minute(history.start_ns)} and "
                    f"{minute(history.end_ns)} UTC; no file was written.",
                    where=history.source,
                    todo="Let the services report for a while, or name another target or a longer "
                    "--since.",
                )
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        # A temporary file is its owner's alone; this one is a file as any other.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return Written(series=count, points=points, size=size)


def _unwritable(path: Path, error: OSError) -> HistoryError:
    return HistoryError(
        f"The history cannot be written: {error.strerror}.",
        where=str(path),
        todo="Name another file with --out.",
    )


def minute(ns: int) -> str:
    """`2026-01-05 12:03`, UTC."""
    return f"{from_ns(ns):%Y-%m-%d %H:%M}"


def _put(out: io.TextIOWrapper, body: Json) -> None:
    out.write(json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n")


def _header(history: History) -> Json:
    return {
        "format": FORMAT,
        "version": VERSION,
        "project": history.project,
        "source": history.source,
        "start": instant(history.start_ns),
        "end": instant(history.end_ns),
        "selections": [
            {"metric": one.metric_type, "resource": one.resource_type} for one in history.selections
        ],
        "metricDescriptors": list(history.descriptors.values()),
    }


def series_json(series: Series) -> Json:
    """One line of the file: key, kind, value type, and the points in columns.

    `first` is when the first point ends, `steps` are the seconds from each end to the next.
    `starts` says of a cumulative series since when it counts, and for how many points; a new entry
    is a restart. `lengths` are the seconds that each point of a delta series covers.
    """
    body: Json = {
        **series.key.to_json(),
        "metricKind": series.kind.value,
        "valueType": series.value_type.value,
        "first": instant(int(series.end_ns[0])),
        "steps": _seconds(np.diff(series.end_ns)),
    }
    if series.kind is MetricKind.CUMULATIVE:
        body["starts"] = [
            [instant(start), len(list(same))] for start, same in groupby(series.start_ns.tolist())
        ]
    elif series.kind is MetricKind.DELTA:
        body["lengths"] = _seconds(series.end_ns - series.start_ns)
    if series.distributions is not None:
        column = series.distributions
        body["buckets"] = column.buckets.to_rest()
        body["count"] = _numbers(column.count)
        body["mean"] = _numbers(column.mean)
        body["deviation"] = _numbers(column.ssd)
        body["bucketCounts"] = _rows(column.counts)
    elif series.value_type is ValueType.BOOL:
        body["values"] = [value != 0 for value in series.numbers.tolist()]
    else:
        body["values"] = _numbers(series.numbers)
    return body


def _seconds(lengths: Ints) -> list[float]:
    return [step // _SECOND if step % _SECOND == 0 else step / _SECOND for step in lengths.tolist()]


def _numbers(values: Floats) -> Any:
    """Whole numbers without a fraction; what JSON has no number for as the API writes it."""
    if not np.isfinite(values).all():
        return [
            value if np.isfinite(value) else _NOT_FINITE[str(value)] for value in values.tolist()
        ]
    if (values == np.rint(values)).all() and (np.abs(values) < 2.0**62).all():
        return values.astype(np.int64).tolist()
    return values.tolist()


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_FINITE_OR_NOT = {text: float(name) for name, text in _NOT_FINITE.items()}


def _rows(counts: Floats) -> Any:
    """Bucket counts without the zeros at the end of each row, as the API has them."""
    filled = counts != 0
    widths = np.where(filled.any(axis=1), counts.shape[1] - filled[:, ::-1].argmax(axis=1), 0)
    whole = (counts == np.rint(counts)).all()
    rows = (counts.astype(np.int64) if whole else counts).tolist()
    return [row[:width] for row, width in zip(rows, widths.tolist(), strict=True)]


# Reading


class _WrongLineError(ValueError):
    """A line says something that cannot be."""


def read_history(path: Path, *, on_progress: Progress = no_progress) -> History:
    """Read the header of a file, and its series as they are asked for.

    Raises HistoryError, also while series are read, for a file that is not one, was cut off, was
    changed into something impossible, or comes from a newer version.
    """
    with _Lines(path) as lines:
        header = lines.object()
    if header is None or header.get("format") != FORMAT:
        raise _foreign(path)
    version = header.get("version")
    if isinstance(version, int) and version > VERSION:
        raise HistoryError(
            f"The history has version {version}; this program knows versions up to {VERSION}.",
            where=f"{path}, line 1",
            todo="Read it with the program that recorded it, or a newer one.",
        )
    try:
        return _history(path, header, on_progress)
    except (_WrongLineError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, 1, _words(error)) from error


def _history(path: Path, header: Json, on_progress: Progress) -> History:
    if header["version"] != VERSION:
        raise _WrongLineError(f"version {header['version']!r} does not exist")
    start_ns, end_ns = parse_instant(header["start"]), parse_instant(header["end"])
    if not 0 < start_ns < end_ns:
        raise _WrongLineError("it ends before it begins")
    descriptors: dict[str, Json] = {}
    for body in header["metricDescriptors"]:
        _descriptor(body)
        descriptors[_text(body, "type")] = body
    return History(
        project=_text(header, "project"),
        source=_text(header, "source"),
        start_ns=start_ns,
        end_ns=end_ns,
        selections=tuple(
            Selection(metric_type=_text(one, "metric"), resource_type=_text(one, "resource"))
            for one in header["selections"]
        ),
        descriptors=descriptors,
        series=_FileSeries(path, descriptors, on_progress),
    )


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body[name]
    if not isinstance(value, str):
        raise _WrongLineError(f"{name} is {value!r}, not a text")
    return value


def _words(error: Exception) -> str:
    """What is wrong, in words that fit a person who looks at the line."""
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error) or type(error).__name__


def _foreign(path: Path) -> HistoryError:
    return HistoryError(
        "This is not a recorded history.",
        where=f"{path}, line 1",
        todo="Name a file that `python -m alerts record` wrote.",
    )


def _damaged(path: Path, line: int, what: str) -> HistoryError:
    return HistoryError(
        f"The recorded history is damaged: {what}.",
        where=f"{path}, line {line}",
        todo="Record it again, or take another copy of the file.",
    )


class _Lines:
    """The lines of a file that may end anywhere, with their numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0

    def __enter__(self) -> _Lines:
        try:
            self._raw = self.path.open("rb")
        except OSError as error:
            raise HistoryError(
                f"The history cannot be read: {error.strerror}.",
                where=str(self.path),
                todo="Name a file that `python -m alerts record` wrote.",
            ) from error
        packed = self._raw.peek(2)[:2] == _GZIP
        self._file: Any = gzip.GzipFile(fileobj=self._raw) if packed else self._raw
        self._size = max(1, os.fstat(self._raw.fileno()).st_size)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._raw.close()

    @property
    def share(self) -> float:
        """How much of the file has been read."""
        return min(1.0, self._raw.tell() / self._size)

    def object(self) -> Json | None:
        """The JSON object on the next line; None at the end."""
        self.number += 1
        try:
            line = self._file.readline()
        except EOFError as error:
            raise self._cut_off() from error
        except (OSError, zlib.error) as error:
            raise _damaged(self.path, self.number, str(error)) from error
        if not line:
            return None
        try:
            body = json.loads(line)
        except (ValueError, RecursionError) as error:
            if self.number == 1:
                raise _foreign(self.path) from error
            if not line.endswith(b"\n"):
                raise self._cut_off() from error
            raise _damaged(self.path, self.number, f"no JSON: {error}") from error
        if not isinstance(body, dict):
            if self.number == 1:
                raise _foreign(self.path)
            raise _damaged(self.path, self.number, "no JSON object")
        return body

    def _cut_off(self) -> HistoryError:
        return HistoryError(
            "The recorded history is cut off.",
            where=f"{self.path}, line {self.number}",
            todo="Record it again, or take another copy of the file.",
        )


@dataclass(frozen=True, eq=False)
class _FileSeries:
    """The series of a file, read anew each time they are iterated."""

    path: Path
    descriptors: Mapping[str, Json]
    on_progress: Progress

    def __iter__(self) -> Iterator[Series]:
        series = points = 0
        with _Lines(self.path) as lines:
            lines.object()
            while (body := lines.object()) is not None:
                if "series" in body:
                    if (body["series"], body.get("points")) != (series, points):
                        raise _damaged(
                            self.path,
                            lines.number,
                            f"it counts {body['series']} series of {body.get('points')} points, "
                            f"but {series} of {points} came before",
                        )
                    if lines.object() is not None:
                        raise _damaged(self.path, lines.number, "it goes on after its last line")
                    self.on_progress(1.0)
                    return
                try:
                    one = series_of(body)
                    self._check(one)
                except (
                    ValueError, KeyError, TypeError, AttributeError, OverflowError, IndexError,
                    InvalidArgument,
                ) as error:  # fmt: skip
                    raise _damaged(self.path, lines.number, _words(error)) from error
                series, points = series + 1, points + len(one)
                yield one
                self.on_progress(lines.share)
            raise lines._cut_off()

    def _check(self, series: Series) -> None:
        body = self.descriptors.get(series.key.metric_type)
        if body is None:
            raise _WrongLineError(f"the header does not describe {series.key.metric_type}")
        found = Descriptor(kind=series.kind, value_type=series.value_type)
        if found != _descriptor(body):
            raise _WrongLineError(
                f"{series.key.metric_type} is {series.kind} {series.value_type} here and "
                f"{body['metricKind']} {body['valueType']} in the header"
            )


def series_of(body: Mapping[str, Any]) -> Series:
    """Read what series_json wrote; some ValueError, KeyError or TypeError for anything else."""
    key = SeriesKey.from_json(body)
    if not key.metric_type or not isinstance(key.metric_type, str):
        raise _WrongLineError("metric.type is no text")
    kind, value_type = MetricKind(body["metricKind"]), ValueType(body["valueType"])
    end_ns = np.cumsum(
        np.concatenate(([parse_instant(body["first"])], _lengths(body["steps"], "steps")))
    )
    start_ns = end_ns
    if kind is MetricKind.CUMULATIVE:
        start_ns = np.repeat(
            np.array([parse_instant(start) for start, _ in body["starts"]], dtype=np.int64),
            [_whole(count) for _, count in body["starts"]],
        )
    elif kind is MetricKind.DELTA:
        lengths = _lengths(body["lengths"], "lengths")
        if len(lengths) != len(end_ns):
            raise _WrongLineError(f"{len(lengths)} lengths for {len(end_ns)} points")
        start_ns = end_ns - lengths
    if len(start_ns) != len(end_ns):
        raise _WrongLineError(f"{len(start_ns)} starts for {len(end_ns)} points")
    if kind is not MetricKind.GAUGE and not (start_ns < end_ns).all():
        raise _WrongLineError("a point starts after its end")
    if value_type is ValueType.DISTRIBUTION:
        column = _distributions(body, len(end_ns))
        return Series.of_distributions(
            key=key, kind=kind, start_ns=start_ns, end_ns=end_ns, values=column
        )
    if value_type is ValueType.BOOL and not all(isinstance(one, bool) for one in body["values"]):
        raise _WrongLineError("values are not all true or false")
    return Series.of_numbers(
        key=key,
        kind=kind,
        value_type=value_type,
        start_ns=start_ns,
        end_ns=end_ns,
        values=_floats(body["values"], "values", len(end_ns)),
    )


def _whole(value: object) -> int:
    if not isinstance(value, int) or value < 1:
        raise _WrongLineError(f"{value!r} points begin at one time")
    return value


def _lengths(values: object, name: str) -> Ints:
    found = _floats(values, name)
    if not ((found > 0) & (found < _LONGEST_STEP)).all():
        raise _WrongLineError(f"{name} are not all positive")
    return np.rint(found * _SECOND).astype(np.int64)


def _floats(values: object, name: str, length: int | None = None) -> Floats:
    if not isinstance(values, list):
        raise _WrongLineError(f"{name} is no list")
    if length is not None and len(values) != length:
        raise _WrongLineError(f"{len(values)} {name} for {length} points")
    kinds = set(map(type, values))
    if str in kinds:
        # NaN and the infinities, which JSON has no numbers for.
        values = [_FINITE_OR_NOT.get(one) if isinstance(one, str) else one for one in values]
        kinds = set(map(type, values))
    if not kinds <= {int, float, bool}:
        raise _WrongLineError(f"{name} are not all numbers")
    return np.array(values, dtype=np.float64)


def _distributions(body: Mapping[str, Any], length: int) -> Distributions:
    buckets = Buckets.from_rest(body["buckets"])
    rows = body["bucketCounts"]
    if not isinstance(rows, list) or len(rows) != length:
        raise _WrongLineError(f"bucketCounts are not those of {length} points")
    widths = [len(row) for row in rows]
    if max(widths, default=0) > len(buckets):
        raise _WrongLineError(f"{max(widths)} bucket counts for {len(buckets)} buckets")
    counts = np.zeros((length, len(buckets)))
    flat = _floats(list(chain.from_iterable(rows)), "bucketCounts")
    inside = np.arange(len(buckets))[None, :] < np.array(widths)[:, None]
    counts[inside] = flat
    return Distributions(
        buckets=buckets,
        count=_floats(body["count"], "count", length),
        mean=_floats(body["mean"], "mean", length),
        ssd=_floats(body["deviation"], "deviation", length),
        counts=counts,
    )
