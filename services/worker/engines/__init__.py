"""What turns a chunk of samples into words with times: one protocol, three engines.

`whisper` is faster-whisper; `timed` takes as long as it does and makes words up, for load tests;
`recorded` gives again what was stored for the same samples. The setting SPEECH_ENGINE chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, assert_never

from speakfit.audio import Samples
from speakfit.errors import SettingsError
from speakfit.settings import EngineName, Settings
from speakfit.wishes import NO_WISHES, Wishes


@dataclass(frozen=True, kw_only=True)
class Speech:
    """One chunk to transcribe: its samples, its place in the recording, the caller's wishes."""

    samples: Samples
    start_seconds: float
    end_seconds: float
    wishes: Wishes = NO_WISHES

    def at(self, seconds: float) -> float:
        """A time in this chunk as a time in the recording, never after the chunk's end."""
        return round(float(min(self.start_seconds + max(seconds, 0.0), self.end_seconds)), 3)


class SpeechEngine(Protocol):
    """Transcribes chunks in one process; used by one thread at a time."""

    @property
    def model(self) -> str:
        """What is kept beside a result as its maker."""

    def load(self) -> None:
        """Get ready; raises where that is impossible, so that a worker stops at its start."""

    def transcribe(self, chunks: Sequence[Speech]) -> list[dict[str, Any]]:
        """One result a chunk, as it is stored: `language`, `segments` (start, end, text, words)
        and `fillers` (start, end, word; None where they were not listened for), all times in
        seconds of the recording.
        """

    def close(self) -> None:
        """Let go of everything."""


def make_speech_engine(settings: Settings) -> SpeechEngine:
    """The engine that the settings name, not loaded yet.

    Call only in the process that transcribes: a forked child hangs on its parent's model.
    """
    # Late: the worker's main process imports this module and must load no model.
    match settings.speech_engine:
        case EngineName.WHISPER:
            from services.worker.engines.whisper import WhisperEngine

            return WhisperEngine(settings)
        case EngineName.TIMED:
            from services.worker.engines.timed import TimedEngine

            return TimedEngine()
        case EngineName.RECORDED:
            from services.worker.engines.recorded import RecordedEngine

            return RecordedEngine(settings)
        case _:
            assert_never(settings.speech_engine)


def check_engine(settings: Settings) -> None:
    """A SettingsError where the engine's settings cannot work; loads nothing."""
    match settings.speech_engine:
        case EngineName.WHISPER:
            whisper_model(settings)
        case EngineName.RECORDED:
            recorded_dir(settings)
        case EngineName.TIMED:
            pass


def whisper_model(settings: Settings) -> str:
    """The model's folder or name; a SettingsError where a folder is named and holds no model."""
    model = settings.require("whisper_model")
    folder = Path(model)
    if (folder.is_absolute() or folder.exists()) and not (folder / "model.bin").is_file():
        raise SettingsError(
            f"WHISPER_MODEL names {folder}, which holds no faster-whisper model.",
            where="WHISPER_MODEL",
            todo="Name a folder with a model.bin, or a model's name such as tiny.en.",
        )
    return model


def recorded_dir(settings: Settings) -> Path:
    """The folder of recorded results; a SettingsError where there is none."""
    folder = Path(settings.require("recorded_speech_dir"))
    if not folder.is_dir():
        raise SettingsError(
            f"RECORDED_SPEECH_DIR names {folder}, which is no folder.",
            where="RECORDED_SPEECH_DIR",
            todo="Record: `python -m services.worker.engines.recorded --into DIR FILE ...`.",
        )
    return folder
