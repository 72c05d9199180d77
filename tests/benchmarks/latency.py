"""Upload to transcript of one 11 s clip on an idle stack against the bare engine, in one run.

    python -m tests.benchmarks.latency [--rounds 15]

Both are warm and alternate, so that both meet the same machine. The bare call gets samples; the
stack pays for the upload, decoding, voice activity, three commits, the broker and status reads.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from multiprocessing.pool import Pool
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from services.worker.speech import Stretch
from speakfit.audio import decode
from speakfit_ops.demo import SAMPLES, Api
from speakfit_ops.stack import Stack
from tests.benchmarks import throughput
from tests.benchmarks.throughput import api_of, engine_settings

CLIP = SAMPLES / "kennedy.flac"
_POLL = 0.01


def _bare(pool: Pool, clip: Stretch) -> float:
    return pool.apply(_timed, (clip,))


def _timed(clip: Stretch) -> float:
    began = time.monotonic()
    throughput.transcribe_one(clip)
    return time.monotonic() - began


def _stack(api: Api) -> float:
    began = time.monotonic()
    recording = api.upload(CLIP)
    while api.completed(recording) is None:
        time.sleep(_POLL)
    return time.monotonic() - began


def main() -> None:
    """Print both medians in milliseconds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    clip = Stretch(begin=0, samples=np.concatenate(list(decode(CLIP, longest_seconds=60))))
    with TemporaryDirectory() as folder:
        stack = Stack(folder=Path(folder) / "stack")
        stack.start()
        try:
            settings = engine_settings(stack.environment)
            context = multiprocessing.get_context("spawn")
            with context.Pool(1, throughput.begin, (settings,)) as pool:
                api = api_of(stack)
                for _ in range(2):
                    _bare(pool, clip), _stack(api)
                pairs = [(_bare(pool, clip), _stack(api)) for _ in range(rounds)]
        finally:
            stack.stop()
    bare, whole = (statistics.median(values) for values in zip(*pairs, strict=True))
    print(f"bare   {bare * 1000:6.0f} ms")
    print(f"stack  {whole * 1000:6.0f} ms")
    print(f"ratio  {whole / bare:6.2f}")


if __name__ == "__main__":
    main()
