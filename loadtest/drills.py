"""The drills: one a subject, each with a fault that really happens.

A slow network between API and PostgreSQL would show as slow requests, but every API's gauges go
the same way and give up after a second: it would end in silence, not in latency. So latency comes
from a lock, which the runbook can also put right.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from fractions import Fraction
from functools import cache, partial
from typing import Any

from loadtest.drill import Drill
from loadtest.drill_record import ROOT
from loadtest.faults.fault import Killed, LostAudio, Paused, ToxicLink
from loadtest.faults.toxic import Toxic, ToxicKind
from loadtest.scene import Scene

SPEECH = ROOT / "platform/speakfit_ops/samples/kennedy.flac"

_TURN = 2.8
"""Seconds: two turns are longer than the critical limit, three shorter than what a statement may
wait for a lock."""
_FLOOD = (timedelta(hours=2, minutes=50),) * 2
"""680 chunks, beyond the critical limit, within what one recording may last."""
_TAKEN = 0.975
"""Share of the connections that is held: above the critical limit, and the API still gets one."""


def black_hole(link: str) -> ToxicLink:
    """Nothing passes a link any more, and nobody is told."""
    return ToxicLink.of(link, Toxic(kind=ToxicKind.TIMEOUT))


def _connect(scene: Scene, name: str) -> Any:
    import psycopg

    url = scene.stack.environment["DATABASE_URL"].replace("+psycopg", "")
    return psycopg.connect(url, application_name=name)


def hold_lock(scene: Scene) -> None:
    """A job of three connections that take turns in locking the table of keys.

    PostgreSQL serves a lock's queue in order, so whoever needs the table waits behind all three,
    and some are let through at every turn: requests are slow all the time and none fails.
    """
    import psycopg

    connections = [_connect(scene, "drill-job") for _ in range(3)]
    ended = threading.Event()

    def lock(connection: Any, ending: threading.Event) -> None:
        # Ended from outside, for example by a runbook, the whole job ends.
        try:
            with connection:
                while not (ending.is_set() or ended.is_set()):
                    connection.execute("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE")
                    ending.wait(_TURN)
                    connection.rollback()
        except psycopg.Error:
            ended.set()

    def visit(ending: threading.Event) -> None:
        while not ending.wait(0.1):
            with suppress(OSError):
                # A key that is unknown is asked for every time; known ones are remembered.
                scene.ask("GET", "/v1/recordings?limit=1", key=f"sf_{'0' * 16}_{'0' * 64}")

    for connection in connections:
        scene.background(partial(lock, connection))
    for _ in range(8):
        scene.background(visit)


def hold_connections(scene: Scene) -> None:
    """A client opens connections, begins a transaction on each and forgets them."""
    import psycopg

    held: list[Any] = []

    def release() -> None:
        for connection in held:
            with suppress(psycopg.Error):
                connection.close()

    scene.undo.append(release)
    share = (
        "SELECT count(*)::float8 / (current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int)"
        " FROM pg_stat_activity WHERE backend_type = 'client backend'"
    )
    while True:
        held.append(_connect(scene, "drill-forgotten"))
        (taken,) = held[-1].execute(share).fetchone()
        if taken >= _TAKEN:
            return


@cache
def silence(length: timedelta) -> bytes:
    """FLAC of nothing, small however long."""
    import av
    import numpy as np

    rate, target = 8000, io.BytesIO()
    with av.open(target, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=rate)
        stream.codec_context.layout = "mono"
        minute = np.zeros((1, rate * 60), dtype=np.int16)
        for number in range(int(length.total_seconds() // 60)):
            frame = av.AudioFrame.from_ndarray(minute, format="s16", layout="mono")
            frame.sample_rate, frame.pts = rate, number * rate * 60
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def flood(scene: Scene) -> None:
    """More is accepted than is finished: the worker lives, but its processes hang."""
    scene.journal.make(Paused(part="worker", children=True))
    recordings = [scene.upload("silence.flac", silence(length)) for length in _FLOOD]

    def withdraw() -> None:
        for recording in recordings:
            scene.ask("POST", f"/v1/recordings/{recording}/cancel")

    scene.undo.append(withdraw)


def kill_database(scene: Scene) -> None:
    """PostgreSQL dies with all its children, as its machine would."""
    scene.journal.make(Killed(part="PostgreSQL"))


def kill_worker(scene: Scene) -> None:
    """The worker dies with all its children."""
    scene.journal.make(Killed(part="worker"))


def cut_telemetry(scene: Scene) -> None:
    """What the API exports goes nowhere."""
    scene.journal.make(black_hole("api-monitoring"))


def starve_worker(scene: Scene) -> None:
    """The worker lives, but nothing reaches it from the broker; one recording waits."""
    scene.journal.make(black_hole("worker-valkey"))
    scene.upload("speech.flac", SPEECH.read_bytes())


def lose_audio(scene: Scene) -> None:
    """The store loses the audio of an accepted recording before anybody has transcribed it."""
    pause = Paused(part="worker", children=True)
    scene.journal.make(pause)
    scene.upload("speech.flac", SPEECH.read_bytes())
    scene.journal.make(LostAudio(store=scene.stack.environment["AUDIO_DIR"]))
    scene.journal.heal_one(pause)


def end_fault(scene: Scene) -> None:
    """The cause is put right by others: what the runbook then does would not help before."""
    scene.journal.heal()


def await_wait(scene: Scene) -> None:
    """Until somebody has waited for the lock so long that the runbook calls it blocked."""
    waits = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND now() - query_start > interval '5.5 seconds'"
    )
    with _connect(scene, "drill") as connection:
        connection.autocommit = True
        while connection.execute(waits).fetchone() == (0,):
            scene.pause(0.1)


def letters(scene: Scene) -> Mapping[str, str]:
    """Which letter `dead-letters retry` is to try again."""
    with _connect(scene, "drill") as connection:
        row = connection.execute(
            "SELECT min(id) FROM dead_letters WHERE settled_at IS NULL"
        ).fetchone()
    return {"ID": str(row[0])}


DRILLS: Mapping[str, Drill] = {
    drill.subject: drill
    for drill in (
        Drill(
            subject="api-errors",
            fault="PostgreSQL killed with SIGKILL",
            begin=kill_database,
            fixes=("restart-database",),
        ),
        Drill(
            subject="api-latency",
            fault="a job that locks the table of keys, so that requests wait for 6 to 8 s",
            begin=hold_lock,
            before_fix=await_wait,
            fixes=("end-blockers",),
        ),
        Drill(
            subject="database-connections",
            fault="a client holds nearly all connections, idle in transactions",
            begin=hold_connections,
            fixes=("end-stuck",),
        ),
        Drill(
            subject="dead-letters",
            fault="the audio of an accepted recording is lost",
            begin=lose_audio,
            before_fix=end_fault,
            fixes=("retry",),
            answers=letters,
        ),
        Drill(
            subject="queue-depth",
            fault="680 chunks at once, and a worker whose processes hang (SIGSTOP)",
            begin=flood,
            fixes=("restart-worker",),
            may_page=("transcription-stalled-critical",),
        ),
        Drill(
            subject="telemetry-silent",
            fault="a black hole between the API and Cloud Monitoring",
            begin=cut_telemetry,
            before_fix=end_fault,
            fixes=("restart-api",),
        ),
        Drill(
            subject="transcription-stalled",
            fault="a black hole between the worker and the broker while a recording waits",
            begin=starve_worker,
            before_fix=end_fault,
            fixes=("restart-worker",),
        ),
        Drill(
            subject="worker-down",
            fault="the worker killed with SIGKILL",
            begin=kill_worker,
            fixes=("restart-worker",),
        ),
    )
}
"""By subject."""
