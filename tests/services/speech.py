"""Audio for the tests, made from the committed public-domain samples."""

from __future__ import annotations

import wave
from pathlib import Path

import av
import jiwer
import numpy as np
from numpy.typing import NDArray

from speakfit.audio import SAMPLE_RATE, decode
from tests.conftest import SAMPLES

Samples = NDArray[np.int16]

KENNEDY = SAMPLES / "kennedy.flac"
AUSTEN = SAMPLES / "austen.flac"

WORDS = jiwer.Compose(
    [
        jiwer.ToLowerCase(),
        jiwer.SubstituteRegexes({"-": " ", r"\bmr\b": "mister"}),
        jiwer.RemovePunctuation(),
        jiwer.RemoveMultipleSpaces(),
        jiwer.Strip(),
        jiwer.ReduceToListOfListOfWords(),
    ]
)

CODECS = {
    "wav": "pcm_s16le",
    "mp3": "libmp3lame",
    "m4a": "aac",
    "ogg": "libopus",
    "flac": "flac",
    "webm": "libopus",
}


def samples_of(path: Path) -> Samples:
    """All samples of a short file."""
    return np.concatenate(list(decode(path, longest_seconds=600)))


def silence(seconds: float) -> Samples:
    """Nothing, with the faint noise of a real microphone."""
    noise = np.random.default_rng(7).normal(0, 4, int(seconds * SAMPLE_RATE))
    return noise.astype(np.int16)


def write_wav(path: Path, samples: Samples) -> Path:
    """A plain 16 kHz file."""
    with wave.open(str(path), "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(SAMPLE_RATE)
        output.writeframes(samples.tobytes())
    return path


def encode(path: Path, samples: Samples) -> Path:
    """The samples in the container and codec that the file's name asks for."""
    kind = path.suffix[1:]
    rate = 48_000 if CODECS[kind] == "libopus" else SAMPLE_RATE
    with av.open(str(path), "w", format={"m4a": "mp4"}.get(kind, kind)) as output:
        stream = output.add_stream(CODECS[kind], rate=rate)
        stream.layout = "mono"
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 0
        )
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return path


def known_text(sample: str) -> str:
    """What is said in a sample."""
    return " ".join((SAMPLES / f"{sample}.txt").read_text(encoding="utf-8").split())


def word_error_rate(said: str, heard: str) -> float:
    """Word errors by words said, case and punctuation aside."""
    return float(jiwer.wer(said, heard, reference_transform=WORDS, hypothesis_transform=WORDS))
