"""Three engines behind one protocol; the real one is the real model."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.worker.engines import Speech, make_speech_engine
from services.worker.engines.recorded import RecordedEngine, record
from services.worker.engines.timed import FITS, SHARES, TimedEngine
from services.worker.engines.whisper import WhisperEngine
from speakfit.errors import NotRecordedError
from speakfit.fillers import FillerMethod
from speakfit.settings import EngineName, Settings
from speakfit.wishes import Wishes
from speakfit_ops.stack import local_whisper_model
from tests.services.speech import AUSTEN, KENNEDY, Samples, samples_of


def settings_with(**given: Any) -> Settings:
    return Settings(
        whisper_model=local_whisper_model(),
        whisper_device="cpu",
        whisper_compute_type="int8",
        **given,
    )


def speech(samples: Samples, at: float = 0.0, **wishes: Any) -> Speech:
    end = at + len(samples) / 16_000
    return Speech(samples=samples, start_seconds=at, end_seconds=end, wishes=Wishes(**wishes))


def text(result: dict[str, Any]) -> str:
    return " ".join(segment["text"] for segment in result["segments"])


@pytest.fixture(scope="module")
def whisper() -> Iterator[WhisperEngine]:
    engine = WhisperEngine(settings_with(whisper_batch_size=4))
    yield engine
    engine.close()


class RunsOut:
    """The inner model, on a device too small for more than so many windows at once."""

    def __init__(self, model: Any, *, room: int) -> None:
        self._model = model
        self._room = room
        self.tried: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, features: Any, **options: Any) -> Any:
        self.tried.append(features.shape[0])
        if features.shape[0] > self._room:
            # The words of CTranslate2 4.8.5, utils.h and cuda/utils.cc.
            raise RuntimeError("CUDA failed with error out of memory")
        return self._model.encode(features, **options)


def test_a_batch_that_does_not_fit_is_halved_until_it_does_and_loses_no_chunk(
    whisper: WhisperEngine,
) -> None:
    whisper.load()
    assert whisper._loaded is not None
    inner = RunsOut(whisper._loaded.model, room=1)
    whisper._loaded.model = inner
    short = samples_of(KENNEDY)[: 3 * 16_000]
    found = whisper.transcribe([speech(short, at=place * 100.0) for place in range(3)])
    assert inner.tried[:3] == [3, 1, 1]
    assert whisper.batch_size == 1
    assert [text(one) for one in found] == [text(found[0])] * 3
    assert "fellow Americans" in text(found[0])
    assert [int(one["segments"][0]["start"]) // 100 for one in found] == [0, 1, 2]

    inner._room = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        whisper.transcribe([speech(short)])
    assert not whisper.is_loaded
    # The device has room again: the worker tries again, with the whole batch.
    assert "fellow Americans" in text(whisper.transcribe([speech(short)])[0])
    assert whisper.batch_size == 4


def test_chunks_heard_together_say_what_each_says_alone(whisper: WhisperEngine) -> None:
    spoken = [samples_of(KENNEDY)[: 4 * 16_000], samples_of(AUSTEN)[-9 * 16_000 :]]
    together = whisper.transcribe([speech(one, at=60.0) for one in spoken])
    for one, samples in zip(together, spoken, strict=True):
        (alone,) = whisper.transcribe([speech(samples, at=60.0)])
        assert _letters(text(one)) == pytest.approx(_letters(text(alone)), abs=6)
        words = [word for segment in one["segments"] for word in segment["words"]]
        ends = 60.0 + len(samples) / 16_000
        assert all(60.0 <= word["start"] <= word["end"] <= ends for word in words)
    # Two sentences are two phrases also where one decoding gave both.
    assert [len(one["segments"]) for one in together] == [1, 2]


def _letters(said: str) -> int:
    return sum(letter.isalpha() for letter in said)


_IDLE = """
import psutil
from tests.recording_monitoring import until
from tests.services.speech import KENNEDY, samples_of
from tests.services.test_engines import WhisperEngine, settings_with, speech

engine = WhisperEngine(settings_with(whisper_idle_limit=0.3))
spoken = speech(samples_of(KENNEDY)[: 4 * 16_000])
def used():
    return psutil.Process().memory_info().rss // 1_000_000
print(used())
for _ in range(2):
    engine.transcribe([spoken])
    print(used())
    until(lambda: not engine.is_loaded, what="the eviction")
    print(used())
"""


def test_a_model_without_work_gives_its_memory_back_and_returns_when_needed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IDLE], capture_output=True, text=True, check=True, timeout=120
    )
    before, loaded, evicted, again, evicted_again = map(int, done.stdout.split())
    # tiny.en in int8 takes 75 MB and its work as much again; what libraries keep is not a model.
    assert loaded - before > 100
    assert evicted - before < (loaded - before) / 2
    assert again - evicted > 60
    assert evicted_again - evicted < 25


def test_a_model_that_is_used_is_not_taken_away_and_zero_keeps_it() -> None:
    engine = WhisperEngine(settings_with(whisper_idle_limit=0))
    engine.load()
    assert engine._watch is None
    assert engine.is_loaded
    engine.close()
    assert not engine.is_loaded


def test_workers_spawn_their_children_and_load_no_model_before(tmp_path: Path) -> None:
    """A model of the parent hangs a forked child for good, so neither may ever happen."""
    code = (
        "import sys\n"
        "from speakfit.jobs import make_celery\n"
        "import services.worker.__main__, services.worker.tasks\n"
        "app = make_celery('redis://127.0.0.1:1')\n"
        "print(app.conf.worker_pool_start_method, app.conf.worker_pool)\n"
        "print(sorted({'faster_whisper', 'ctranslate2'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["spawn prefork", "[]"]


def test_the_timed_engine_draws_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = FITS[FillerMethod.TRANSCRIPT]
    chance = random.Random(5)
    drawn = [fit.draw(30.0, chance) for _ in range(4000)]
    median = fit.floor + fit.rate * 30.0
    for share, ratio in zip(SHARES[1:-1], fit.ratios[1:-1], strict=True):
        assert np.quantile(drawn, share) == pytest.approx(median * ratio, rel=0.05)

    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    spoken = [speech(samples_of(KENNEDY), at=7.0), speech(samples_of(AUSTEN))] * 2
    first, second = (TimedEngine().transcribe(spoken) for _ in range(2))
    assert first == second
    assert slept[:4] == slept[4:]
    # The same chunk again: the same words, another wait.
    assert first[0] == first[2] != first[1]
    assert slept[0] != slept[2]
    words = [word for segment in first[0]["segments"] for word in segment["words"]]
    assert len(words) == 28
    assert (words[0]["start"], words[-1]["end"]) == (7.0, 18.0)
    assert first[0]["fillers"] is None
    listened = TimedEngine().transcribe(
        [speech(samples_of(KENNEDY), fillers=FillerMethod.VERBATIM_PASS)]
    )
    assert listened[0]["fillers"] == []


def test_recorded_results_are_given_again_wherever_the_chunk_lies(
    whisper: WhisperEngine, tmp_path: Path
) -> None:
    spoken = samples_of(KENNEDY)[: 3 * 16_000]
    record(whisper, tmp_path, speech(spoken, at=30.0))
    settings = settings_with(speech_engine="recorded", recorded_speech_dir=tmp_path)
    engine = make_speech_engine(settings)
    assert isinstance(engine, RecordedEngine)
    assert engine.transcribe([speech(spoken, at=30.0)]) == whisper.transcribe(
        [speech(spoken, at=30.0)]
    )
    (moved,) = engine.transcribe([speech(spoken, at=90.5)])
    assert moved["segments"][0]["start"] >= 90.5
    for unknown in (speech(spoken[1:]), speech(spoken, prompt="Names.")):
        with pytest.raises(NotRecordedError, match="No result was recorded"):
            engine.transcribe([unknown])


def test_the_setting_chooses_the_engine() -> None:
    engine = make_speech_engine(settings_with(speech_engine=EngineName.TIMED))
    assert isinstance(engine, TimedEngine)
    assert isinstance(make_speech_engine(settings_with()), WhisperEngine)
