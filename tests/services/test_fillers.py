"""The second pass finds fillers that Whisper leaves out, and changes no word of the transcript."""

from __future__ import annotations

import pytest

from speakfit.fillers import RECALL, FillerMethod
from tests.benchmarks.fillers import engine, matched, measure, speeches, transcript
from tests.services.speech import AUSTEN, samples_of


def test_fillers_are_found_where_they_are_said_and_the_words_stay() -> None:
    spoken = speeches(with_fillers=True)[0]
    listening, deaf = engine(filler_pass=True), engine(filler_pass=False)
    try:
        with_pass, without = (transcript(one, spoken.samples) for one in (listening, deaf))
        clean = transcript(listening, samples_of(AUSTEN)[: 10 * 16_000])
    finally:
        listening.close()
        deaf.close()
    assert with_pass.segments == without.segments
    found = with_pass.coaching.filler_words
    assert matched(spoken, [(one.start + one.end) / 2 for one in found.found]) >= 3
    assert found.total <= 4
    assert without.coaching.filler_words.total < found.total
    assert clean.coaching.filler_words.total == 0
    assert (listening.model, found.method) == ("tiny.en", FillerMethod.VERBATIM_PASS)


@pytest.mark.slow
@pytest.mark.parametrize("method", FillerMethod)
def test_the_recall_that_answers_tell_is_what_is_measured(method: FillerMethod) -> None:
    listening = engine(filler_pass=method == FillerMethod.VERBATIM_PASS)
    try:
        found, spoken, invented = measure(listening)
    finally:
        listening.close()
    told = RECALL[(listening.model, method)]
    assert spoken == told.spoken
    # Another processor's rounding may turn a word or two.
    assert abs(found - told.found) <= 2
    assert abs(invented - told.invented) <= 1
