"""The recorded engine: gives again what another engine found in the same samples.

    python -m services.worker.engines.recorded --into DIR FILE ...

cuts files as a worker does, transcribes them with the whisper engine and keeps the results; a
worker with SPEECH_ENGINE=recorded and RECORDED_SPEECH_DIR=DIR then needs no model.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.worker.engines import Speech, SpeechEngine, make_speech_engine, recorded_dir
from speakfit.errors import NotRecordedError, SpeakFitError
from speakfit.settings import EngineName, Settings, read_settings


def result_path(folder: Path, chunk: Speech) -> Path:
    """Named by what decides the result: the samples and the caller's wishes."""
    wishes = json.dumps(chunk.wishes.stored(), sort_keys=True)
    content = chunk.samples.astype("<i2").tobytes() + wishes.encode()
    return folder / f"{hashlib.sha256(content).hexdigest()}.json"


class RecordedEngine:
    """Reads results; a chunk that was never recorded is a NotRecordedError."""

    model = "recorded"

    def __init__(self, settings: Settings) -> None:
        self._folder = recorded_dir(settings)

    def load(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to let go of."""

    def transcribe(self, chunks: Sequence[Speech]) -> list[dict[str, Any]]:
        """The stored results, moved to where each chunk lies in its recording."""
        return [self._read(chunk) for chunk in chunks]

    def _read(self, chunk: Speech) -> dict[str, Any]:
        path = result_path(self._folder, chunk)
        try:
            stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotRecordedError(
                "No result was recorded for this chunk.",
                where=str(path),
                todo="Record it: `python -m services.worker.engines.recorded --into DIR FILE ...`.",
            ) from None
        moved: dict[str, Any] = _moved(stored, chunk)
        return moved


def record(engine: SpeechEngine, folder: Path, chunk: Speech) -> Path:
    """Transcribe a chunk and keep the result, in the chunk's own time."""
    length = chunk.end_seconds - chunk.start_seconds
    (result,) = engine.transcribe([replace(chunk, start_seconds=0.0, end_seconds=length)])
    path = result_path(folder, chunk)
    path.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path


def _moved(value: Any, chunk: Speech) -> Any:
    """The same with every `start` and `end` in the recording's time."""
    if isinstance(value, dict):
        return {
            key: chunk.at(item) if key in ("start", "end") else _moved(item, chunk)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_moved(item, chunk) for item in value]
    return value


def main(arguments: list[str]) -> int:
    """Record files; 0 after success, 1 for an error in settings or files."""
    from services.worker.speech import VoiceActivity, stretches
    from speakfit.audio import decode

    parser = argparse.ArgumentParser(prog="python -m services.worker.engines.recorded")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    options = parser.parse_args(arguments)
    try:
        settings = read_settings().model_copy(update={"speech_engine": EngineName.WHISPER})
        engine = make_speech_engine(settings)
        options.into.mkdir(parents=True, exist_ok=True)
        limit = settings.max_recording_duration.total_seconds()
        for file in options.files:
            windows = decode(file, longest_seconds=limit)
            for stretch in stretches(windows, VoiceActivity(), []):
                chunk = Speech(
                    samples=stretch.samples,
                    start_seconds=stretch.start_seconds,
                    end_seconds=stretch.end_seconds,
                )
                print(record(engine, options.into, chunk))
    except SpeakFitError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
