"""A fresh emulator in memory for each test; starting one takes milliseconds."""

from collections.abc import Iterator

import pytest

from tests.speakfit.emulator.bench import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench() as started:
        yield started
