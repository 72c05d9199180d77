"""The faults of a real local stack: its links, its processes, its clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import requests

from loadtest.faults.fault import Fault, FullDisk, Killed, LinkDown, Paused, ToxicLink
from loadtest.faults.journal import held
from loadtest.faults.toxic import Toxic, ToxicKind
from loadtest.local_stack import require_stack
from speakfit_ops.stack import Stack, loopback

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(
        folder=tmp_path_factory.mktemp("stack") / "data",
        faults=True,
        overrides={"SPEECH_ENGINE": "timed"},
    )
    stack.start()
    yield stack
    stack.stop()


def ready(stack: Stack) -> requests.Response:
    return loopback().get(f"http://127.0.0.1:{stack.ports.api}/readyz", timeout=20)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (LinkDown(link="api-postgres"), 503),
        (ToxicLink.of("api-postgres", Toxic(kind=ToxicKind.RESET_PEER)), 503),
        (Paused(part="worker"), 200),
    ],
)
def test_the_api_feels_what_is_wrong_with_its_servers_and_recovers(
    stack: Stack, fault: Fault, status: int
) -> None:
    with held(require_stack(stack.folder)) as journal:
        assert ready(stack).status_code == 200
        with journal.wrong(fault):
            until(lambda: ready(stack).status_code == status)
        until(lambda: ready(stack).status_code == 200)


def upload(stack: Stack) -> requests.Response:
    from speakfit_ops.demo import write_speech

    speech = stack.folder / "speech.wav"
    write_speech(speech, 1)
    with speech.open("rb") as audio:
        return loopback().post(
            f"http://127.0.0.1:{stack.ports.api}/v1/recordings",
            files={"file": ("speech.wav", audio)},
            headers={"Authorization": f"Bearer {stack.environment['SPEAKFIT_API_KEY']}"},
            timeout=30,
        )


def test_a_full_disk_refuses_uploads_with_507_and_heals(stack: Stack) -> None:
    with held(require_stack(stack.folder)) as journal:
        with journal.wrong(FullDisk(part="api")):
            assert upload(stack).status_code == 507
        assert upload(stack).status_code == 202


@pytest.mark.parametrize("part", ["PostgreSQL", "Valkey"])
def test_what_was_killed_is_back_when_the_fault_is_healed(stack: Stack, part: str) -> None:
    serving(stack, lambda: held_kill(stack, part))


def held_kill(stack: Stack, part: str) -> None:
    with held(require_stack(stack.folder)) as journal, journal.wrong(Killed(part=part)):
        until(lambda: ready(stack).status_code == 503 or part == "Valkey")
    until(lambda: ready(stack).status_code == 200)


def serving(stack: Stack, act: Callable[[], None]) -> None:
    """Act while the stack's own process looks after it, as under `stack up`."""
    import threading

    stopping = threading.Event()
    watching = threading.Thread(target=stack.watch, args=(stopping,))
    watching.start()
    try:
        act()
    finally:
        stopping.set()
        watching.join()


def test_a_part_can_be_started_with_a_clock_that_is_wrong(stack: Stack) -> None:
    stack.restart("api", clock_skew=timedelta(hours=1))
    upload(stack)
    lines = stack.parts["api"].log.read_text(encoding="utf-8").splitlines()
    assert '"time"' in lines[-1]
    written = lines[-1].split('"time": "')[1][:13]
    ahead = time.strftime("%Y-%m-%dT%H", time.gmtime(time.time() + 3600))
    assert written == ahead
    stack.restart("api")
