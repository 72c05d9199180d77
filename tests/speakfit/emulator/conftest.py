"""A fresh emulator in memory for each test; starting one takes milliseconds."""

from collections.abc import Iterator

import pytest

from tests.speakfit.emulator.bench import Bench
from tests.speakfit.emulator.hook import Hook, serving


@pytest.fixture
def bench() -> Iterator[Bench]:
    with Bench() as started:
        yield started


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    with serving(made.server):
        yield made
