"""What a gate found, for people (one HTML page), machines (JSON) and CI (JUnit XML).

The page needs nothing but itself: no script, no font, no address of anybody else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from alerts.junit import Case, write_junit
from alerts.policies.api_latency import POLICIES as LATENCY
from loadtest.capacity import Sizes, capacity
from loadtest.contract import QUEUE_CRITICAL, QUEUE_WARNING, threshold
from loadtest.ledger import latency, percentile
from loadtest.timeline import draw
from loadtest.verdict import Judgement, Run, Verdict, leads
from speakfit.errors import LoadError

FORMAT = 1
_LONG_SECONDS = 300
"""Below it the growth of memory is only a warming up."""
PAGE, JSON_FILE, JUNIT_FILE = "gate.html", "gate.json", "gate.junit.xml"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the page shows, as JSON."""

    data: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        judgements: Sequence[Judgement],
        *,
        verdict: Verdict,
        target: str,
        began: float,
        seconds: float,
        seed: int,
        sizes: Sizes,
    ) -> Report:
        """The report on the runs of one gate."""
        runs = [judgement.run for judgement in judgements]
        return cls(
            data={
                "format": FORMAT,
                "verdict": verdict.value,
                "target": target,
                "at": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
                "seconds": round(seconds, 1),
                "seed": seed,
                "capacity": capacity(runs, sizes).as_json(),
                "runs": [_run(judgement) for judgement in judgements],
            }
        )

    @classmethod
    def read(cls, file: Path) -> Report:
        """A report written earlier; a LoadError for what is none."""
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if data["format"] == FORMAT:
                return cls(data=data)
            reason = f"it is of format {data['format']}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = type(error).__name__
        raise LoadError(
            f"The earlier report cannot be read: {reason}.",
            where=str(file),
            todo=f"Name a {JSON_FILE} that this command wrote.",
        )


def _run(judgement: Judgement) -> dict[str, Any]:
    run = judgement.run
    ledger = run.ledger
    at, stages = 0.0, []
    for stage in run.scenario.stages:
        stages.append({"name": stage.name, "at": at})
        at += stage.seconds / run.scale
    warning, critical = LATENCY
    return {
        "scenario": run.scenario.name,
        "what": run.scenario.what,
        "load": run.scenario.load,
        "verdict": judgement.verdict.value,
        "seconds": run.seconds,
        "scale": run.scale,
        "stages": stages,
        "checks": [check.as_json() for check in judgement.checks],
        "intended": ledger.intended,
        "begun": ledger.started,
        "dropped": ledger.dropped,
        "answered": ledger.answered,
        "failed": ledger.failures,
        "unanswered": sum(entry.unanswered for entry in ledger.entries.values()),
        "intended_latency": latency(ledger.total("intended")).as_json(),
        "service_latency": latency(ledger.total("service")).as_json(),
        "corrected_latency": latency(ledger.total("corrected")).as_json(),
        "schedule_lag": latency(ledger.lag).as_json(),
        "generator_processor": run.processor,
        "requests": {
            name: {
                **latency(entry.intended).as_json(),
                "failures": dict(entry.failures),
                "unanswered": entry.unanswered,
            }
            for name, entry in sorted(ledger.entries.items())
        },
        "slots": [
            {
                "at": second,
                "started": slot.started,
                "ok": slot.ok,
                "failed": slot.failed,
                **{f"p{share}": percentile(slot.latency, share) for share in (50, 95, 99)},
            }
            for second, slot in sorted(ledger.slots.items())
        ],
        "queue": [] if run.server is None else [list(one) for one in run.server.queue],
        "chunks": [] if run.server is None else [list(one) for one in run.server.chunks],
        "pages": [page.as_json() for page in run.pages],
        "leads": leads(run),
        "memory": _memory(run),
        "rules": {
            "latency": [
                [threshold(warning), f"warning {threshold(warning):g} s", "warning"],
                [threshold(critical), f"critical {threshold(critical):g} s", "critical"],
            ],
            "queue": [
                [threshold(QUEUE_WARNING), f"warning {threshold(QUEUE_WARNING):g}", "warning"],
                [threshold(QUEUE_CRITICAL), f"critical {threshold(QUEUE_CRITICAL):g}", "critical"],
            ],
        },
    }


def _memory(run: Run) -> dict[str, Any] | None:
    """First, last and slope of what the services hold; the first quarter warms up."""
    points = run.memory[len(run.memory) // 4 :]
    if run.seconds < _LONG_SECONDS or len(points) < 4:
        return None
    times = [at for at, _ in points]
    values = [value for _, value in points]
    middle = sum(times) / len(times)
    mean = sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in times)
    slope = sum((at - middle) * (value - mean) for at, value in points) / spread if spread else 0.0
    return {
        "first_bytes": values[0],
        "last_bytes": values[-1],
        "bytes_per_hour": round(slope * 3600),
    }


def write_report(report: Report, folder: Path, *, earlier: Report | None) -> Path:
    """Write all three; the page is the answer. A LoadError when the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JSON_FILE).write_text(
            json.dumps(report.data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        page = folder / PAGE
        page.write_text(render(report, earlier), encoding="utf-8")
    except OSError as error:
        raise LoadError(
            f"The report cannot be written: {error.strerror}.",
            where=str(folder),
            todo="Name another folder with --report.",
        ) from error
    write_junit(folder / JUNIT_FILE, junit_cases(report))
    return page


def junit_cases(report: Report) -> list[Case]:
    """One case a check, and one for the verdict: a gate of no scenario must not look passed."""
    cases = [
        Case(
            group=f"gate.{run['scenario']}",
            name=check["name"],
            seconds=run["seconds"] if number == 0 else 0.0,
            failure="" if check["passed"] else check["told"],
        )
        for run in report.data["runs"]
        for number, check in enumerate(run["checks"])
    ]
    verdict = report.data["verdict"]
    failure = "" if verdict == Verdict.GO else f"The verdict is {verdict}."
    return [*cases, Case(group="gate", name="verdict", failure=failure)]


def render(report: Report, earlier: Report | None) -> str:
    """The page."""
    data = report.data
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    verdict = data["verdict"]
    told = {
        "GO": "Every promise was kept, and both sides agree on it.",
        "NO-GO": "The measurement is sound; what it shows must not go live.",
        "INVALID": "This measurement proves nothing, neither good nor bad.",
    }[verdict]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(verdict)} - SpeakFit load gate</title><style>{style}</style></head>
<body><main>
<header class="{_kind(verdict)}"><p class="over">SpeakFit load gate</p>
<h1>{escape(verdict)}</h1><p class="lead">{escape(told)}</p>
<p class="facts">{escape(data["target"])} &middot; {escape(data["at"])} &middot;
{_minutes(data["seconds"])} &middot; seed {data["seed"]}</p></header>
{_figures(data)}
{_summary(data)}
{_comparison(data, earlier.data if earlier else None)}
{"".join(_section(run) for run in data["runs"])}
{_sizes(data)}
<footer>Latencies count from when a request was meant to begin. Failures are counted apart and
never thin out a latency. Percentiles keep three digits.</footer>
</main></body></html>
"""


def _kind(verdict: str) -> str:
    return verdict.lower().replace("-", "")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _ms(value: float | None) -> str:
    if value is None:
        return "&ndash;"
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.0f} ms"


def _figures(data: Mapping[str, Any]) -> str:
    found = data["capacity"]
    rate = found["requests_per_second"]
    over = "" if found["ceiling_reached"] else "at least "
    cards = (
        ("Requests", None if rate is None else f"{over}{rate:,.0f}/s", "before answers are slow"),
        ("Chunks", _number(found["chunks_per_minute"], "/min"), "with a queue never empty"),
        ("Users", _number(found["users"], ""), "as those of the people scenario"),
        (
            "Headroom",
            None if found["headroom"] is None else f"{found['headroom']:.0%}",
            "above the steady rate",
        ),
        ("Cheapest size", found["cheapest_size"], "that can do what was offered"),
    )
    return (
        '<section class="cards">'
        + "".join(
            f'<div class="card"><p>{escape(name)}</p><strong>{escape(value)}</strong>'
            f"<span>{escape(note)}</span></div>"
            for name, value, note in cards
            if value is not None
        )
        + "</section>"
    )


def _number(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:,.0f}{unit}"


def _summary(data: Mapping[str, Any]) -> str:
    rows = "".join(
        f'<tr><td><span class="pill {_kind(run["verdict"])}">{escape(run["verdict"])}</span></td>'
        f'<td><a href="#{escape(run["scenario"])}">{escape(run["scenario"])}</a></td>'
        f"<td>{run['begun']:,}</td><td>{run['failed']:,}</td>"
        f"<td>{_ms(run['intended_latency'].get('p50_ms'))}</td>"
        f"<td>{_ms(run['intended_latency'].get('p95_ms'))}</td>"
        f"<td>{_ms(run['intended_latency'].get('p99_ms'))}</td>"
        f"<td>{_ms(run['schedule_lag'].get('p99_ms'))}</td>"
        f"<td>{len(run['pages'])}</td></tr>"
        for run in data["runs"]
    )
    return (
        '<section><div class="scroll"><table><thead><tr><th></th><th>scenario</th><th>begun</th>'
        "<th>failed</th><th>p50</th><th>p95</th><th>p99</th><th>lag p99</th><th>pages</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div></section>"
    )


def _comparison(data: Mapping[str, Any], earlier: Mapping[str, Any] | None) -> str:
    if earlier is None:
        return ""
    before = {run["scenario"]: run for run in earlier["runs"]}
    rows = []
    for run in data["runs"]:
        then = before.get(run["scenario"])
        if then is None:
            continue
        cells = "".join(
            _change(run["intended_latency"].get(name), then["intended_latency"].get(name))
            for name in ("p50_ms", "p95_ms", "p99_ms")
        )
        rows.append(
            f"<tr><td>{escape(run['scenario'])}</td><td>{escape(then['verdict'])} &rarr; "
            f"{escape(run['verdict'])}</td>{cells}</tr>"
        )
    return (
        f"<section><h2>Compared with {escape(earlier['at'])}</h2>"
        '<div class="scroll"><table><thead><tr><th>scenario</th><th>verdict</th><th>p50</th>'
        f"<th>p95</th><th>p99</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _change(now: float | None, then: float | None) -> str:
    if not now or not then:
        return "<td>&ndash;</td>"
    share = now / then - 1
    # Below a tenth it is the machine's noise.
    kind = "" if abs(share) < 0.1 else "worse" if share > 0 else "better"
    return f'<td class="{kind}">{_ms(then)} &rarr; {_ms(now)} <small>{share:+.0%}</small></td>'


def _section(run: Mapping[str, Any]) -> str:
    checks = "".join(
        f'<li class="{"passed" if check["passed"] else "failed"}"><b>{escape(check["name"])}</b>'
        f"<span>{escape(check['told'])}</span></li>"
        for check in run["checks"]
    )
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{one['count']:,}</td>"
        f"<td>{sum(one['failures'].values()) + one['unanswered']:,}</td>"
        f"<td>{_ms(one.get('p50_ms'))}</td><td>{_ms(one.get('p95_ms'))}</td>"
        f"<td>{_ms(one.get('p99_ms'))}</td><td>{_ms(one['max_ms'])}</td></tr>"
        for name, one in run["requests"].items()
    )
    three = " &middot; ".join(
        f"{words} p95 {_ms(run[name].get('p95_ms'))}"
        for words, name in (
            ("intended", "intended_latency"),
            ("service", "service_latency"),
            ("corrected", "corrected_latency"),
        )
    )
    memory = run["memory"]
    grown = (
        ""
        if memory is None
        else f" &middot; services hold {memory['last_bytes'] / 2**20:,.0f} MiB, "
        f"{memory['bytes_per_hour'] / 2**20:+,.0f} MiB/h"
    )
    lead = "".join(
        f" &middot; {escape(subject)} warned "
        + ("and never became critical" if ahead is None else f"{_minutes(ahead)} before the page")
        for subject, ahead in run["leads"].items()
    )
    return f"""<section class="run" id="{escape(run["scenario"])}">
<h2><span class="pill {_kind(run["verdict"])}">{escape(run["verdict"])}</span>
{escape(run["scenario"])}</h2>
<p>{escape(run["what"])}</p><figure>{draw(run)}</figure>
<p class="facts">{three}{grown}{lead}</p>
<ul class="checks">{checks}</ul>
<details><summary>Requests by name</summary><div class="scroll"><table><thead><tr><th>request</th>
<th>answered</th><th>failed</th><th>p50</th><th>p95</th><th>p99</th><th>slowest</th></tr></thead>
<tbody>{rows}</tbody></table></div></details></section>"""


def _sizes(data: Mapping[str, Any]) -> str:
    sizes = data["capacity"]["sizes"]
    if not sizes:
        return ""
    rows = "".join(
        f"<tr><td>{escape(one['size'])}</td><td>${one['monthly_dollars']:,.0f}</td>"
        f"<td>{one['chunks_per_minute']:,.0f}</td>"
        f"<td>${one['dollars_per_1000_chunks']:,.2f}</td>"
        f"<td>{'yes' if one['passes'] else 'no'}</td></tr>"
        for one in sizes
    )
    return (
        "<section><h2>What it costs</h2><p>At the pace that one transcribing process had here, with"
        " all workers of a size busy all the time.</p>"
        '<div class="scroll"><table><thead><tr><th>size</th><th>a month</th><th>chunks/min</th>'
        "<th>1,000 chunks</th><th>does what was offered</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>"
    )
