"""A lint rule: one habit that hurts, why it does, what to do, and the function that finds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from alerts.candidate import Candidate, ConditionText, Measure
from alerts.document import Path, Position, path_text


class Level(StrEnum):
    """How bad a finding is; the words are SARIF's and GitHub's."""

    ERROR = "error"
    """The alert cannot do what it is for."""
    WARNING = "warning"
    """Somebody will be hurt by it one night."""
    NOTE = "note"
    """Worth a thought."""

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(Level).index(self)


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is around a policy and matters to a rule."""

    candidates: tuple[Candidate, ...] = ()
    """Every policy that is checked together, the one in question included."""
    runbook_base_url: str = ""
    runbooks: frozenset[str] | None = None
    """Names of the pages that exist below the base address; None when that is not known."""

    @cached_property
    def by_measure(self) -> Mapping[Measures, tuple[tuple[Candidate, Alternative], ...]]:
        """The alternatives of all policies, by what their conditions measure."""
        found: dict[Measures, list[tuple[Candidate, Alternative]]] = {}
        for candidate in self.candidates:
            for alternative in candidate.alternatives:
                measures = measures_of(alternative)
                if measures is not None:
                    found.setdefault(measures, []).append((candidate, alternative))
        return {measures: tuple(places) for measures, places in found.items()}


Alternative = tuple[ConditionText, ...]
Measures = frozenset[Measure]


def measures_of(alternative: Alternative) -> Measures | None:
    """What conditions measure; None unless that can be read and each measures something else."""
    measures = frozenset(one.measure for one in alternative if one.measure is not None)
    return measures if len(measures) == len(alternative) else None


@dataclass(frozen=True, kw_only=True)
class Hit:
    """What a rule found in one policy."""

    path: Path
    text: str
    """One or two sentences: what it is, and what comes of it."""
    level: Level | None = None
    """Other than the rule's."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule. Its id names its module, its examples and its section in docs/lint.md."""

    id: str
    """Kebab-case: it is read in suppressions and annotations, where a number would say nothing."""
    level: Level
    finds: str
    """What it finds, as a short phrase."""
    why: str
    """One sentence: what the habit costs."""
    remedy: str
    """One sentence that can be followed."""
    check: Callable[[Candidate, Surroundings], Iterable[Hit]] | None = None
    """Pure. None for the rules about files and suppressions, which no policy can break."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A hit with everything a reader needs."""

    rule: str
    level: Level
    subject: str
    """The policy, or what else was checked: a file, a suppression."""
    file: str
    position: Position | None
    text: str
    remedy: str
    path: Path = ()

    @property
    def where(self) -> str:
        """`file:line:column` as far as it is known."""
        if self.position is None:
            return self.file
        return f"{self.file}:{self.position.line}:{self.position.column}"

    @property
    def field_text(self) -> str:
        """The field of the policy, as people write it."""
        return path_text(self.path)
