"""`make demo`: the whole loop on one machine, told as a time-line.

Speech goes in and a transcript comes out; the alerts are planned and applied; a worker is killed
in the middle of a recording; PagerDuty is paged with a runbook link; the worker returns, the
recording completes with nothing lost, and the page resolves itself; then a drill lets the runbook's
own blocks put another fault right. Any step that does not happen in time ends the demo with the
reason and exit code 1.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import requests
import typer
from rich.console import Console
from rich.markup import escape

from loadtest.drill import Passed, Play
from loadtest.drills import DRILLS
from loadtest.local_stack import find_stack
from loadtest.scene import scene_in
from loadtest.wording import minutes
from speakfit.clock import Clock
from speakfit.errors import SpeakFitError, StackError
from speakfit.metrics import METRICS
from speakfit.pagerduty import PagerDutyIncident, incidents
from speakfit.settings import Settings
from speakfit.target import STACK_FILE, metric_client, policy_clock, resolve_target
from speakfit_ops.stack import DEMO_FOLDER, ENDING_SIGNALS, Stack, loopback

SAMPLES = Path(__file__).parent / "samples"
TIME_SCALE = 20
"""Policy seconds per real second. The longest wait that does not scale, a worker's cold start of
about four seconds, is 80 s of policy time: under half of the shortest critical duration it could
trip (five minutes without a worker)."""

PAGE_LIMIT = timedelta(minutes=12)
RESOLVE_LIMIT = timedelta(minutes=12)
"""Policy time: five minutes of duration, the heartbeat's age, one export and one evaluation take
about eight; anything past twelve is a failure."""

DRILLED = "database-connections"
"""The shortest drill, and one whose runbook mends it with a statement of SQL."""

EXPECTED_POLICY = "worker-down-critical"
WORD_ERROR_LIMIT = 0.15
"""Above it something is lost or doubled; tiny.en makes 3 to 6 % on clean speech."""

LONG_COPIES = 8
_SAMPLE_RATE = 16_000
_POLL = 0.1

Answer = TypeVar("Answer")


@dataclass(kw_only=True)
class Story:
    """Prints the time-line and measures real and policy time."""

    console: Console
    began: float = field(default_factory=time.monotonic)
    figures: list[tuple[str, str]] = field(default_factory=list)

    def tell(self, text: str) -> None:
        """One line of the time-line."""
        self.console.print(f"[dim]{self._at()}[/]  {text}", soft_wrap=True)

    def detail(self, label: str, text: str) -> None:
        """What belongs to the line above: a label and its text, folded beside it.

        Words longer than the line, such as links, are left whole: they are there to be followed.
        """
        width = max(40, min(self.console.width, 100) - 24)
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        for count, line in enumerate(lines or [""]):
            head = label if count == 0 else ""
            self.console.print(
                f"{'':>8}  [dim]│[/] [bold]{head:<10}[/] {escape(line)}", soft_wrap=True
            )

    def figure(self, name: str, value: str) -> None:
        """Keep a figure for the end."""
        self.figures.append((name, value))

    def _at(self) -> str:
        return f"{time.monotonic() - self.began:6.1f} s"

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show on a terminal what is being waited for."""
        with self.console.status(f"[dim]{text}[/]"):
            yield


def until(
    what: str,
    look: Callable[[], Answer | None],
    limit: timedelta,
    *,
    stack: Stack,
    watch: bool = True,
) -> Answer:
    """Poll until `look` answers something; a StackError says what did not happen in time."""
    deadline = time.monotonic() + limit.total_seconds()
    while True:
        found = look()
        if found is not None:
            return found
        if watch:
            stack.check()
        if time.monotonic() > deadline:
            raise StackError(
                f"{what} did not happen within {limit.total_seconds():.0f} s.",
                where=f"logs in {stack.folder / 'logs'}",
                todo="Read the logs of the parts concerned.",
            )
        time.sleep(_POLL)


def known_text() -> str:
    """What is said in the default recording."""
    return " ".join(
        " ".join((SAMPLES / f"{name}.txt").read_text(encoding="utf-8").split())
        for name in ("austen", "kennedy")
    )


def write_speech(path: Path, copies: int) -> timedelta:
    """Write the default recording, `copies` times over with pauses between, as 16 kHz mono WAV."""
    import av

    pause = b"\0\0" * _SAMPLE_RATE
    speech = b""
    for name in ("austen", "kennedy"):
        with av.open(str(SAMPLES / f"{name}.flac")) as container:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=_SAMPLE_RATE)
            for frame in container.decode(audio=0):
                for part in resampler.resample(frame):
                    speech += part.to_ndarray().tobytes()
        speech += pause
    with wave.open(str(path), "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(_SAMPLE_RATE)
        output.writeframes(speech * copies)
    return timedelta(seconds=len(speech) * copies / 2 / _SAMPLE_RATE)


def word_error_rate(said: str, heard: str) -> float:
    """Share of words wrong, after the usual normalisation: case, punctuation, `Mr.` for Mister."""
    import jiwer

    plain = jiwer.Compose(
        [
            jiwer.ToLowerCase(),
            jiwer.SubstituteRegexes({r"-": " ", r"\bmr\b\.?": "mister", r"[^\w\s']": ""}),
            jiwer.RemoveMultipleSpaces(),
            jiwer.Strip(),
            jiwer.ReduceToListOfListOfWords(),
        ]
    )
    return float(jiwer.wer(said, heard, reference_transform=plain, hypothesis_transform=plain))


@dataclass(frozen=True, kw_only=True)
class Api:
    """The recordings API as a client sees it."""

    base: str
    session: requests.Session = field(default_factory=loopback)

    def upload(self, path: Path) -> str:
        """Send a recording; the id it was accepted under."""
        with path.open("rb") as audio:
            answer = self.session.post(
                f"{self.base}/v1/recordings", files={"file": (path.name, audio)}, timeout=60
            )
        if answer.status_code != 202:
            problem = answer.json()
            raise StackError(
                f"The recording was refused: {problem.get('detail') or problem.get('title')}",
                where=str(path),
                todo="Name another file with AUDIO=path.",
            )
        return str(answer.json()["id"])

    def status(self, recording: str) -> dict[str, Any]:
        """Status and progress."""
        answer = self.session.get(f"{self.base}/v1/recordings/{recording}", timeout=10)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body

    def completed(self, recording: str) -> dict[str, Any] | None:
        """The status once completed, None before; a StackError when it failed."""
        status = self.status(recording)
        if status["status"] == "failed":
            raise StackError(
                f"The recording failed: {status['error']}",
                where=f"recording {recording}",
                todo="Name another file with AUDIO=path, or read the worker's log.",
            )
        return status if status["status"] == "completed" else None

    def transcript(self, recording: str) -> dict[str, Any]:
        """Text, segments, words and coaching figures."""
        answer = self.session.get(f"{self.base}/v1/recordings/{recording}/transcript", timeout=10)
        answer.raise_for_status()
        body: dict[str, Any] = answer.json()
        return body


def alerts(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the alerts command against the stack, as a person would."""
    return subprocess.run(
        [sys.executable, "-m", "alerts", *arguments],
        env={**os.environ, **stack.environment, "NO_COLOR": "1", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def expect(done: subprocess.CompletedProcess[str], code: int, what: str) -> None:
    """A StackError when a command did not end as the story needs."""
    if done.returncode != code:
        raise StackError(
            f"{what} ended with exit code {done.returncode} instead of {code}.\n"
            + (done.stdout + done.stderr)[-2000:],
            where="python -m alerts",
            todo="Read its output above.",
        )


class Demo:
    """The story, step by step; each step leaves what the next one needs."""

    def __init__(self, *, stack: Stack, story: Story, audio: Path | None) -> None:
        self.stack = stack
        self.story = story
        self.audio = audio
        self.drilled: tuple[Passed, ...] = ()

    def play(self, *, drill: bool) -> None:
        """All steps in order; the first that fails raises and ends the story."""
        self.raise_stack()
        self.apply_alerts()
        self.transcribe()
        self.lose_worker()
        self.await_page()
        self.return_worker()
        self.await_resolve()
        if drill:
            self.drill()
        self.account()

    def raise_stack(self) -> None:
        """Everything up, on ports of its own."""
        with self.story.waiting("starting PostgreSQL, Valkey, Cloud Monitoring, API, worker"):
            self.stack.start(anew=True)
        target = resolve_target(
            Settings(),
            emulator=self.stack.environment["MONITORING_EMULATOR_HOST"],
            project=self.stack.environment["GOOGLE_CLOUD_PROJECT"],
        )
        self.clock: Clock = policy_clock(target)
        self.metrics = metric_client(target)
        self.project_name = target.project_name
        self.api = Api(base=f"http://127.0.0.1:{self.stack.ports.api}")
        key = self.stack.environment["SPEAKFIT_API_KEY"]
        self.api.session.headers["Authorization"] = f"Bearer {key}"
        self.console_url = f"http://127.0.0.1:{self.stack.ports.console}"
        self.story.tell("[green]✔[/] SpeakFit is up: database, queue, API, worker, monitoring")
        self.story.detail(
            "time",
            f"policy time runs {TIME_SCALE} times faster than the clock on the wall, so that "
            "unmodified five-minute alerts are seen to fire",
        )
        self.story.detail("console", f"{self.console_url}/")
        # A first visitor, so that request metrics exist before anything is planned.
        self.api.session.get(f"{self.api.base}/openapi.json", timeout=10).raise_for_status()
        with self.story.waiting("the first metrics"):
            until("The first export", self.exported, timedelta(seconds=30), stack=self.stack)
        self.story.tell(
            f"[green]✔[/] {len(METRICS)} metrics arrive, by the real exporter over the real gRPC"
        )

    def exported(self) -> bool | None:
        """True once every declared metric has been written."""
        found = self.metrics.list_metric_descriptors(name=self.project_name, timeout=10)
        return {metric.type for metric in METRICS} <= {each.type for each in found} or None

    def apply_alerts(self) -> None:
        """Plan, apply, and plan again: nothing left to change."""
        with self.story.waiting("python -m alerts plan"):
            planned = alerts(self.stack, "plan")
        expect(planned, 2, "alerts plan")
        self.story.tell("[green]✔[/] alerts planned: " + last_line(planned.stdout))
        applied = alerts(self.stack, "apply", "--auto-approve")
        expect(applied, 0, "alerts apply")
        self.story.tell("[green]✔[/] alerts applied: " + last_line(applied.stdout))
        again = alerts(self.stack, "plan")
        expect(again, 0, "the second alerts plan")
        self.story.tell("[green]✔[/] planned again: " + last_line(again.stdout))
        contract = alerts(self.stack, "contract", "--json")
        expect(contract, 0, "alerts contract")
        kept = json.loads(contract.stdout)
        self.story.tell(
            f"[green]✔[/] contract kept: all {kept['references']} references of the alerts are to "
            f"metrics, labels and units that the services really export"
        )

    def transcribe(self) -> None:
        """Real speech in, transcript out, beside the known text."""
        if self.audio is None:
            speech = self.stack.folder / "speech.wav"
            length = write_speech(speech, 1)
            self.story.tell(
                f"… uploading {length.total_seconds():.0f} s of speech: Austen, then Kennedy 1961"
            )
        else:
            speech = self.audio
            self.story.tell(f"… uploading {speech.name}")
        began = time.monotonic()
        recording = self.api.upload(speech)
        with self.story.waiting("transcribing"):
            until(
                "The transcript",
                lambda: self.api.completed(recording),
                timedelta(seconds=60) if self.audio is None else timedelta(minutes=30),
                stack=self.stack,
            )
        transcript = self.api.transcript(recording)
        self.story.tell(
            f"[green]✔[/] transcript after {time.monotonic() - began:.1f} s "
            f"({len(transcript['segments'])} segments, {count_words(transcript)} words with times)"
        )
        if self.audio is None:
            rate = word_error_rate(known_text(), transcript["text"])
            self.story.detail("said", known_text())
            self.story.detail("heard", transcript["text"].strip())
            self.story.detail("errors", f"{rate:.1%} of the words")
            self.story.figure("word error rate, 37 s of speech", f"{rate:.1%}")
            if rate > WORD_ERROR_LIMIT:
                raise StackError(
                    f"The word error rate is {rate:.1%}, more than {WORD_ERROR_LIMIT:.0%}.",
                    where="transcript of the default recording",
                    todo="Compare the two texts above.",
                )
        else:
            self.story.detail("heard", transcript["text"].strip())
        self.story.detail("coaching", coaching_line(transcript["coaching"]))

    def lose_worker(self) -> None:
        """SIGKILL in the middle of a second recording."""
        speech = self.stack.folder / "long.wav"
        length = write_speech(speech, LONG_COPIES)
        self.recording = self.api.upload(speech)
        self.story.tell(
            f"… uploading a second recording of {length.total_seconds() / 60:.1f} minutes"
        )

        def in_the_middle() -> dict[str, Any] | None:
            status = self.api.status(self.recording)
            done, total = status["chunks"]["done"], status["chunks"]["total"]
            return status["chunks"] if total and 2 <= done < total else None

        chunks = until(
            "Transcription of the second recording",
            in_the_middle,
            timedelta(seconds=60),
            stack=self.stack,
        )
        self.stack.kill("worker")
        self.killed_ns = self.clock.now_ns()
        self.story.tell(
            f"[red]✘[/] worker killed with SIGKILL: {chunks['done']} of {chunks['total']} "
            "chunks done"
        )

    def await_page(self) -> None:
        """The incident opens and PagerDuty receives the page."""
        with self.story.waiting("five minutes of policy time without a worker"):
            page = until(
                f"The page of {EXPECTED_POLICY}",
                lambda: self.page("triggered"),
                self.real(PAGE_LIMIT),
                stack=self.stack,
            )
        took = between(self.killed_ns, self.clock.now_ns())
        self.story.figure("SIGKILL to page, policy time", minutes(took))
        link = page.links[0].href if page.links else "none"
        self.story.tell(
            f"[red]☎[/] PagerDuty is paged, {minutes(took)} of policy time after the kill"
        )
        self.story.detail("summary", page.title)
        self.story.detail("severity", f"{page.severity}, urgency {page.urgency}")
        self.story.detail("service", page.service)
        self.story.detail("dedup key", page.dedup_key)
        self.story.detail("runbook", link)
        answer = self.api.session.get(link, timeout=10)
        if answer.status_code != 200:
            raise StackError(
                f"The runbook link answers {answer.status_code}.",
                where=link,
                todo="Add the runbook, or correct RUNBOOK_BASE_URL.",
            )

    def return_worker(self) -> None:
        """A new worker takes over what the dead one left."""
        self.stack.start_part("worker")
        with self.story.waiting("a new worker starts"):
            self.stack.wait_ready("worker")
        self.returned_ns = self.clock.now_ns()
        self.resolved_ns: int | None = None
        self.story.tell("[green]✔[/] a new worker is up")
        with self.story.waiting("the interrupted recording"):
            until(
                "Completion of the interrupted recording",
                self.completed_again,
                timedelta(seconds=90),
                stack=self.stack,
            )
        status = self.api.status(self.recording)["chunks"]
        transcript = self.api.transcript(self.recording)
        rate = word_error_rate(" ".join([known_text()] * LONG_COPIES), transcript["text"])
        self.story.tell(
            f"[green]✔[/] the interrupted recording is complete: {status['done']} of "
            f"{status['total']} chunks, word error rate {rate:.1%}"
        )
        self.story.figure("word error rate, interrupted recording", f"{rate:.1%}")
        if rate > WORD_ERROR_LIMIT:
            raise StackError(
                f"The word error rate of the interrupted recording is {rate:.1%}: words are "
                "lost or doubled.",
                where=f"recording {self.recording}",
                todo="Compare its transcript with the text of the samples.",
            )
        self.story.detail(
            "chunks", chunk_line(self.stack.environment["DATABASE_URL"], self.recording)
        )

    def await_resolve(self) -> None:
        """The incident resolves without anyone touching it."""
        with self.story.waiting("the page resolves itself"):
            resolved_ns = until(
                "The resolve", self.resolved, self.real(RESOLVE_LIMIT), stack=self.stack
            )
        took = between(self.returned_ns, resolved_ns)
        self.story.figure("worker back to resolve, policy time", minutes(took))
        self.story.tell(
            f"[green]✔[/] PagerDuty incident resolved, {minutes(took)} of policy time after the "
            "worker came back"
        )

    def drill(self) -> None:
        """One of the drills, as `python -m loadtest drill` plays all of them."""
        found = find_stack(self.stack.folder)
        assert found is not None
        chosen = DRILLS[DRILLED]
        self.story.tell(f"… a drill: {chosen.fault}")

        def tell(text: str, *, since: timedelta | None = None) -> None:
            self.story.detail("" if since is None else f"+{minutes(since)}", text)

        with self.story.waiting("the drill"), scene_in(found, threading.Event()) as scene:
            self.drilled = Play(drill=chosen, scene=scene, tell=tell).run()
        slowest = max(passed.detect for passed in self.drilled)
        self.story.figure("drill, fault to its last page, policy time", minutes(slowest))
        self.story.tell(
            "[green]✔[/] paged as declared, put right by the runbook's own blocks, resolved"
        )

    def account(self) -> None:
        """No other page came; the figures."""
        drilled = {passed.policy.id for passed in self.drilled}
        pages = [page for page in self.pages() if page.component not in drilled]
        if len(pages) != 1:
            raise StackError(
                f"{len(pages)} pages came instead of one{self._beside()}: "
                + "; ".join(page.component or page.title for page in pages),
                where=self.console_url,
                todo="Read the console's incidents; a false page is a fault of the policy.",
            )
        for part in self.stack.parts.values():
            self.story.figure(f"memory of {part.name}", f"{part.memory() / 2**20:.0f} MiB")
        self.story.tell(
            f"[green]✔[/] one page{self._beside()}, the right one; nobody else was woken"
        )
        self.story.console.print()
        for name, value in self.story.figures:
            self.story.console.print(f"{'':>8}  {name:<40} {value}")
        self.story.console.print()

    def _beside(self) -> str:
        return " beside the drill's" if self.drilled else ""

    def real(self, policy: timedelta) -> timedelta:
        """How long a stretch of policy time takes on the wall's clock."""
        return policy / TIME_SCALE

    def pages(self) -> list[PagerDutyIncident]:
        """All PagerDuty incidents, of any status."""
        return incidents(
            self.stack.environment["PAGERDUTY_API_URL"],
            self.stack.environment["PAGERDUTY_API_TOKEN"],
        )

    def page(self, status: str) -> PagerDutyIncident | None:
        """The expected page in a status, None while there is none."""
        for page in self.pages():
            if is_expected(page) and page.status == status:
                return page
        return None

    def completed_again(self) -> dict[str, Any] | None:
        """The interrupted recording's status once completed; the page may resolve before."""
        self.resolved()
        return self.api.completed(self.recording)

    def resolved(self) -> int | None:
        """The policy time at which the resolve was first seen, None before."""
        if self.resolved_ns is None and self.page("resolved"):
            self.resolved_ns = self.clock.now_ns()
        return self.resolved_ns


def is_expected(page: PagerDutyIncident) -> bool:
    """Whether a page is the one this story is about."""
    return page.component == EXPECTED_POLICY


def last_line(text: str) -> str:
    """The summary that a command ends with."""
    return text.strip().splitlines()[-1].strip()


def between(begin_ns: int, end_ns: int) -> timedelta:
    """The policy time from one instant to another."""
    return timedelta(microseconds=(end_ns - begin_ns) // 1000)


def count_words(transcript: dict[str, Any]) -> int:
    """How many words have times."""
    return sum(len(segment["words"]) for segment in transcript["segments"])


def coaching_line(coaching: dict[str, Any]) -> str:
    """The coaching figures in one line."""
    return (
        f"{coaching['words_per_minute']:.0f} words a minute, "
        f"{coaching['filler_words']['total']} filler words, {len(coaching['pauses'])} pauses"
    )


def chunk_line(database_url: str, recording: str) -> str:
    """What Postgres holds of a recording: every chunk once, however often it was delivered."""
    from sqlalchemy import create_engine, text

    engine = create_engine(database_url)
    try:
        with engine.connect() as connection:
            row = connection.execute(
                text(
                    "SELECT count(*), count(DISTINCT chunk_index),"
                    " count(*) FILTER (WHERE status = 'done'), sum(attempts)"
                    " FROM chunks WHERE recording_id = :recording"
                ),
                {"recording": recording},
            ).one()
    finally:
        engine.dispose()
    chunks, distinct, results, attempts = (int(value) for value in row)
    if not chunks == distinct == results:
        raise StackError(
            f"{chunks} chunks, {distinct} distinct, {results} with a result.",
            where=f"recording {recording}, table chunks",
            todo="Look for a chunk that was stored twice or not at all.",
        )
    again = attempts - chunks
    return f"{results} results for {chunks} chunks, none twice; {again} begun anew after the kill"


def interrupt(number: int, _frame: object) -> None:
    """Whatever ends the demo from outside ends it as Ctrl-C does: everything is stopped."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main(
    audio: Annotated[
        Path | None, typer.Option(help="A recording of your own instead of the sample.")
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Folder of the run's data and logs.")] = (
        STACK_FILE.parent / DEMO_FOLDER
    ),
    keep: Annotated[bool, typer.Option(help="Keep data and logs of the run.")] = False,
    drill: Annotated[bool, typer.Option(help="End with a drill of half a minute.")] = True,
) -> None:
    """Show the whole loop on this machine."""
    console = Console(highlight=False)
    story = Story(console=console)
    stack = Stack(folder=data_dir, time_scale=TIME_SCALE, say=story.tell)
    for number in ENDING_SIGNALS:
        signal.signal(number, interrupt)
    good = False
    try:
        if audio is not None and not audio.is_file():
            raise StackError(
                "The recording does not exist.",
                where=str(audio),
                todo="Name an audio file: make demo AUDIO=path.",
            )
        Demo(stack=stack, story=story, audio=audio).play(drill=drill)
        good = True
    except SpeakFitError as error:
        # Unbroken lines: a path can be copied whole.
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"\nThe demo failed: {error}", markup=False
        )
        sys.exit(1)
    except requests.RequestException as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"\nThe demo failed: a part of the stack did not answer: {error}", markup=False
        )
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("\ninterrupted; stopping")
        sys.exit(130)
    finally:
        stack.stop(remove=good and not keep)
    story.tell("everything is stopped; no process is left")


if __name__ == "__main__":
    typer.run(main)
