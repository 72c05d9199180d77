"""A transcript from its chunks, and the coaching figures: pure functions.

Words are what the model wrote, fillers included. Speaking time is the sum of voice activity, so
pauses slow nobody down. Each figure's definition stands at its model below; docs/coaching.md tells
them to the reader of an answer.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import timedelta

from pydantic import BaseModel, Field

from services.api.seams import Heard, join
from speakfit.fillers import RECALL, FillerMethod, filler_name

SHORTEST_PAUSE = timedelta(seconds=0.3)
PACE_WINDOW = timedelta(seconds=15)

_LEAST_SPEECH_SECONDS = timedelta(seconds=3).total_seconds()
_SAME_FILLER_SECONDS = timedelta(seconds=0.5).total_seconds()
_VOWELS = re.compile(r"[aeiouy]+")


class Word(BaseModel):
    """One word; times in seconds from the start of the recording."""

    word: str
    start: float
    end: float
    probability: float


class Segment(BaseModel):
    """One phrase; times in seconds from the start of the recording.

    How sure the model was: the temperature it decoded at, the mean logarithm of its tokens'
    probabilities, and how likely nobody speaks; null where that was not kept.
    """

    text: str
    start: float
    end: float
    words: list[Word]
    temperature: float | None = None
    avg_logprob: float | None = None
    no_speech_prob: float | None = None


class Filler(BaseModel):
    """One sound that fills a pause, in its one spelling; times as in words."""

    word: str
    start: float
    end: float


class FillerWords(BaseModel):
    """Fillers found in the transcript or in the second pass, each once.

    `recall` is the share of spoken fillers that this model and method found when measured with
    synthetic English; null where that was not measured.
    """

    total: int
    by_word: dict[str, int]
    found: list[Filler]
    method: FillerMethod
    recall: float | None


class Pause(BaseModel):
    """0.3 s or more between two stretches of voice activity, in seconds; silence before the first
    and after the last is none.
    """

    start: float
    end: float
    duration: float


class Pace(BaseModel):
    """Words per minute of speaking time in a window of 15 s; null where under 3 s are spoken."""

    start: float
    end: float
    words_per_minute: float | None


class Repetition(BaseModel):
    """A word said again at once, fillers between not counting; numbers are none."""

    word: str
    count: int
    start: float
    end: float


class Coaching(BaseModel):
    """How it was said."""

    words_per_minute: float = Field(description="Words by speaking time.")
    articulation_rate: float | None = Field(
        description="Syllables per second of speaking time, estimated by vowels; English only."
    )
    speaking_seconds: float = Field(description="Sum of voice activity.")
    pace: list[Pace]
    filler_words: FillerWords
    repeated_words: list[Repetition]
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
    languages = Counter(str(result["language"]) for result in results if result.get("language"))
    language = languages.most_common(1)[0][0] if languages else None
    # Chunks of earlier releases have no second pass; then the whole recording counts as without.
    listened = [result.get("fillers") for result in results]
    heard = [Filler.model_validate(filler) for fillers in listened for filler in fillers or ()]
    models = {chunk.model for chunk in chunks}
    return Transcript(
        id=recording_id,
        duration_seconds=round(duration_seconds, 3),
        language=language,
        text=" ".join(segment.text for segment in segments if segment.text),
        segments=segments,
        coaching=coach(
            [word for segment in segments for word in segment.words],
            speech,
            fillers=None if None in listened else heard,
            language=language,
            model=models.pop() if len(models) == 1 else None,
        ),
    )


def coach(
    words: Sequence[Word],
    speech: Sequence[Sequence[float]],
    *,
    fillers: Sequence[Filler] | None = None,
    language: str | None = "en",
    model: str | None = None,
) -> Coaching:
    """The coaching figures; `fillers` are the second pass's, None where there was none."""
    speaking = sum(end - start for start, end in speech)
    method = FillerMethod.TRANSCRIPT if fillers is None else FillerMethod.VERBATIM_PASS
    recall = RECALL.get((model or "", method))
    found = _fillers(words, fillers or ())
    counted = Counter(filler.word for filler in found)
    syllables = sum(syllable_count(word.word) for word in words)
    return Coaching(
        words_per_minute=_per_minute(len(words), speaking),
        articulation_rate=round(syllables / speaking, 2)
        if speaking > 0 and language == "en"
        else None,
        speaking_seconds=round(speaking, 3),
        pace=pace(words, speech),
        filler_words=FillerWords(
            total=len(found),
            by_word=dict(sorted(counted.items())),
            found=found,
            method=method,
            recall=recall.share if recall and language == "en" else None,
        ),
        repeated_words=repetitions(words),
        pauses=pauses(speech),
    )


def _per_minute(count: int, seconds: float) -> float:
    return round(count / seconds * 60, 1) if seconds > 0 else 0.0


def pace(words: Sequence[Word], speech: Sequence[Sequence[float]]) -> list[Pace]:
    """Windows side by side from the start of the recording to the end of speech; a word belongs
    to the window that holds its middle.
    """
    length = PACE_WINDOW.total_seconds()
    count = Counter(int((word.start + word.end) / 2 // length) for word in words)
    spoken: defaultdict[int, float] = defaultdict(float)
    for start, end in speech:
        for place in range(int(start // length), int(end // length) + 1):
            spoken[place] += max(0.0, min(end, (place + 1) * length) - max(start, place * length))
    last = max([*count, *(place for place, seconds in spoken.items() if seconds > 0)], default=-1)
    return [
        Pace(
            start=place * length,
            end=(place + 1) * length,
            words_per_minute=_per_minute(count[place], spoken[place])
            if spoken[place] >= _LEAST_SPEECH_SECONDS
            else None,
        )
        for place in range(last + 1)
    ]


def _fillers(words: Sequence[Word], listened: Sequence[Filler]) -> list[Filler]:
    """Fillers of the transcript and of the second pass; what both hold at one time is one."""
    written = [
        Filler(word=name, start=word.start, end=word.end)
        for word in words
        if (name := filler_name(word.word)) is not None
    ]
    found = list(written)
    for filler in listened:
        twin = next(
            (one for one in written if abs(one.start - filler.start) <= _SAME_FILLER_SECONDS), None
        )
        if twin is not None:
            written.remove(twin)
        else:
            name = filler_name(filler.word) or filler.word
            found.append(Filler(word=name, start=filler.start, end=filler.end))
    return sorted(found, key=lambda one: one.start)


def repetitions(words: Sequence[Word]) -> list[Repetition]:
    """Words said twice or more in a row, in any case and with any punctuation."""
    spoken = [word for word in words if filler_name(word.word) is None and _bare(word.word)]
    found: list[Repetition] = []
    for bare, group in itertools.groupby(spoken, key=lambda word: _bare(word.word)):
        said = list(group)
        if len(said) > 1 and not any(letter.isdigit() for letter in bare):
            found.append(
                Repetition(word=bare, count=len(said), start=said[0].start, end=said[-1].end)
            )
    return found


def _bare(word: str) -> str:
    return "".join(letter for letter in word.casefold() if letter.isalnum() or letter == "'")


def syllable_count(word: str) -> int:
    """Groups of vowels, but for a silent e at the end; a digit counts as one, a word at least."""
    bare = _bare(word).replace("'", "")
    if not bare:
        return 0
    digits = sum(letter.isdigit() for letter in bare)
    count = len(_VOWELS.findall(bare))
    silent = re.search(r"[^aeiouy](e|es|ed)$", bare)
    if silent and not re.search(r"([^aeiouy]le|[td]ed|[sxz]es|[cs]hes|[cg]es)$", bare):
        count -= 1
    return max(1, count + digits)


def pauses(speech: Sequence[Sequence[float]]) -> list[Pause]:
    """The gaps between neighbouring stretches of speech that are long enough to hear."""
    gaps = [
        Pause(start=round(before, 3), end=round(after, 3), duration=round(after - before, 3))
        for (_, before), (after, _) in itertools.pairwise(speech)
    ]
    return [gap for gap in gaps if gap.duration >= SHORTEST_PAUSE.total_seconds()]
