"""The series notation of scenarios: promtool's, with durations, restarts and distributions.

`5x3` is four fives, as in promtool; `0+1x10` rises from 0 to 10, `100-10x5` falls; `_` is one
missing point, `_x4` are four; `stale` is a process that is gone. Beyond promtool: `5 for 3m`
lasts three minutes whatever the step is (also `0+1 for 5m`, `_ for 5m`, `stale for 5m`);
`reset` restarts a counter; `{mean: 0.2, sd: 0.05, n: 100}` are a hundred measurements spread like
a normal distribution, `{0.1: 94, 2.4: 6}` are 94 in the bucket that holds 0.1 and 6 in that which
holds 2.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from math import isfinite
from statistics import NormalDist

DURATION = r"(?:\d{1,6}(?:\.\d{1,6})?[smhd]){1,4}"
"""A regular expression for durations: `30s`, `5m`, `1h30m`, `2d`."""
_PARTS = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BARE = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TOKEN = re.compile(r"\{[^{}]*\}\S*|\S+")
_ITEM = re.compile(
    rf"(?P<point>{_NUMBER}|_|stale|true|false|\{{[^{{}}]*\}})"
    rf"(?:(?P<sign>[-+])(?P<rise>{_BARE}))?(?:x(?P<times>\d+))?"
)
_ENTRY = re.compile(rf"\s*(?P<key>[a-z]+|{_NUMBER})\s*:\s*(?P<value>{_NUMBER})\s*")
_LONGEST = timedelta(days=31)
_LARGEST_COUNT = 1_000_000_000
MOST_POINTS = 200_000
"""More points than a month of thirty-second exports has; a slip of the pen must not fill memory."""

EXAMPLES = "Write, for example: 0 for 5m, 101x9, 0+1x10, _x4, stale, {mean: 0.2, sd: 0.1, n: 100}."


class NotationError(ValueError):
    """A series or a duration does not parse; `token` counts the words before the wrong one."""

    def __init__(self, what: str, todo: str, *, token: int = 0) -> None:
        super().__init__(what)
        self.what = what
        self.todo = todo
        self.token = token


class Silence(Enum):
    """Why there is no point, or a restart without one."""

    MISSING = "_"
    """The point is lost; the process goes on."""
    GONE = "stale"
    """The process is gone; a counter that comes back starts anew."""
    RESET = "reset"
    """The process restarts here; takes no step."""


@dataclass(frozen=True, kw_only=True)
class Normal:
    """`count` measurements spread like a normal distribution."""

    mean: float
    deviation: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Literal:
    """Counts of measurements, each at a value in its bucket."""

    counts: tuple[tuple[float, int], ...]


Point = float | bool | Normal | Literal | Silence


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """One item of the notation: a point, how it changes, and how often or how long it comes."""

    point: Point
    rise: float = 0.0
    points: int | None = 1
    lasting: timedelta | None = None
    token: int = 0
    """How many words stand before it."""


def parse_span(text: str) -> timedelta:
    """A duration such as `90s`, `5m` or `1h30m`; NotationError when it is none."""
    if not re.fullmatch(DURATION, text):
        raise NotationError(f"{text!r} is no duration.", "Write 30s, 5m, 1h30m or 2d.")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(text))
    return timedelta(seconds=seconds)


def print_span(length: timedelta) -> str:
    """The shortest way to write a duration: `5m`, `1h30m`, `0m`."""
    rest = length // timedelta(seconds=1)
    parts = []
    for unit in ("d", "h", "m", "s"):
        number, rest = divmod(rest, _UNITS[unit])
        parts += [f"{number}{unit}"] if number else []
    return "".join(parts) or "0m"


def split_words(text: str) -> list[str]:
    """The words of a series; a distribution is one, whatever blanks it holds."""
    return _TOKEN.findall(text)


@lru_cache(maxsize=4_096)
def parse_series(text: str) -> tuple[Stretch, ...]:
    """The stretches of a series; NotationError names the word that is wrong."""
    words = split_words(text)
    if not words:
        raise NotationError("The series is empty.", EXAMPLES)
    found = []
    at = 0
    while at < len(words):
        stretch = _stretch(words[at], at)
        if at + 1 < len(words) and words[at + 1] == "for":
            if at + 2 == len(words):
                raise NotationError(
                    "'for' is followed by nothing.", "Write 5 for 3m.", token=at + 1
                )
            stretch = _lasting(stretch, words[at], words[at + 2], at)
            at += 2
        found.append(stretch)
        at += 1
    return tuple(found)


def _stretch(word: str, at: int) -> Stretch:
    if word == Silence.RESET.value:
        return Stretch(point=Silence.RESET, points=0, token=at)
    found = _ITEM.fullmatch(word)
    if found is None:
        raise NotationError(f"{word!r} is no value of a series.", EXAMPLES, token=at)
    text = found["point"]
    point = _point(text, at)
    rise = float(found["sign"] + found["rise"]) if found["sign"] else 0.0
    if not isfinite(rise):
        raise NotationError(f"{word!r} is too large.", "Use a smaller number.", token=at)
    if found["sign"] and isinstance(point, (bool, Normal, Literal, Silence)):
        raise NotationError(f"{word!r}: only numbers rise or fall.", EXAMPLES, token=at)
    if found["sign"] and found["times"] is None:
        # `0+1 for 5m`; without the `for` it is a slip, which promtool refuses too.
        return Stretch(point=point, rise=rise, points=None, token=at)
    times = found["times"]
    if times is None:
        return Stretch(point=point, token=at)
    # As in promtool: axn is a and n more, _xn is n.
    points = int(times) if isinstance(point, Silence) else int(times) + 1
    _check_length(points, word, at)
    return Stretch(point=point, rise=rise, points=points, token=at)


def _lasting(stretch: Stretch, word: str, text: str, at: int) -> Stretch:
    if stretch.point is Silence.RESET or "x" in word.rpartition("}")[2]:
        raise NotationError(
            f"{word!r} already says how often it comes.",
            "Write either 5x3 or 5 for 3m.",
            token=at + 1,
        )
    try:
        lasting = parse_span(text)
    except NotationError as error:
        raise NotationError(error.what, error.todo, token=at + 2) from error
    if not timedelta(0) < lasting <= _LONGEST:
        raise NotationError(
            f"{text!r} is too short or too long.", "Use up to 31 days.", token=at + 2
        )
    return Stretch(
        point=stretch.point, rise=stretch.rise, points=None, lasting=lasting, token=stretch.token
    )


def _check_length(points: int, word: str, at: int) -> None:
    if points > MOST_POINTS:
        raise NotationError(
            f"{word!r} is more than {MOST_POINTS:,} points.", "Shorten it.", token=at
        )


def _point(text: str, at: int) -> Point:
    if text == "_":
        return Silence.MISSING
    if text == "stale":
        return Silence.GONE
    if text in ("true", "false"):
        return text == "true"
    if text.startswith("{"):
        return _distribution(text, at)
    if not isfinite(float(text)):
        raise NotationError(f"{text!r} is too large.", "Use a smaller number.", token=at)
    return float(text)


def _distribution(text: str, at: int) -> Normal | Literal:
    entries: dict[str, float] = {}
    for part in text[1:-1].split(","):
        found = _ENTRY.fullmatch(part)
        if found is None or found["key"] in entries:
            raise NotationError(
                f"{part.strip()!r} is no part of a distribution.",
                "Write {mean: 0.2, sd: 0.1, n: 100} or {0.1: 94, 2.4: 6}.",
                token=at,
            )
        entries[found["key"]] = float(found["value"])
    if not all(isfinite(value) for value in entries.values()):
        raise NotationError(f"{text} is too large.", "Use smaller numbers.", token=at)
    if any(key[0].isalpha() for key in entries):
        if not {"mean", "n"} <= entries.keys() <= {"mean", "sd", "n"}:
            raise NotationError(
                f"{text} is no distribution.",
                "A normal one has mean, n and, unless 0, sd; counts have only numbers.",
                token=at,
            )
        _check_count(entries["n"], text, at)
        if entries.get("sd", 0.0) < 0:
            raise NotationError(f"{text}: sd is negative.", "Use 0 or more.", token=at)
        return Normal(
            mean=entries["mean"], deviation=entries.get("sd", 0.0), count=int(entries["n"])
        )
    for count in entries.values():
        _check_count(count, text, at)
    return Literal(counts=tuple((float(key), int(count)) for key, count in entries.items()))


def _check_count(count: float, text: str, at: int) -> None:
    if not 0 <= count <= _LARGEST_COUNT or count != int(count):
        raise NotationError(
            f"{text}: {count:g} is no count.",
            "Counts are whole, not negative, and at most a billion.",
            token=at,
        )


def unroll(stretches: tuple[Stretch, ...], step: timedelta) -> Iterator[Point]:
    """The points one by one, a step apart; RESET stands between two of them.

    NotationError when a duration is no multiple of the step.
    """
    total = 0
    for stretch in stretches:
        if stretch.point is Silence.RESET:
            yield stretch.point
            continue
        points = stretch.points
        if points is None:
            if stretch.lasting is None:
                raise NotationError(
                    "A series that rises or falls must say how often.",
                    "Write 0+1x10 or 0+1 for 5m.",
                    token=stretch.token,
                )
            points, rest = divmod(stretch.lasting, step)
            if rest:
                raise NotationError(
                    f"{print_span(stretch.lasting)} is no multiple of the step, "
                    f"{print_span(step)}.",
                    "Change the duration, or the step of the series.",
                    token=stretch.token + 2,
                )
        total += points
        _check_length(total, "The series", stretch.token)
        for n in range(points):
            point = stretch.point
            if stretch.rise and isinstance(point, float):
                point += stretch.rise * n
            yield point


@lru_cache(maxsize=4_096)
def bucket_counts(shape: Normal | Literal, bounds: tuple[float, ...]) -> tuple[int, ...]:
    """How many measurements fall into each bucket; always the same for the same shape.

    A bucket includes its lower bound. Fractions of a measurement go where most of one is.
    """
    if isinstance(shape, Literal):
        counts = [0] * (len(bounds) + 1)
        for value, count in shape.counts:
            counts[sum(bound <= value for bound in bounds)] += count
        return tuple(counts)
    if not shape.deviation:
        return bucket_counts(Literal(counts=((shape.mean, shape.count),)), bounds)
    normal = NormalDist(shape.mean, shape.deviation)
    below = [0.0, *(normal.cdf(bound) for bound in bounds), 1.0]
    shares = [shape.count * (high - low) for low, high in pairwise(below)]
    counts = [int(share) for share in shares]
    places = sorted(range(len(shares)), key=lambda n: (counts[n] - shares[n], n))
    for place in places[: shape.count - sum(counts)]:
        counts[place] += 1
    return tuple(counts)


def moments(shape: Normal | Literal) -> tuple[float, float, float]:
    """Count, mean and sum of squared deviation of one distribution."""
    if isinstance(shape, Normal):
        return shape.count, shape.mean, shape.count * shape.deviation**2
    count = sum(number for _, number in shape.counts)
    if not count:
        return 0, 0.0, 0.0
    mean = sum(value * number for value, number in shape.counts) / count
    return count, mean, sum(number * (value - mean) ** 2 for value, number in shape.counts)
