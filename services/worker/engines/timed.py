"""The timed engine: takes as long as the real one, and makes words up; for load tests."""

from __future__ import annotations

import bisect
import hashlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.worker.engines import Speech
from speakfit.audio import SAMPLE_RATE
from speakfit.fillers import FillerMethod

_WORDS_PER_SECOND = 2.5
_WORDS_IN_SEGMENT = 12
_VOCABULARY = (
    *("the", "of", "and", "to", "in", "a", "is", "that", "it", "was", "for", "on", "are", "as"),
    *("with", "his", "they", "at", "be", "this", "from", "have", "or", "by", "one", "had", "not"),
)

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97, 1.0)
"""Where in the distribution the ratios of a fit stand."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Seconds that a chunk takes: a floor and a rate per second of audio, times a ratio whose
    quantiles were measured: decoding again where the model is unsure makes the tail long.
    """

    floor: float
    rate: float
    ratios: tuple[float, ...]

    def draw(self, length_seconds: float, chance: random.Random) -> float:
        """One latency, from the quantiles by straight lines between them."""
        share = chance.random()
        place = max(1, bisect.bisect_left(SHARES, share))
        low, high = SHARES[place - 1], SHARES[place]
        part = (share - low) / (high - low)
        ratio = self.ratios[place - 1] * (1 - part) + self.ratios[place] * part
        return (self.floor + self.rate * length_seconds) * ratio


FITS = {
    FillerMethod.TRANSCRIPT: Fit(
        floor=0.391, rate=0.0234, ratios=(0.73, 0.82, 0.89, 1.0, 1.09, 1.16, 1.38, 1.55)
    ),
    FillerMethod.VERBATIM_PASS: Fit(
        floor=0.437, rate=0.0381, ratios=(0.68, 0.82, 0.91, 1.02, 1.12, 1.2, 1.29, 1.49)
    ),
}
"""By how fillers are listened for. tiny.en, int8, one thread of a 2-core AMD EPYC, measured by
`python -m tests.benchmarks.engine_latency`, which prints how far real and timed quantiles agree.
"""


class TimedEngine:
    """Waits as long as faster-whisper computes and says what the samples' hash says.

    The same chunk always gives the same words; the n-th time a process meets it, it always takes
    the same time. Waiting takes no processor, so many of these fit on one machine.
    """

    model = "timed"

    def __init__(self) -> None:
        self._met: Counter[bytes] = Counter()

    def load(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to let go of."""

    def transcribe(self, chunks: Sequence[Speech]) -> list[dict[str, Any]]:
        """One after the other, as one thread would."""
        return [self._transcribe(chunk) for chunk in chunks]

    def _transcribe(self, chunk: Speech) -> dict[str, Any]:
        digest = hashlib.blake2b(chunk.samples.tobytes(), digest_size=8).digest()
        self._met[digest] += 1
        chance = random.Random(digest + bytes(str(self._met[digest]), "ascii"))
        method = chunk.wishes.fillers
        time.sleep(FITS[method].draw(len(chunk.samples) / SAMPLE_RATE, chance))
        return {
            "language": chunk.wishes.language or "en",
            "segments": _segments(chunk, random.Random(digest)),
            "fillers": [] if method is FillerMethod.VERBATIM_PASS else None,
        }


def _segments(chunk: Speech, chance: random.Random) -> list[dict[str, Any]]:
    """Words side by side in sentences of a dozen, over the whole chunk."""
    length = len(chunk.samples) / SAMPLE_RATE
    count = max(1, round(length * _WORDS_PER_SECOND))
    each = length / count
    words = [
        {
            "start": chunk.at(place * each),
            "end": chunk.at((place + 1) * each),
            "word": chance.choice(_VOCABULARY),
            "probability": 1.0,
        }
        for place in range(count)
    ]
    sentences = [words[i : i + _WORDS_IN_SEGMENT] for i in range(0, count, _WORDS_IN_SEGMENT)]
    return [
        {
            "start": sentence[0]["start"],
            "end": sentence[-1]["end"],
            "text": " ".join(str(word["word"]) for word in sentence),
            "words": sentence,
        }
        for sentence in sentences
    ]
