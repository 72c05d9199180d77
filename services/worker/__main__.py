"""`python -m services.worker`: a Celery worker with everything set.

SIGTERM stops it as SIGQUIT would: what runs gets five seconds, then its lease is given back. A
plain SIGTERM would wait for long tasks without end (measured), and Spot machines give 30 s.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from speakfit.errors import SpeakFitError

logger = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Run until told to stop; 0 after a stop, 1 for an error in settings or servers."""
    parser = argparse.ArgumentParser(
        prog="python -m services.worker",
        description="Transcribe recordings. Needs DATABASE_URL, REDIS_URL and WHISPER_MODEL.",
    )
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="transcribing processes of one thread each (default: WORKER_PROCESSES)",
    )
    options = parser.parse_args(arguments)
    # billiard reads it when first imported, so before any import that reaches Celery.
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
    try:
        return _run(options.processes)
    except SpeakFitError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _run(processes: int | None) -> int:
    from celery.signals import worker_ready
    from sqlalchemy.exc import SQLAlchemyError

    from services.worker.engine import check_model
    from services.worker.lease import begin_worker, hand_over
    from services.worker.sweep import Heartbeat, Sweep, Vitals
    from speakfit.database import current_revision, engine_from, head_revision, is_behind
    from speakfit.errors import SettingsError, TargetError
    from speakfit.jobs import make_celery
    from speakfit.settings import read_settings
    from speakfit.telemetry import configure_logging

    settings = read_settings()
    check_model(settings)
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
    vitals = Vitals(Sweep(engine, app, settings), heartbeat)

    def begin(**_: object) -> None:
        vitals.start()

    worker_ready.connect(begin, weak=False)
    token = begin_worker()
    worker = app.Worker(
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
        try:
            # Its processes are gone by now; what they held need not wait for its lease.
            hand_over(engine, token)
        except SQLAlchemyError as error:
            logger.warning("the leases will have to expire: %s", type(error).__name__)
        engine.dispose()
    return worker.exitcode or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
