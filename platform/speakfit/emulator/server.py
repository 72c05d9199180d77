"""One emulator: store, clock, two servers and threads, started and stopped as one."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import uvicorn

from speakfit.clock import Clock, ManualClock, RealClock, ScaledClock, from_ns
from speakfit.emulator.backend import Backend
from speakfit.emulator.evaluation import Evaluator
from speakfit.emulator.grpc_front import RouteTableHandler
from speakfit.emulator.http_front import MAX_BODY, http_app
from speakfit.emulator.incidents import Incidents
from speakfit.emulator.notifier import Notifier
from speakfit.emulator.options import EmulatorOptions
from speakfit.emulator.pagerduty_endpoint import EmbeddedPagerDuty
from speakfit.emulator.seed import load as load_seed
from speakfit.emulator.store import Store
from speakfit.emulator.watchdog import Watchdog
from speakfit.errors import FailedPrecondition, InvalidArgument, SettingsError, StackError

_GRPC_THREADS = 512
"""A call holds its thread from its announcement on, so clients that never send their request must
not use them up. Threads are made when needed; how many work at once is the handler's limit."""
_MANUAL = "manualClockNs"
_START_SECONDS = 10.0


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; with it every answer on
    # a connection that is kept takes 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(128)
    except OSError as error:
        sock.close()
        raise StackError(
            f"The HTTP port cannot be used: {error.strerror}.",
            where=_address(host, port),
            todo="Stop what listens there, or choose another --http-port.",
        ) from error
    return sock


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _clock(store: Store, options: EmulatorOptions) -> Clock:
    """The clock of the data: scale and anchor are stored with it on the first start."""
    scale = options.time_scale
    if options.manual_clock:
        if scale != 1:
            raise SettingsError(
                "A clock that stands still cannot be scaled.",
                where="--manual-clock, --time-scale",
                todo="Choose one of them.",
            )
        return ManualClock(from_ns(store.fact(_MANUAL) or time.time_ns()))
    stored = store.fact("clock")
    if stored is None:
        now_ns = time.time_ns()
        stored = {"scale": scale, "anchorRealNs": now_ns, "anchorPolicyNs": now_ns}
        store.set_fact("clock", stored)
    if stored["scale"] != scale:
        raise SettingsError(
            f"The data was written at time scale {stored['scale']}, not {scale}.",
            where="--data-dir, --time-scale",
            todo=f"Use --time-scale {stored['scale']}, or name another --data-dir.",
        )
    if scale == 1:
        return RealClock()
    return ScaledClock(
        scale=scale,
        anchor_real_ns=stored["anchorRealNs"],
        anchor_policy_ns=stored["anchorPolicyNs"],
    )


class Emulator:
    """An embedded Cloud Monitoring with PagerDuty; a context manager for tests and tools.

    With a clock of its own (for instance a ManualClock) nothing is evaluated until
    `evaluate_now()` is called, unless `threads` asks for it.
    """

    def __init__(
        self,
        options: EmulatorOptions | None = None,
        *,
        clock: Clock | None = None,
        threads: bool | None = None,
    ) -> None:
        self.options = options or EmulatorOptions(port=0, http_port=0)
        self._given_clock = clock
        manual = clock is not None or self.options.manual_clock
        self._threads = not manual if threads is None else threads
        self.serving = False
        self._grpc: Any = None
        self._http: uvicorn.Server | None = None
        self._http_thread: threading.Thread | None = None
        self._socket: socket.socket | None = None
        self._store: Store | None = None
        self._parts: tuple[Evaluator | Notifier, ...] = ()

    def __enter__(self) -> Emulator:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve; StackError or SettingsError say what to do, and leave nothing running."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        options = self.options
        self._grpc = grpc.server(
            ThreadPoolExecutor(max_workers=_GRPC_THREADS, thread_name_prefix="grpc"),
            handlers=(RouteTableHandler(lambda: self.backend),),
            # Without this a second emulator would share the port instead of failing.
            options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_BODY)),
        )
        try:
            port = self._grpc.add_insecure_port(_address(options.host, options.port))
        except RuntimeError as error:
            raise StackError(
                "The gRPC port cannot be used.",
                where=_address(options.host, options.port),
                todo="Stop what listens there, or choose another --host-port.",
            ) from error
        self.grpc_address = _address(options.host, port)
        http_port = port + 1 if options.http_port is None else options.http_port
        self._socket = _bind(options.host, http_port)
        self.http_address = _address(options.host, self._socket.getsockname()[1])
        self._open()
        self._http = uvicorn.Server(
            uvicorn.Config(
                http_app(self),
                # httptools refuses verbs that it does not know, before Google's 405 could be given.
                http="h11",
                loop="asyncio",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._http_thread = threading.Thread(
            target=self._http.run, kwargs={"sockets": [self._socket]}, name="http", daemon=True
        )
        self._http_thread.start()
        self._grpc.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._http.started:
            if not self._http_thread.is_alive() or time.monotonic() > deadline:
                raise StackError(
                    "The HTTP server did not start.",
                    where=self.http_address,
                    todo="See the log above.",
                )
            time.sleep(0.005)
        self.serving = True
        self._run()

    def _open(self) -> None:
        """Make everything that stands behind the ports, from what is stored."""
        options = self.options
        self._store = store = Store(options.data_dir)
        self.clock = self._given_clock or _clock(store, options)
        self.pagerduty = EmbeddedPagerDuty(
            store=store, clock=self.clock, services=options.pagerduty_services
        )
        self.pagerduty.base_url = self.http_url
        self.backend = Backend(
            store=store,
            clock=self.clock,
            mails=options.mail is not None,
            descriptor_delay=options.descriptor_delay,
        )
        self.notifier = Notifier(
            store=store,
            events_url=options.pagerduty_events_url or self.http_url,
            mail=options.mail,
        )
        self.watchdog: Watchdog | None = None
        if options.watchdog is not None:
            self.watchdog = Watchdog(
                target=options.watchdog,
                interval=options.watchdog_interval,
                store=store,
                clock=self.clock,
                route=self.backend.channels.route,
                client_url=f"{self.http_url}/",
                notify=self.notifier.wake,
            )
        self.backend.channels.notify = (
            self.notifier.wake if self._threads else partial(self.notifier.deliver, patient=False)
        )
        self._incidents = Incidents(backend=self.backend, client_url=f"{self.http_url}/")
        self.evaluator = Evaluator(
            backend=self.backend,
            incidents=self._incidents,
            period=options.evaluation_period,
            watermark=options.watermark,
            retention=options.retention,
            notify=self.notifier.wake,
            watchdog=self.watchdog,
        )
        if options.seed is not None:
            load_seed(self.backend, options.seed)

    def _run(self) -> None:
        if self._threads:
            self._parts = (self.evaluator, self.notifier)
            for part in self._parts:
                part.start()

    def _rest(self) -> None:
        for part in self._parts:
            part.stop()
        self._parts = ()

    def reset(self, *, clock: Clock | None = None) -> None:
        """Empty a serving emulator in memory as if it had just been started, on the same ports.

        Nothing of before is kept, because everything behind the ports is made anew; calls still
        under way are answered UNAVAILABLE. `clock` takes the place of the one given at the start.
        FailedPrecondition for a data folder, which is kept.
        """
        old = self._store
        if old is None or old.durable:
            raise FailedPrecondition("Only a serving emulator without --data-dir can be reset.")
        self._rest()
        self._given_clock = clock or self._given_clock
        self._open()
        old.close()
        self._run()

    def stop(self) -> None:
        """Stop serving and close the store; calls under way get two seconds. Safe to repeat."""
        self.serving = False
        self._rest()
        if self._grpc is not None:
            self._grpc.stop(2).wait()
            self._grpc = None
        if self._http is not None and self._http_thread is not None:
            self._http.should_exit = True
            self._http_thread.join(timeout=5)
            self._http = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def http_url(self) -> str:
        """Base address of everything HTTP."""
        return f"http://{self.http_address}"

    def incidents(self) -> list[dict[str, Any]]:
        """All Cloud Monitoring incidents as JSON, newest first; times are policy time."""
        return self._incidents.documents()

    def advance(self, by: timedelta) -> int:
        """Move a clock that stands still, evaluate what fell due and deliver; how many times.

        FailedPrecondition when the clock runs by itself.
        """
        if not isinstance(self.clock, ManualClock):
            raise FailedPrecondition(
                "The clock runs by itself; start with --manual-clock to move it."
            )
        try:
            self.clock.advance(by)
        except (ValueError, OverflowError) as error:
            raise InvalidArgument.of_field("seconds", by, str(error)) from error
        self.backend.store.set_fact(_MANUAL, self.clock.now_ns())
        return self.evaluate_now()

    def evaluate_now(self) -> int:
        """Evaluate all times that are due, then try every queued notification once.

        Returns how many times were evaluated. For emulators without threads, and for tests.
        """
        count = self.evaluator.evaluate_due()
        self.notifier.deliver(patient=False)
        return count
