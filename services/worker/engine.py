"""faster-whisper: load the model once, turn one chunk of samples into words with times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from speakfit.audio import Samples
from speakfit.errors import SettingsError
from speakfit.settings import Settings


def check_model(settings: Settings) -> str:
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


def load_model(settings: Settings) -> Any:
    """The model, with one thread: throughput comes from processes (measured: 61 chunks a minute
    with 1x1, 52 to 57 with 1x2, 111 to 120 with 2x1).

    Call only in the process that transcribes: a forked child hangs on its parent's model.
    """
    from faster_whisper import WhisperModel

    return WhisperModel(
        check_model(settings),
        device=settings.whisper_device,
        compute_type=settings.whisper_compute_type,
        cpu_threads=1,
        num_workers=1,
    )


def transcribe(
    model: Any, samples: Samples, *, start_seconds: float, end_seconds: float
) -> dict[str, Any]:
    """Segments and words in the recording's own time, as they are stored.

    Chunks are transcribed in any order, so none is conditioned on another's text.
    """
    found, information = model.transcribe(
        samples.astype(np.float32) / 32768.0,
        beam_size=1,
        condition_on_previous_text=False,
        word_timestamps=True,
        vad_filter=False,
    )

    def at(seconds: float) -> float:
        return round(min(start_seconds + seconds, end_seconds), 3)

    segments = [
        {
            "start": at(segment.start),
            "end": at(segment.end),
            "text": segment.text.strip(),
            "words": [
                {
                    "start": at(word.start),
                    "end": at(word.end),
                    "word": word.word.strip(),
                    "probability": round(float(word.probability), 3),
                }
                for word in segment.words or ()
            ],
        }
        for segment in found
    ]
    return {"language": information.language, "segments": segments}
