"""One emulator in memory for all tests, emptied before each."""

from collections.abc import Iterator

import pytest

from tests.speakfit.emulator.bench import Bench
from tests.speakfit.emulator.hook import Hook, serving


@pytest.fixture(scope="session")
def _session_bench() -> Iterator[Bench]:
    with Bench() as started:
        yield started


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    with serving(made.server):
        yield made


@pytest.fixture
def bench(_session_bench: Bench) -> Bench:
    _session_bench.reset()
    return _session_bench
