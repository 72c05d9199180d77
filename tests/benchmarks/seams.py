"""Word error rate of speech that is cut where it must not be, joined again, against uncut speech.

    python -m tests.benchmarks.seams [--step 0.5]

The sample of Austen is squeezed until no pause is left and cut in two at every `step` seconds,
mid-word as often as not, with overlaps from none to five seconds. Each pair is joined as a
transcript is. Printed are word errors in a hundred words and how many words were lost or doubled.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import jiwer
import numpy as np

from services.api.seams import Heard, join
from services.worker.engines import Speech, SpeechEngine
from services.worker.engines.whisper import WhisperEngine
from services.worker.speech import FRAME, VoiceActivity
from speakfit.audio import SAMPLE_RATE
from speakfit.settings import Settings
from speakfit_ops.stack import local_whisper_model
from tests.services.speech import AUSTEN, WORDS, Samples, known_text, samples_of


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Word errors of some hearings of one text."""

    words: int = 0
    substituted: int = 0
    lost: int = 0
    added: int = 0

    @property
    def rate(self) -> float:
        return (self.substituted + self.lost + self.added) / self.words

    def plus(self, heard: str) -> Errors:
        """With one more hearing of the sample."""
        said = known_text("austen")
        found = jiwer.process_words(
            said, heard, reference_transform=WORDS, hypothesis_transform=WORDS
        )
        return Errors(
            words=self.words + found.hits + found.substitutions + found.deletions,
            substituted=self.substituted + found.substitutions,
            lost=self.lost + found.deletions,
            added=self.added + found.insertions,
        )

    def __str__(self) -> str:
        return (
            f"{self.rate:6.2%} of {self.words} words: {self.substituted} substituted, "
            f"{self.lost} lost, {self.added} added"
        )


def without_pauses(samples: Samples) -> Samples:
    """The same speech with every pause taken out but one frame of 32 ms."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    speech = VoiceActivity().probabilities(frames.reshape(-1)) >= 0.5
    before = np.concatenate([[True], speech[:-1]])
    squeezed: Samples = frames[speech | before].reshape(-1)
    return squeezed


def hear(engine: SpeechEngine, samples: Samples, begin: int, end: int) -> Heard:
    """One part of the samples as a chunk of its own."""
    start, stop = begin / SAMPLE_RATE, end / SAMPLE_RATE
    chunk = Speech(samples=samples[begin:end], start_seconds=start, end_seconds=stop)
    return Heard(start=start, end=stop, result=engine.transcribe([chunk])[0])


def text(results: list[dict[str, object]]) -> str:
    """All that is said in some results."""
    return " ".join(one["text"] for result in results for one in result["segments"])  # type: ignore[attr-defined]


def errors_at_seams(
    engine: SpeechEngine, samples: Samples, *, overlap: float, step: float
) -> Errors:
    """Cut in two at every step from 7 s on, with so much heard twice, and joined."""
    errors = Errors()
    back = int(overlap * SAMPLE_RATE)
    last = len(samples) - 3 * SAMPLE_RATE
    for cut in range(7 * SAMPLE_RATE, last, int(step * SAMPLE_RATE)):
        heard = [
            hear(engine, samples, 0, cut),
            hear(engine, samples, cut - back, len(samples)),
        ]
        errors = errors.plus(text(join(heard)))
    return errors


def whisper() -> WhisperEngine:
    """The local model on one thread."""
    return WhisperEngine(
        Settings(
            whisper_model=local_whisper_model(),
            whisper_device="cpu",
            whisper_compute_type="int8",
        )
    )


def main() -> None:
    """Print the rates of uncut speech and of every overlap."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", type=float, default=0.5)
    step = parser.parse_args().step
    engine = whisper()
    samples = without_pauses(samples_of(AUSTEN))
    print(f"{len(samples) / SAMPLE_RATE:.1f} s without a pause")
    uncut = hear(engine, samples, 0, len(samples))
    print(f"uncut          {Errors().plus(text([uncut.result]))}")
    for overlap in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0):
        found = errors_at_seams(engine, samples, overlap=overlap, step=step)
        print(f"overlap {overlap:.0f} s    {found}")


if __name__ == "__main__":
    main()
