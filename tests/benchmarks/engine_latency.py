"""How long one chunk takes, by its length: what the timed engine is fitted to.

    python -m tests.benchmarks.engine_latency [--repeats 150]

Draws chunks of up to 30 s between two pauses of the sample recordings, transcribes each with the
local model on one thread, fits `floor + rate * seconds` to the medians and takes the quantiles of
the ratio to it. Measured in processor time, which on one thread is the time on an idle core,
whatever else runs on the machine. With and without the pass for fillers; prints real and drawn
quantiles side by side.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time

import numpy as np

from services.worker.engines import Speech
from services.worker.engines.timed import FITS, SHARES, Fit
from services.worker.engines.whisper import WhisperEngine
from services.worker.speech import FRAME, VoiceActivity, spans
from speakfit.audio import SAMPLE_RATE
from speakfit.fillers import FillerMethod
from speakfit.settings import Settings
from speakfit.wishes import Wishes
from speakfit_ops.stack import local_whisper_model
from tests.services.speech import AUSTEN, KENNEDY, Samples, samples_of

GROUPS = ((0.0, 5.0), (5.0, 10.0), (10.0, 15.0), (15.0, 22.0), (22.0, 30.0))
Measured = list[tuple[float, float]]


def _pieces() -> list[Samples]:
    """Every stretch of speech that begins and ends in a pause and fits into one chunk."""
    audio = np.concatenate([samples_of(AUSTEN), samples_of(KENNEDY), samples_of(AUSTEN)])
    whole = audio[: len(audio) // FRAME * FRAME]
    found = spans(VoiceActivity().probabilities(whole).tolist(), duration=len(audio) / SAMPLE_RATE)
    edges = [int((a[1] + b[0]) / 2 * SAMPLE_RATE) for a, b in itertools.pairwise(found)]
    longest = 30 * SAMPLE_RATE
    return [audio[a:b] for a, b in itertools.combinations(edges, 2) if b - a <= longest]


def _measure(engine: WhisperEngine, wishes: Wishes, repeats: int) -> Measured:
    chance = random.Random(1)
    pieces = _pieces()
    found: Measured = []
    for _ in range(repeats):
        piece = chance.choice(pieces)
        length = len(piece) / SAMPLE_RATE
        began = time.process_time()
        engine.transcribe(
            [Speech(samples=piece, start_seconds=0.0, end_seconds=length, wishes=wishes)]
        )
        found.append((length, time.process_time() - began))
    return found


def _of_group(found: Measured, group: tuple[float, float]) -> Measured:
    return [(length, took) for length, took in found if group[0] <= length < group[1]]


def _fit(found: Measured) -> Fit:
    middles = [np.median(_of_group(found, group), axis=0) for group in GROUPS]
    rate, floor = np.polyfit(*zip(*middles, strict=True), 1)
    ratios = [took / (floor + rate * length) for length, took in found]
    quantiles = np.percentile(ratios, [share * 100 for share in SHARES])
    return Fit(
        floor=round(float(floor), 3),
        rate=round(float(rate), 4),
        ratios=tuple(round(float(one), 2) for one in quantiles),
    )


def main() -> None:
    """Print the fits, and real against drawn quantiles in seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=150)
    repeats = parser.parse_args().repeats
    engine = WhisperEngine(
        Settings(
            whisper_model=local_whisper_model(),
            whisper_device="cpu",
            whisper_compute_type="int8",
        )
    )
    engine.load()
    for method in FillerMethod:
        wishes = Wishes(fillers=method)
        _measure(engine, wishes, 3)
        found = _measure(engine, wishes, repeats)
        print(f"{method}\n  measured {_fit(found)}\n  in use   {FITS[method]}")
        chance = random.Random(2)
        for group in GROUPS:
            members = _of_group(found, group)
            drawn = [FITS[method].draw(length, chance) for length, _ in members * 100]
            line = "  ".join(
                f"p{p} {np.percentile([took for _, took in members], p):.2f}/"
                f"{np.percentile(drawn, p):.2f}"
                for p in (10, 50, 90)
            )
            print(f"  {group[0]:2.0f}-{group[1]:2.0f} s ({len(members):3})  {line}")
    engine.close()


if __name__ == "__main__":
    main()
