"""`python -m services.worker`: a Celery worker with everything set, and what it gave up.

SIGTERM means finish or hand over: nothing more is begun, what runs gets five seconds, then its
lease is given back. A plain Celery worker would wait for long tasks without end (measured), and
Spot machines give 30 s: so five seconds later what still runs is killed, and ten later this process
ends whatever it waits for.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from services.worker import dead_letter_commands
from speakfit.command_line import run_app

# The transcribing processes are spawned and so begin with these. Each encoding takes and frees
# buffers of 54 MB (tiny.en); glibc would have them mapped and cleared by the kernel every time,
# 100 000 page faults and 0.2 s of processor time a chunk (measured), and keep a second heap for the
# model's thread. A second thread of OpenBLAS only spins beside another process's.
_PROCESS_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(64 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
    "OPENBLAS_NUM_THREADS": "1",
}

app = typer.Typer(
    name="services.worker",
    epilog="Exit codes: 0 fine, 1 error, 64 wrong usage.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(dead_letter_commands.app, name="dead-letters")

logger = logging.getLogger(__name__)


@app.callback(invoke_without_command=True)
def work(
    context: typer.Context,
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Transcribing processes of one thread each; WORKER_PROCESSES when left out.",
        ),
    ] = None,
) -> None:
    """Transcribe recordings until told to stop.

    Needs DATABASE_URL, REDIS_URL and WHISPER_MODEL.
    """
    if context.invoked_subcommand is None:
        raise typer.Exit(_run(processes))


def _run(processes: int | None) -> int:
    # billiard reads it when first imported, so before any import that reaches Celery.
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    for name, value in _PROCESS_MEMORY.items():
        os.environ.setdefault(name, value)
    from celery.signals import worker_ready
    from sqlalchemy.exc import SQLAlchemyError

    from services.worker.engines import check_engine
    from services.worker.lease import begin_worker, hand_over
    from services.worker.stopping import end_children, stoppable
    from services.worker.sweep import Heartbeat, Sweep, Vitals
    from services.worker.watch import Watch
    from speakfit.database import current_revision, engine_from, head_revision, is_behind
    from speakfit.errors import SettingsError, TargetError
    from speakfit.jobs import make_celery
    from speakfit.settings import read_settings
    from speakfit.telemetry import configure_logging

    settings = read_settings()
    check_engine(settings)
    count = processes or settings.worker_processes
    if count < 1:
        raise SettingsError(
            "A worker needs at least one process.",
            where="--processes",
            todo="Name a whole number of at least 1.",
        )
    engine = engine_from(settings)
    app = make_celery(settings.require("redis_url"))
    try:
        current = current_revision(engine)
    except SQLAlchemyError as error:
        raise TargetError(
            "The database does not answer.",
            where="DATABASE_URL",
            todo="Start the database, or correct the address.",
        ) from error
    if is_behind(current):
        raise TargetError(
            f"The database is at revision {current or 'none'}, not {head_revision()}.",
            where="DATABASE_URL",
            todo="Run `python -m speakfit.database upgrade`.",
        )
    configure_logging("worker")
    app.conf.include = ["services.worker.tasks"]
    heartbeat = Heartbeat(engine, settings, processes=count)
    watch = Watch(count)
    vitals = Vitals(Sweep(engine, app, settings), heartbeat, watch)

    def begin(**_: object) -> None:
        vitals.start()

    worker_ready.connect(begin, weak=False)
    token = begin_worker()

    def give_all_back() -> None:
        try:
            # Its processes are gone by now; what they held need not wait for its lease.
            hand_over(engine, token)
        except SQLAlchemyError as error:
            logger.warning("the leases will have to expire: %s", type(error).__name__)

    worker = stoppable(app, watch, give_all_back)(
        hostname=heartbeat.worker_id,
        pool="prefork",
        concurrency=count,
        quiet=True,
        without_gossip=True,
        without_heartbeat=True,
        without_mingle=True,
    )
    try:
        worker.start()
    finally:
        vitals.stop()
        end_children()
        give_all_back()
        watch.close()
        engine.dispose()
    return worker.exitcode or 0


def main() -> int:
    """0 after a stop, 1 for an error in settings or servers, 64 for wrong usage."""
    return run_app(app, "services.worker")


if __name__ == "__main__":
    sys.exit(main())
