"""A transcript from its chunks, and the coaching figures: pure functions.

Definitions. Words are what the model wrote, fillers included. Speaking time is the sum of voice
activity. Words per minute are words over speaking time, so pauses do not slow a speaker down.
A pause is 0.3 s or more between two stretches of voice activity; silence before the first word
and after the last is none. Whisper drops many fillers, so their count is a lower bound.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from pydantic import BaseModel

from services.api.seams import Heard, join
from speakfit.fillers import filler_name

SHORTEST_PAUSE = timedelta(seconds=0.3)


class Word(BaseModel):
    """One word; times in seconds from the start of the recording."""

    word: str
    start: float
    end: float
    probability: float


class Segment(BaseModel):
    """One phrase; times in seconds from the start of the recording."""

    text: str
    start: float
    end: float
    words: list[Word]


class FillerWords(BaseModel):
    """Sounds that fill a pause, in one spelling each."""

    total: int
    by_word: dict[str, int]


class Pause(BaseModel):
    """Silence between two stretches of speech, in seconds."""

    start: float
    end: float
    duration: float


class Coaching(BaseModel):
    """How it was said."""

    words_per_minute: float
    speaking_seconds: float
    filler_words: FillerWords
    pauses: list[Pause]


class Transcript(BaseModel):
    """What was said, when, and how."""

    id: str
    duration_seconds: float
    language: str | None
    text: str
    segments: list[Segment]
    coaching: Coaching


def assemble(
    *,
    recording_id: str,
    duration_seconds: float,
    chunks: Sequence[Heard],
    speech: Sequence[Sequence[float]],
) -> Transcript:
    """One transcript from what was heard in the chunks, in their order."""
    results = join(chunks)
    segments = [
        Segment.model_validate(segment) for result in results for segment in result["segments"]
    ]
    words = [word for segment in segments for word in segment.words]
    languages = Counter(str(result["language"]) for result in results if result.get("language"))
    return Transcript(
        id=recording_id,
        duration_seconds=round(duration_seconds, 3),
        language=languages.most_common(1)[0][0] if languages else None,
        text=" ".join(segment.text for segment in segments if segment.text),
        segments=segments,
        coaching=coach([word.word for word in words], speech),
    )


def coach(words: Sequence[str], speech: Sequence[Sequence[float]]) -> Coaching:
    """The coaching figures by the definitions above."""
    speaking = sum(end - start for start, end in speech)
    fillers = Counter(name for name in map(filler_name, words) if name is not None)
    return Coaching(
        words_per_minute=round(len(words) / speaking * 60, 1) if speaking > 0 else 0.0,
        speaking_seconds=round(speaking, 3),
        filler_words=FillerWords(total=fillers.total(), by_word=dict(sorted(fillers.items()))),
        pauses=pauses(speech),
    )


def pauses(speech: Sequence[Sequence[float]]) -> list[Pause]:
    """The gaps between neighbouring stretches of speech that are long enough to hear."""
    gaps = [
        Pause(start=round(before, 3), end=round(after, 3), duration=round(after - before, 3))
        for (_, before), (after, _) in itertools.pairwise(speech)
    ]
    return [gap for gap in gaps if gap.duration >= SHORTEST_PAUSE.total_seconds()]
