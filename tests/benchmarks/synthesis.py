"""Speech made by eSpeak NG, so that it is known what is said and when; only measurements use it.

The library keeps one state a process, and begun a second time in one it was seen to say nothing
and to crash its process. So each voice speaks in a process of its own:

    python -m tests.benchmarks.synthesis VOICE WORDS_PER_MINUTE TEXT... > SAMPLES.npz
"""

from __future__ import annotations

import ctypes
import io
import subprocess
import sys
from collections.abc import Sequence

import av
import espeakng_loader
import numpy as np

from speakfit.audio import SAMPLE_RATE
from tests.services.speech import Samples

_SYNCHRONOUS = 2
_UTF8 = 1
_RATE_PARAMETER = 1
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


def synthesize(name: str, texts: Sequence[str], *, words_per_minute: int) -> dict[str, Samples]:
    """Each text as 16 kHz samples of one voice, without the silence around it."""
    done = subprocess.run(
        [sys.executable, "-m", __name__, name, str(words_per_minute), *texts],
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    with np.load(io.BytesIO(done.stdout)) as spoken:
        return {text: spoken[f"arr_{place}"] for place, text in enumerate(texts)}


class _Voice:
    """The one voice of this process."""

    def __init__(self, name: str, words_per_minute: int) -> None:
        self._library = ctypes.CDLL(str(espeakng_loader.get_library_path()))
        folder = str(espeakng_loader.get_data_path()).encode()
        self._rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, folder, 0)
        self._pieces: list[Samples] = []
        self._taking = _CALLBACK(self._take)
        self._library.espeak_SetSynthCallback(self._taking)
        assert self._library.espeak_SetVoiceByName(name.encode()) == 0, name
        self._library.espeak_SetParameter(_RATE_PARAMETER, words_per_minute, 0)

    def _take(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int) -> int:
        if samples and count:
            self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    def say(self, text: str) -> Samples:
        self._pieces.clear()
        data = text.encode()
        self._library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, _UTF8, None, None)
        frame = av.AudioFrame.from_ndarray(
            np.concatenate(self._pieces).reshape(1, -1), format="s16", layout="mono"
        )
        frame.sample_rate = self._rate
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        made = [*resampler.resample(frame), *resampler.resample(None)]
        samples: Samples = np.concatenate([one.to_ndarray().reshape(-1) for one in made])
        loud = np.flatnonzero(np.abs(samples) > 60)
        return samples[loud[0] : loud[-1] + 1]


def main(name: str, words_per_minute: str, *texts: str) -> None:
    """Say all and write it down."""
    voice = _Voice(name, int(words_per_minute))
    written = io.BytesIO()
    np.savez(written, *map(voice.say, texts))
    sys.stdout.buffer.write(written.getvalue())


if __name__ == "__main__":
    main(*sys.argv[1:])
