"""The second pass finds fillers that Whisper leaves out, and changes no word of the transcript."""

from __future__ import annotations

import pytest

from speakfit.fillers import RECALL, FillerMethod
from tests.benchmarks.fillers import engine, matched, measure, speeches, transcript
from tests.services.speech import AUSTEN, samples_of


def test_fillers_are_found_where_they_are_said_and_the_words_stay() -> None:
    spoken = next(speeches(with_fillers=True))
    listening = engine()
    try:
        with_pass, without = (
            transcript(listening, spoken.samples, method)
            for method in (FillerMethod.VERBATIM_PASS, FillerMethod.TRANSCRIPT)
        )
        some = samples_of(AUSTEN)[: 10 * 16_000]
        clean = transcript(listening, some, FillerMethod.VERBATIM_PASS)
    finally:
        listening.close()
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
    listening = engine()
    try:
        found, spoken, invented = measure(listening, method)
    finally:
        listening.close()
    told = RECALL[(listening.model, method)]
    assert spoken == told.spoken
    # Where the model is unsure it decodes again at random: the fillers of one speech may turn.
    assert abs(found - told.found) <= 4
    assert abs(invented - told.invented) <= 1
