"""What the API asks of the workers: names, payloads, the Celery settings both sides share.

A message is only a hint that work exists; PostgreSQL says which work is next and whether any is
left. So a lost message is sent again by the sweep and a doubled one finds nothing to do.
"""

from __future__ import annotations

import socket
import ssl
import uuid
from dataclasses import dataclass
from datetime import timedelta

import redis
from celery import Celery
from kombu.exceptions import OperationalError as BrokerDownError
from kombu.transport import redis as kombu_redis
from opentelemetry.trace import SpanKind
from sqlalchemy import Engine, delete, null, select, update
from sqlalchemy.orm import Session

from speakfit.database import (
    LAST_TURN,
    Chunk,
    ChunkStatus,
    DeadLetter,
    OutboxMessage,
    Recording,
    RecordingStatus,
    database_now,
    transaction,
)
from speakfit.tracing import parent, span, traceparent

QUEUE = "speakfit"
PREPARE = "speakfit.prepare"
TRANSCRIBE = "speakfit.transcribe_chunk"

CHUNK_LENGTH = timedelta(seconds=30)
"""Whisper pads every window to 30 s, so shorter chunks waste work and longer ones gain nothing."""

ATTEMPTS = 3
"""How often a chunk or a preparation may be begun before it is failed as poisonous."""

# Messages only wake, so one that comes back while its task still runs does no harm, and what a
# killed worker held should not lie about for long.
_VISIBILITY = timedelta(minutes=1)
_RELAY_AT_ONCE = 200
# The key suffixes of kombu's Redis transport for its priority steps 0, 3, 6 and 9.
_PRIORITY_SUFFIXES = ("", "\x06\x163", "\x06\x166", "\x06\x169")
# A peer that vanished without a word is noticed after 10 + 3 x 5 s; Linux alone would take 2 h.
_KEEPALIVE = {
    getattr(socket, name): seconds
    for name, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}

BROKER_ERRORS = (BrokerDownError, redis.RedisError, OSError)
"""What sending raises when the broker cannot be reached."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One unit of work: prepare a recording, or transcribe one of its chunks."""

    task: str
    recording_id: uuid.UUID
    chunk_index: int | None = None
    traceparent: str | None = None


class _Deliveries(kombu_redis.QoS):
    """Counts a message as done with even when its acknowledgement did not reach the broker.

    Celery logs a lost acknowledgement and goes on, and kombu keeps the message's place in the
    prefetch window. A worker whose window is full asks the broker for nothing, so it would never
    notice that its connection is dead: one broker restart under a busy worker hung it for good
    (reproduced). With the place free it asks again, gets the error and reconnects. The message
    itself returns after the visibility time-out and finds nothing left to do.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except BaseException:
            # What the base class does once Redis has answered: free the place.
            super(kombu_redis.QoS, self).ack(delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue=requeue)
        except BaseException:
            super(kombu_redis.QoS, self).ack(delivery_tag)
            raise


class _Channel(kombu_redis.Channel):
    QoS = _Deliveries


class Transport(kombu_redis.Transport):
    """kombu's Redis transport, which outlives a broker that dies under a busy worker."""

    Channel = _Channel


def make_celery(redis_url: str) -> Celery:
    """The Celery application; the API only sends with it, the worker registers tasks on it.

    Celery's default answers differ in three ways that matter here (measured): the visibility
    time-out must agree in three places because the shortest wins; a forked child hangs on a model
    or channel of its parent, so children are spawned; remote control and events are not used.
    """
    visibility = int(_VISIBILITY.total_seconds())
    transport = {
        "visibility_timeout": visibility,
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "socket_keepalive_options": _KEEPALIVE,
        "health_check_interval": 25,
    }
    app = Celery("speakfit", broker=redis_url, set_as_current=False)
    if redis_url.startswith("rediss:"):
        # Named by its class a transport does not see the scheme; options in the address win.
        app.conf.broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    app.conf.update(
        accept_content=["json"],
        # No end of tries: a worker that gave up would stay down when the broker is back.
        broker_connection_max_retries=None,
        broker_connection_retry_on_startup=True,
        broker_transport=f"{__name__}:{Transport.__name__}",
        broker_transport_options=transport,
        result_backend_transport_options=transport,
        visibility_timeout=visibility,
        task_acks_late=True,
        task_create_missing_queues=True,
        task_default_queue=QUEUE,
        task_ignore_result=True,
        task_reject_on_worker_lost=True,
        task_serializer="json",
        task_store_errors_even_if_ignored=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_pool_start_method="spawn",
        worker_prefetch_multiplier=1,
        worker_proc_alive_timeout=120.0,
        worker_send_task_events=False,
    )
    return app


def send(app: Celery, job: Job) -> None:
    """Put one message in the queue; raises one of BROKER_ERRORS when it cannot."""
    payload: list[str | int] = [str(job.recording_id)]
    if job.chunk_index is not None:
        payload.append(job.chunk_index)
    with span(
        f"send {job.task}",
        kind=SpanKind.PRODUCER,
        of=parent(job.traceparent),
        attributes={
            "messaging.system": "celery",
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": QUEUE,
        },
    ):
        context = traceparent()
        headers = {} if context is None else {"traceparent": context}
        app.send_task(job.task, args=payload, headers=headers, queue=QUEUE, retry=False)


def post(session: Session, job: Job) -> None:
    """Write the message to the outbox, in the transaction that makes it necessary."""
    session.add(
        OutboxMessage(
            task=job.task,
            recording_id=job.recording_id,
            chunk_index=job.chunk_index,
            traceparent=job.traceparent,
            created_at=database_now(),
        )
    )


def relay_outbox(engine: Engine, app: Celery) -> int:
    """Send what the outbox holds and count it; several processes may relay side by side.

    A crash between sending and deleting sends twice, which is harmless. Raises one of
    BROKER_ERRORS when the broker is down; what was sent before stays sent.
    """
    sent = 0
    failure: Exception | None = None
    with transaction(engine) as session:
        waiting = session.scalars(
            select(OutboxMessage)
            .order_by(OutboxMessage.id)
            .limit(_RELAY_AT_ONCE)
            .with_for_update(skip_locked=True)
        ).all()
        for message in waiting:
            try:
                send(
                    app,
                    Job(
                        task=message.task,
                        recording_id=message.recording_id,
                        chunk_index=message.chunk_index,
                        traceparent=message.traceparent,
                    ),
                )
            except BROKER_ERRORS as error:
                failure = error
                break
            session.delete(message)
            sent += 1
    if failure is not None:
        raise failure
    return sent


def cancel(session: Session, recording_id: uuid.UUID) -> bool:
    """End a recording that is not finished; False when it is, or when there is none.

    Messages about it find nothing to do, and what runs is discarded when it is stored.
    """
    ended = session.execute(
        update(Recording)
        .where(
            Recording.id == recording_id,
            Recording.status.in_((RecordingStatus.QUEUED, RecordingStatus.PROCESSING)),
        )
        .values(
            status=RecordingStatus.CANCELLED,
            finished_at=database_now(),
            lease_owner=None,
            lease_expires_at=None,
        )
        .returning(Recording.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if ended is None:
        return False
    session.execute(
        update(Chunk)
        .where(
            Chunk.recording_id == recording_id,
            Chunk.status.in_((ChunkStatus.PENDING, ChunkStatus.LEASED)),
        )
        .values(
            status=ChunkStatus.CANCELLED,
            finished_at=database_now(),
            lease_owner=None,
            lease_expires_at=None,
        )
        .execution_options(synchronize_session=False)
    )
    session.execute(delete(OutboxMessage).where(OutboxMessage.recording_id == recording_id))
    return True


def retry(session: Session, recording_id: uuid.UUID) -> bool:
    """Work on a failed or cancelled recording again; False when it is neither.

    It is cut again from its upload, for the audio of its chunks is gone; what is transcribed
    already stays. Its dead letters are settled.
    """
    begun = session.execute(
        update(Recording)
        .where(
            Recording.id == recording_id,
            Recording.status.in_((RecordingStatus.FAILED, RecordingStatus.CANCELLED)),
        )
        .values(
            status=RecordingStatus.QUEUED,
            # None would be stored as the JSON value null.
            speech=null(),
            attempts=0,
            turn=LAST_TURN,
            error_code=None,
            error_detail=None,
            finished_at=None,
        )
        .returning(Recording.traceparent)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if begun is None:
        return False
    session.execute(
        delete(Chunk)
        .where(Chunk.recording_id == recording_id, Chunk.status != ChunkStatus.DONE)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        update(DeadLetter)
        .where(DeadLetter.recording_id == recording_id, DeadLetter.settled_at.is_(None))
        .values(settled_at=database_now())
        .execution_options(synchronize_session=False)
    )
    post(session, Job(task=PREPARE, recording_id=recording_id, traceparent=begun.traceparent))
    return True


def make_redis(redis_url: str) -> redis.Redis:
    """A plain client of the broker that never waits longer than a second."""
    return redis.Redis.from_url(redis_url, socket_timeout=1, socket_connect_timeout=1)


def waiting_count(client: redis.Redis) -> int:
    """Messages nobody has taken, over all of kombu's priority lists."""
    return sum(int(client.llen(QUEUE + suffix)) for suffix in _PRIORITY_SUFFIXES)


def unacknowledged_count(client: redis.Redis) -> int:
    """Messages taken and not acknowledged; a dead worker's stay until the visibility time-out."""
    return int(client.hlen("unacked"))
