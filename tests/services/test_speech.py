"""Cutting is pure: probabilities in, cuts out."""

from __future__ import annotations

import errno
import itertools

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.worker.speech import (
    FRAME,
    VoiceActivity,
    choose_cut,
    next_batch,
    spans,
    steps,
    stretches,
)
from speakfit.audio import decode
from tests.services.speech import AUSTEN, Samples, samples_of

FULL = 937


class Spoken:
    """A detector for tests: a frame's first sample, in thousandths, is its probability."""

    def probabilities(self, samples: Samples) -> np.ndarray:
        return samples.reshape(-1, FRAME)[:, 0] / 1000.0


def audio_of(probabilities: list[float]) -> Samples:
    values = np.asarray([round(p * 1000) for p in probabilities], dtype=np.int16)
    return np.repeat(values, FRAME)


def test_a_full_buffer_is_cut_in_the_last_clear_pause() -> None:
    speech = [0.9] * FULL
    for begin, end in ((640, 660), (800, 820), (900, 904)):
        speech[begin:end] = [0.1] * (end - begin)
    assert choose_cut(speech) == 810


def test_without_a_clear_pause_the_longest_short_one_is_taken() -> None:
    speech = [0.9] * FULL
    speech[700:706] = [0.1] * 6
    speech[900:902] = [0.1] * 2
    assert choose_cut(speech) == 703


def test_without_any_pause_the_frame_least_like_speech_is_taken() -> None:
    speech = [0.9] * FULL
    speech[777] = 0.4
    assert choose_cut(speech) == 777


def test_speech_is_on_above_a_half_and_off_after_160_ms_of_silence() -> None:
    probabilities = [0.1] * 10 + [0.9] * 10 + [0.1] * 4 + [0.9] * 10 + [0.1] * 6 + [0.9] * 5
    found = spans(probabilities, duration=10.0)
    assert found == [
        (pytest.approx(10 * 0.032 - 0.03), pytest.approx(34 * 0.032 + 0.03)),
        (pytest.approx(40 * 0.032 - 0.03), pytest.approx(45 * 0.032 + 0.03)),
    ]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.05, 0.4, 0.9]), st.integers(1, 400)), min_size=1, max_size=20
    ),
    st.integers(100, 20_000),
)
def test_stretches_never_exceed_30_s_miss_no_speech_and_overlap_by_4_s_at_most(
    runs: list[tuple[float, int]], window: int
) -> None:
    probabilities = [p for p, length in runs for _ in range(length)]
    audio = audio_of(probabilities)
    windows = [audio[i : i + window] for i in range(0, len(audio), window)]
    judged: list[float] = []
    found = list(stretches(windows, Spoken(), judged))  # type: ignore[arg-type] # stands in
    assert judged == pytest.approx(probabilities)
    covered = np.zeros(len(probabilities), dtype=int)
    for stretch in found:
        assert len(stretch.samples) <= 30 * 16_000
        first = stretch.begin // FRAME
        covered[first : first + len(stretch.samples) // FRAME] += 1
        assert np.array_equal(
            stretch.samples, audio[stretch.begin : stretch.begin + len(stretch.samples)]
        )
    assert covered.max(initial=0) <= 2
    assert all(covered[i] >= 1 for i, p in enumerate(probabilities) if p >= 0.5)
    for before, after in itertools.pairwise(found):
        assert before.begin + len(before.samples) - after.begin <= 4 * 16_000


def test_a_cut_through_speech_is_heard_from_both_sides_and_one_in_a_pause_once() -> None:
    talk = audio_of([0.9] * 2_000)
    first, second, *_ = stretches([talk], Spoken(), [])  # type: ignore[arg-type] # stands in
    assert first.begin + len(first.samples) - second.begin == 4 * 16_000
    paused = audio_of([0.9] * 800 + [0.1] * 12 + [0.9] * 1_000)
    first, second, *_ = stretches([paused], Spoken(), [])  # type: ignore[arg-type] # stands in
    assert first.begin + len(first.samples) <= second.begin


def test_a_long_silence_is_read_in_several_batches_and_ends_none_of_the_speech() -> None:
    """Celery's task would be killed for it, or keep everybody waiting."""
    audio = audio_of([0.9] * 100 + [0.1] * 30_000 + [0.9] * 100)
    windows = (audio[i : i + 8_000] for i in range(0, len(audio), 8_000))
    judged: list[float] = []
    coming = steps(windows, Spoken(), judged)  # type: ignore[arg-type] # stands in
    batches: list[int] = []
    longest, more = 0, True
    while more:
        before = len(judged)
        batch, more = next_batch(coming, judged, 2)
        batches.append(len(batch))
        longest = max(longest, len(judged) - before)
    assert longest <= 2 * 937 + 300
    assert sum(batches) == 2
    assert batches[0] == batches[-1] == 1


def test_the_detector_fed_in_windows_agrees_with_the_whole_file_at_once() -> None:
    from faster_whisper.vad import get_vad_model

    audio = samples_of(AUSTEN)
    whole = len(audio) // FRAME * FRAME
    expected = get_vad_model()(audio[:whole].astype(np.float32) / 32768.0).reshape(-1)
    judged: list[float] = []
    list(stretches(decode(AUSTEN, longest_seconds=60), VoiceActivity(), judged))
    # The whole-file call blanks the end of its last frame; that one frame may differ.
    assert np.allclose(judged[: len(expected) - 1], expected[:-1], atol=1e-3)


@pytest.mark.parametrize("where", ["open", "read"])
def test_a_failing_disk_is_not_taken_for_a_damaged_recording(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        av.error.err_check(-errno.EIO)

    if where == "open":
        monkeypatch.setattr(av, "open", fail)
    else:
        monkeypatch.setattr(av.AudioResampler, "resample", fail, raising=True)
    with pytest.raises(OSError, match="Input/output error"):
        list(decode(AUSTEN, longest_seconds=60))
