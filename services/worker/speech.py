"""Where speech is, and where a recording may be cut: voice activity in a stream of windows.

Memory is bounded by one chunk of audio however long the recording is; only one probability per
32 ms is kept. The decisions are pure functions of those probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speakfit.audio import SAMPLE_RATE, Samples
from speakfit.jobs import CHUNK_LENGTH

FRAME = 512
"""Samples that Silero judges at once: 32 ms at 16 kHz."""

FRAME_SECONDS = FRAME / SAMPLE_RATE

_CONTEXT = 64
_SPEECH = 0.5
_SILENCE = 0.35
_BATCH_FRAMES = 256
# Measured with inserted pauses: 160 ms and 30 ms find 41 of 42 with a median error of 36 ms.
_SHORTEST_PAUSE_FRAMES = 5
_PAD_SECONDS = 0.03
_CHUNK_FRAMES = int(CHUNK_LENGTH.total_seconds() / FRAME_SECONDS)
_EARLIEST_CUT_FRAMES = _CHUNK_FRAMES * 2 // 3
_GOOD_PAUSE_FRAMES = 10
_MARGIN_FRAMES = 10
# Without a pause to cut in, what is around the cut is heard twice, and services.api.seams joins the
# two hearings. Measured by tests.benchmarks.seams: 2 s leave a word lost or doubled in places.
_OVERLAP_FRAMES = int(timedelta(seconds=4).total_seconds() / FRAME_SECONDS)
# Whisper invents words in long silence, so a long silence ends a chunk early.
_LONG_SILENCE_FRAMES = int(timedelta(seconds=4).total_seconds() / FRAME_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Audio that becomes one chunk, and where it begins in the recording, in samples."""

    begin: int
    samples: Samples

    @property
    def start_seconds(self) -> float:
        return self.begin / SAMPLE_RATE

    @property
    def end_seconds(self) -> float:
        return (self.begin + len(self.samples)) / SAMPLE_RATE


class VoiceActivity:
    """Silero's detector fed bit by bit: its recurrent state and context are carried along."""

    def __init__(self) -> None:
        # Late: the worker's main process imports this module and must load no model.
        from faster_whisper.vad import get_vad_model

        self._session: Any = get_vad_model().session
        self._h = np.zeros((1, 1, 128), dtype=np.float32)
        self._c = np.zeros((1, 1, 128), dtype=np.float32)
        self._context = np.zeros(_CONTEXT, dtype=np.float32)

    def probabilities(self, samples: Samples) -> NDArray[np.float32]:
        """One probability of speech per frame; the samples must be whole frames."""
        audio = samples.astype(np.float32) / 32768.0
        frames = audio.reshape(-1, FRAME)
        before = np.vstack([self._context[None, :], frames[:-1, -_CONTEXT:]])
        output, self._h, self._c = self._session.run(
            None,
            {"input": np.concatenate([before, frames], axis=1), "h": self._h, "c": self._c},
        )
        self._context = frames[-1, -_CONTEXT:]
        return np.asarray(output, dtype=np.float32).reshape(-1)


def spans(probabilities: Sequence[float], *, duration: float) -> list[tuple[float, float]]:
    """Speech as (start, end) in seconds: on above 0.5, off after 160 ms below 0.35."""
    found: list[tuple[int, int]] = []
    start: int | None = None
    silent_since: int | None = None
    for frame, probability in enumerate(probabilities):
        if probability >= _SPEECH:
            silent_since = None
            if start is None:
                start = frame
        elif probability < _SILENCE and start is not None:
            if silent_since is None:
                silent_since = frame
            if frame - silent_since >= _SHORTEST_PAUSE_FRAMES:
                found.append((start, silent_since))
                start = silent_since = None
    if start is not None:
        found.append((start, len(probabilities) if silent_since is None else silent_since))
    return [
        (
            max(0.0, begin * FRAME_SECONDS - _PAD_SECONDS),
            min(duration, end * FRAME_SECONDS + _PAD_SECONDS),
        )
        for begin, end in found
    ]


def choose_cut(probabilities: Sequence[float]) -> int:
    """The frame at which a full buffer is cut: late, and in silence where there is some.

    The last pause of 0.3 s in the final third wins, else the longest shorter one, else the
    frame least like speech.
    """
    runs: list[tuple[int, int]] = []
    begin: int | None = None
    for frame in range(_EARLIEST_CUT_FRAMES, len(probabilities)):
        if probabilities[frame] < _SILENCE:
            if begin is None:
                begin = frame
        elif begin is not None:
            runs.append((begin, frame))
            begin = None
    if begin is not None:
        runs.append((begin, len(probabilities)))
    if not runs:
        tail = probabilities[_EARLIEST_CUT_FRAMES:]
        return _EARLIEST_CUT_FRAMES + min(range(len(tail)), key=lambda i: (tail[i], -i))
    good = [run for run in runs if run[1] - run[0] >= _GOOD_PAUSE_FRAMES]
    chosen = good[-1] if good else max(runs, key=lambda run: (run[1] - run[0], run[0]))
    return (chosen[0] + chosen[1]) // 2


def is_pause(probabilities: Sequence[float], cut: int) -> bool:
    """Whether it is silent around a cut, so that no word reaches across it."""
    around = probabilities[
        cut - _SHORTEST_PAUSE_FRAMES // 2 : cut + _SHORTEST_PAUSE_FRAMES // 2 + 1
    ]
    return all(probability < _SILENCE for probability in around)


def stretches(
    windows: Iterable[Samples], detector: VoiceActivity, judged: list[float]
) -> Iterator[Stretch]:
    """Cut a stream near 30 s at silences; stretches without speech are left out.

    Every frame's probability is appended to `judged`. Stretches cut in a pause do not overlap;
    where there is none, the next one begins 4 s before the cut.
    """
    return (one for one in steps(windows, detector, judged) if one is not None)


def steps(
    windows: Iterable[Samples], detector: VoiceActivity, judged: list[float]
) -> Iterator[Stretch | None]:
    """The same, with None every 8 s, so that who cuts a long silence may stop within it."""
    held = np.zeros(0, dtype=np.int16)
    scores: list[float] = []
    begin = 0
    for frames in _whole_frames(windows):
        fresh = detector.probabilities(frames).tolist()
        judged.extend(fresh)
        held = np.concatenate([held, frames])
        scores.extend(fresh)
        while True:
            cut, onwards = _cut_due(scores)
            if not onwards:
                break
            found = _trim(held[: cut * FRAME], scores[:cut], begin)
            if found is not None:
                yield found
            held, scores = held[onwards * FRAME :], scores[onwards:]
            begin += onwards * FRAME
        yield None
    found = _trim(held, scores, begin)
    if found is not None:
        yield found


def next_batch(
    coming: Iterator[Stretch | None], judged: list[float], size: int
) -> tuple[list[Stretch], bool]:
    """The next stretches of `steps`, at most `size`, and whether there may be more.

    Fewer where there is much silence: a batch ends when as much was judged as `size` chunks hold.
    """
    batch: list[Stretch] = []
    enough = len(judged) + size * _CHUNK_FRAMES
    for one in coming:
        if one is not None:
            batch.append(one)
        if len(batch) == size or len(judged) >= enough:
            return batch, True
    return batch, False


def _cut_due(scores: Sequence[float]) -> tuple[int, int]:
    """Where the buffer must be cut now and where the next one begins; zeros while it may grow."""
    first = next((i for i, score in enumerate(scores) if score >= _SPEECH), None)
    if first is None:
        # Silence before speech is let go, but for the margin that a word's onset needs.
        before = len(scores) - _MARGIN_FRAMES if len(scores) > 2 * _MARGIN_FRAMES else 0
        return before, before
    quiet = 0
    for frame in range(first, min(len(scores), _CHUNK_FRAMES)):
        quiet = quiet + 1 if scores[frame] < _SILENCE else 0
        if quiet >= _LONG_SILENCE_FRAMES:
            return frame + 1, frame + 1
    if len(scores) < _CHUNK_FRAMES:
        return 0, 0
    cut = choose_cut(scores[:_CHUNK_FRAMES])
    return cut, cut if is_pause(scores, cut) else cut - _OVERLAP_FRAMES


def _trim(samples: Samples, scores: Sequence[float], begin: int) -> Stretch | None:
    speech = [i for i, score in enumerate(scores) if score >= _SPEECH]
    if not speech:
        return None
    first = max(0, speech[0] - _MARGIN_FRAMES)
    last = min(len(scores), speech[-1] + 1 + _MARGIN_FRAMES)
    return Stretch(begin=begin + first * FRAME, samples=samples[first * FRAME : last * FRAME])


def _whole_frames(windows: Iterable[Samples]) -> Iterator[Samples]:
    """The same samples in batches of whole frames; the end is filled with silence."""
    held: list[Samples] = []
    count = 0
    for window in windows:
        held.append(window)
        count += len(window)
        if count >= _BATCH_FRAMES * FRAME:
            joined = np.concatenate(held)
            whole = len(joined) // FRAME * FRAME
            yield joined[:whole]
            held, count = [joined[whole:]], len(joined) - whole
    if count:
        joined = np.concatenate(held)
        yield np.pad(joined, (0, -len(joined) % FRAME))
