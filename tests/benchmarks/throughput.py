"""Chunks per minute of the whole stack against the bare engine, on the same cores, in one run.

    python -m tests.benchmarks.throughput [--processes 2] [--copies 16]

Both sides transcribe the same chunks of the same recording with the same engine call (the pass for
fillers included) and the same number of processes. The bare engine gets its chunks cut beforehand;
the stack's time runs from the upload to the completed recording, so it pays for upload, decoding,
voice activity, queue, leases, Postgres, metrics and the API as well.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from services.worker.engines import Speech, SpeechEngine, make_speech_engine
from services.worker.speech import Stretch, VoiceActivity, stretches
from speakfit.audio import decode
from speakfit.settings import Settings
from speakfit_ops.demo import Api, write_speech
from speakfit_ops.stack import Stack

# Seldom: the same two cores answer it.
_POLL = 0.25

_engine: SpeechEngine | None = None


def engine_settings(environment: dict[str, str]) -> Settings:
    return Settings.model_validate(
        {name: environment[f"WHISPER_{name[8:].upper()}"] for name in _WHISPER}
    )


_WHISPER = ("whisper_model", "whisper_device", "whisper_compute_type")


def begin(settings: Settings) -> None:
    global _engine
    _engine = make_speech_engine(settings)
    _engine.load()


def transcribe_one(stretch: Stretch) -> int:
    assert _engine is not None
    (found,) = _engine.transcribe(
        [
            Speech(
                samples=stretch.samples,
                start_seconds=stretch.start_seconds,
                end_seconds=stretch.end_seconds,
            )
        ]
    )
    return len(found["segments"])


def _measure_bare(settings: Settings, cuts: list[Stretch], processes: int) -> float:
    """Seconds from the first chunk handed out to the last one back; models loaded before."""
    with multiprocessing.get_context("spawn").Pool(processes, begin, (settings,)) as pool:
        pool.map(transcribe_one, cuts[:processes], chunksize=1)
        began = time.monotonic()
        pool.map(transcribe_one, cuts, chunksize=1)
        return time.monotonic() - began


def api_of(stack: Stack) -> Api:
    """A client with the stack's own key."""
    api = Api(base=f"http://127.0.0.1:{stack.ports.api}")
    api.session.headers["Authorization"] = f"Bearer {stack.environment['SPEAKFIT_API_KEY']}"
    return api


def _measure_stack(stack: Stack, speech: Path) -> float:
    """Seconds from the upload to the completed recording; a first upload warms the models."""
    api = api_of(stack)
    for warm_up in (True, False):
        began = time.monotonic()
        recording = api.upload(speech)
        while api.completed(recording) is None:
            time.sleep(_POLL)
        if not warm_up:
            return time.monotonic() - began
    raise AssertionError


def main() -> None:
    """Print both rates and their ratio, each side twice, alternating."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--copies", type=int, default=16)
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        speech = Path(folder) / "speech.wav"
        length = write_speech(speech, chosen.copies)
        cuts = list(stretches(decode(speech, longest_seconds=1e6), VoiceActivity(), []))
        print(
            f"{length.total_seconds():.0f} s of speech, {len(cuts)} chunks, "
            f"{chosen.processes} processes of one thread"
        )
        stack = Stack(
            folder=Path(folder) / "stack",
            overrides={
                "WORKER_PROCESSES": str(chosen.processes),
                "MAX_UPLOAD_BYTES": str(speech.stat().st_size + 100_000),
            },
        )
        rates: dict[str, list[float]] = {"bare": [], "stack": []}
        for _ in range(2):
            stack.start()
            try:
                settings = engine_settings(stack.environment)
                rates["stack"].append(len(cuts) * 60 / _measure_stack(stack, speech))
            finally:
                stack.stop()
            rates["bare"].append(len(cuts) * 60 / _measure_bare(settings, cuts, chosen.processes))
        for name, values in rates.items():
            print(f"{name:<6}{' '.join(f'{value:7.1f}' for value in values)}  chunks a minute")
        print(f"ratio {sum(rates['stack']) / sum(rates['bare']):.2f}")


if __name__ == "__main__":
    main()
