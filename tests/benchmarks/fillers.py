"""How many spoken fillers the worker finds, with and without its second pass, how many it makes
up, and what the pass costs.

    python -m tests.benchmarks.fillers

eSpeak NG says sentences with `um` and `uh` between their halves, in three voices at two speeds. A
filler counts as found when one is reported within 0.75 s of it. Made-up fillers are counted in the
same sentences without any and in the sample recordings. speakfit.fillers.RECALL holds the figures.
The cost is told in chunks a minute of one processor's time, which other load does not change.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from services.api.seams import Heard
from services.api.transcript import Transcript, assemble
from services.worker.engines import Speech
from services.worker.engines.whisper import WhisperEngine
from speakfit.audio import SAMPLE_RATE
from speakfit.fillers import FillerMethod
from speakfit.settings import Settings
from speakfit.wishes import Wishes
from speakfit_ops.stack import local_whisper_model
from tests.benchmarks.synthesis import synthesize
from tests.services.speech import AUSTEN, KENNEDY, Samples, samples_of, silence

NEAR_SECONDS = 0.75
VOICES = ("en-us", "en-us+f3", "en+m3")
SPEEDS = (140, 170)
SENTENCES = (
    ("So today I would like to", "um", "talk about the results of the last quarter."),
    ("We have made good progress on", "uh", "the new product and its launch."),
    ("Our customers told us that they", "um", "really want a simpler way to begin."),
    ("I think the most important lesson is", "uh", "that we should listen more often."),
    ("The second point that I want to make", "um", "is about the way we work together."),
    ("Let me give you", "uh", "one example from the team in Boston."),
    ("They started with a very small", "um", "budget and only two engineers."),
    ("In the end it was", "uh", "a great success for everybody."),
)


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """Speech and when its fillers are said, in seconds."""

    samples: Samples
    fillers: tuple[float, ...]


def speeches(*, with_fillers: bool) -> Iterator[Spoken]:
    """Four sentences each: all voices, all speeds."""
    for name in VOICES:
        for speed in SPEEDS:
            texts = [
                text
                for before, filler, after in SENTENCES
                for text in (before, f"{filler},", after)
            ]
            voice = synthesize(name, sorted(set(texts)), words_per_minute=speed)
            for some in (SENTENCES[:4], SENTENCES[4:]):
                pieces: list[Samples] = []
                times: list[float] = []
                for before, filler, after in some:
                    pieces += [voice[before], silence(0.15)]
                    if with_fillers:
                        sound = voice[f"{filler},"]
                        begin = sum(map(len, pieces))
                        times.append((begin + len(sound) / 2) / SAMPLE_RATE)
                        pieces += [sound, silence(0.2)]
                    pieces += [voice[after], silence(0.6)]
                yield Spoken(samples=np.concatenate(pieces), fillers=tuple(times))


def transcript(engine: WhisperEngine, samples: Samples, method: FillerMethod) -> Transcript:
    """One chunk's transcript, as the API gives it."""
    length = len(samples) / SAMPLE_RATE
    chunk = Speech(
        samples=samples, start_seconds=0.0, end_seconds=length, wishes=Wishes(fillers=method)
    )
    (result,) = engine.transcribe([chunk])
    return assemble(
        recording_id="measured",
        duration_seconds=length,
        chunks=[Heard(start=0.0, end=length, model=engine.model, result=result)],
        speech=[],
    )


def matched(spoken: Spoken, told: list[float]) -> int:
    """How many spoken fillers have a reported one of their own nearby."""
    left = sorted(told)
    count = 0
    for said in spoken.fillers:
        near = [one for one in left if abs(one - said) <= NEAR_SECONDS]
        if near:
            left.remove(min(near, key=lambda one: abs(one - said)))
            count += 1
    return count


def measure(engine: WhisperEngine, method: FillerMethod) -> tuple[int, int, int]:
    """Fillers found, fillers spoken, and fillers made up."""
    found = spoken = invented = 0
    for one in speeches(with_fillers=True):
        told = transcript(engine, one.samples, method).coaching.filler_words.found
        found += matched(one, [(filler.start + filler.end) / 2 for filler in told])
        spoken += len(one.fillers)
    clean = [one.samples for one in speeches(with_fillers=False)]
    for samples in [*clean, samples_of(AUSTEN), samples_of(KENNEDY)]:
        invented += transcript(engine, samples, method).coaching.filler_words.total
    return found, spoken, invented


def engine() -> WhisperEngine:
    """The local model."""
    made = WhisperEngine(
        Settings(
            whisper_model=local_whisper_model(),
            whisper_device="cpu",
            whisper_compute_type="int8",
        )
    )
    made.load()
    return made


def pace(engine: WhisperEngine, method: FillerMethod, repeats: int) -> float:
    """Chunks near 30 s by minute of processor time."""
    chunks = [one.samples for one in speeches(with_fillers=True)] + [samples_of(AUSTEN)]
    transcript(engine, chunks[0], method)
    began = time.process_time()
    for _ in range(repeats):
        for samples in chunks:
            transcript(engine, samples, method)
    return len(chunks) * repeats * 60 / (time.process_time() - began)


def main() -> None:
    """Print what speakfit.fillers.RECALL holds, and the pass's cost in the same run."""
    listening = engine()
    for method in FillerMethod:
        found, spoken, invented = measure(listening, method)
        print(
            f"{listening.model}, {method}: found {found} of {spoken}, "
            f"made up {invented} in speech without any"
        )
    rates: dict[FillerMethod, list[float]] = {method: [] for method in FillerMethod}
    for _ in range(3):
        for method in FillerMethod:
            rates[method].append(pace(listening, method, 1))
    for method, values in rates.items():
        print(f"{method}: {statistics.median(values):.1f} chunks a minute of processor time")
    listening.close()


if __name__ == "__main__":
    main()
