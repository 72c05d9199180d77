"""The console: one HTML page without scripts or assets, read anew every two seconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from speakfit.clock import from_ns

if TYPE_CHECKING:
    from speakfit.emulator.server import Emulator
    from speakfit.emulator.watchdog import Watchdog

_REFRESH_SECONDS = 2
_MAX_ROWS = 100

_STYLE = """
:root { color-scheme: light dark; --line: #d8dee4; --soft: #656d76; --card: #ffffff;
  --page: #f6f8fa; --text: #1f2328;
  --red: #cf222e; --amber: #9a6700; --green: #1a7f37; --blue: #0969da; }
@media (prefers-color-scheme: dark) { :root { --line: #30363d; --soft: #8b949e; --card: #161b22;
  --page: #0d1117; --text: #e6edf3; --red: #f85149; --amber: #d29922; --green: #3fb950;
  --blue: #58a6ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 24px 20px 48px; }
h1 { font-size: 20px; margin: 0; } h2 { font-size: 15px; margin: 28px 0 8px; }
h2 small { color: var(--soft); font-weight: normal; margin-left: 6px; }
.facts { display: flex; flex-wrap: wrap; gap: 4px 24px; color: var(--soft); margin-top: 6px; }
.facts b { color: var(--text); font-weight: 600; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 12px; }
th, td { padding: 8px 12px; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.time, th.time { white-space: nowrap; font-variant-numeric: tabular-nums; }
.empty { padding: 14px 12px; color: var(--soft); }
.sub { color: var(--soft); font-size: 12px; overflow-wrap: anywhere; }
.badge { display: inline-block; padding: 0 8px; border-radius: 10px; border: 1px solid;
  font-size: 12px; font-weight: 600; white-space: nowrap; }
.red { color: var(--red); } .amber { color: var(--amber); } .green { color: var(--green); }
.grey { color: var(--soft); }
a { color: var(--blue); }
"""

_STATE_COLOURS = {
    "firing": "red",
    "open": "red",
    "triggered": "red",
    "refused": "red",
    "acknowledged": "amber",
    "pending": "amber",
    "quiet": "green",
    "resolved": "green",
    "closed": "green",
    "critical": "red",
    "error": "red",
    "warning": "amber",
    "cannot be evaluated": "red",
    "not evaluated here": "amber",
    "partly evaluated": "amber",
}


def _badge(text: str) -> str:
    colour = _STATE_COLOURS.get(text.lower(), "grey")
    return f'<span class="badge {colour}">{escape(text)}</span>'


def _link(href: str, text: str) -> str:
    # Anything but http(s) could be a script; such an address is shown as text.
    if not href.lower().startswith(("http://", "https://")):
        return f"{escape(text)} <span class=sub>{escape(href)}</span>"
    return f'<a href="{escape(href)}" rel="noreferrer">{escape(text)}</a>'


def _clock_text(ns: int) -> str:
    return from_ns(ns).strftime("%Y-%m-%d %H:%M:%S")


def _sub(text: str) -> str:
    return f'<div class="sub">{escape(text)}</div>' if text else ""


def _table(heads: Iterable[str], rows: list[list[str]], *, empty: str) -> str:
    """Cells are HTML; heads that begin with `@` are columns of times."""
    if not rows:
        return f'<div class="card"><div class="empty">{escape(empty)}</div></div>'
    columns = [(head.lstrip("@"), ' class="time"' if head[:1] == "@" else "") for head in heads]
    head = "".join(f"<th{kind}>{escape(text)}</th>" for text, kind in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{cell}</td>" for cell, (_text, kind) in zip(row, columns, strict=True)
        )
        + "</tr>"
        for row in rows[:_MAX_ROWS]
    )
    return f'<div class="card"><table><thead><tr>{head}</tr></thead>{body}</table></div>'


def _policy_rows(emulator: Emulator, firing: Mapping[str, int]) -> list[list[str]]:
    rows = []
    for name, spec, changed_ns in emulator.backend.policies.specs():
        policy = emulator.backend.policies.policy(name)
        if policy is None:
            continue
        if not policy.enabled.value:
            state = "disabled"
        elif name in emulator.evaluator.failed:
            state = "cannot be evaluated"
        elif firing.get(name):
            state = "firing"
        elif spec is None or not any(condition.evaluated for condition in spec.conditions):
            state = "not evaluated here"
        elif not spec.evaluated:
            state = "partly evaluated"
        else:
            state = "quiet"
        severity = spec.severity.value if spec is not None else ""
        if severity.endswith("UNSPECIFIED"):
            severity = ""
        conditions = "".join(_sub(condition.display_name) for condition in policy.conditions)
        rows.append(
            [
                _badge(state),
                _badge(severity.lower()) if severity else "",
                f"{escape(policy.display_name)}{conditions}",
                escape(policy.user_labels.get("alert-id", "")),
                escape(_clock_text(changed_ns)),
            ]
        )
    return rows


def _incident_rows(incidents: list[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for incident in incidents:
        started, ended = int(incident["startedNs"]), incident["endedNs"]
        until = f"{_clock_text(int(ended))} {incident['closeReason']}" if ended else ""
        rows.append(
            [
                _badge(incident["state"]),
                f"{escape(incident['policyDisplayName'])}{_sub(incident['summary'])}",
                escape(_clock_text(started)),
                escape(until),
                f'<span class="sub">{escape(incident["id"])}</span>',
            ]
        )
    return rows


def _page_rows(pages: list[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for page in pages:
        event = page["event"]
        payload = event["payload"]
        links = "<br>".join(
            _link(str(link["href"]), str(link.get("text") or link["href"]))
            for link in event.get("links") or ()
        )
        rows.append(
            [
                _badge(page["status"]),
                _badge(payload["severity"]),
                f"{escape(payload['summary'])}{_sub(payload['source'])}",
                f"{escape(page['service_name'])}{_sub(page['urgency'] + ' urgency')}",
                links,
                escape(page["created_at"]),
                escape(page["resolved_at"] or ""),
            ]
        )
    return rows


def _queue_rows(emulator: Emulator) -> list[list[str]]:
    return [
        [
            _badge(one.state),
            escape(one.incident),
            str(one.attempts),
            escape(one.error),
        ]
        for one in emulator.notifier.queue()
        if one.state != "sent"
    ]


def _fact(name: str, value: str) -> str:
    return f"<span>{escape(name)} <b>{escape(value)}</b></span>"


def _watched(watchdog: Watchdog) -> str:
    told = "" if watchdog.told_ns is None else f"told of {_clock_text(watchdog.told_ns)}"
    silent = f"silent: {watchdog.problem}" if watchdog.problem else ""
    return ", ".join(filter(None, (silent, told))) or "not told yet"


def console_page(emulator: Emulator) -> str:
    """Policies, incidents and pages as HTML; times are policy time, UTC."""
    incidents = emulator.incidents()
    opened = [incident for incident in incidents if incident["state"] == "open"]
    closed = [incident for incident in incidents if incident["state"] != "open"]
    firing: dict[str, int] = {}
    for incident in opened:
        firing[incident["policyName"]] = firing.get(incident["policyName"], 0) + 1
    series, points = emulator.backend.points.count()
    last_ns = emulator.evaluator.last_ns
    lag = (emulator.clock.now_ns() - (last_ns or 0)) // 1_000_000_000
    facts = [
        _fact("policy time", _clock_text(emulator.clock.now_ns()) + " UTC"),
        _fact("time scale", f"x{emulator.clock.scale:g}"),
        _fact("evaluated up to", f"{lag} s ago" if last_ns else "not yet"),
        _fact("series", f"{series:,}"),
        _fact("points", f"{points:,}"),
        _fact("gRPC", emulator.grpc_address),
        _fact("HTTP", emulator.http_address),
    ]
    if emulator.watchdog is not None:
        facts.append(_fact(f"watchdog to {emulator.watchdog.target}", _watched(emulator.watchdog)))
    sections = [
        (
            "Pages",
            "what PagerDuty received",
            _table(
                ("State", "Severity", "Summary", "Service", "Links", "@Triggered", "@Resolved"),
                _page_rows(emulator.pagerduty.pages()),
                empty="Nobody was paged.",
            ),
        ),
        (
            "Open incidents",
            "",
            _table(
                ("State", "Policy", "@Started", "@Ended", "Id"),
                _incident_rows(opened),
                empty="No incident is open.",
            ),
        ),
        (
            "Policies",
            "",
            _table(
                ("State", "Severity", "Policy", "Alert id", "@Changed"),
                _policy_rows(emulator, firing),
                empty="No policy was applied yet.",
            ),
        ),
        (
            "Closed incidents",
            "",
            _table(
                ("State", "Policy", "@Started", "@Ended", "Id"),
                _incident_rows(closed),
                empty="No incident has closed.",
            ),
        ),
    ]
    waiting = _queue_rows(emulator)
    if waiting:
        sections.insert(
            0,
            (
                "Notifications not delivered",
                "they are tried again until PagerDuty takes them, unless refused",
                _table(("State", "Incident", "Attempts", "Error"), waiting, empty=""),
            ),
        )
    body = "".join(
        f"<h2>{escape(title)}<small>{escape(note)}</small></h2>{table}"
        for title, note, table in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Cloud Monitoring emulator</title><style>{_STYLE}</style></head><body><main>"
        f'<h1>Cloud Monitoring emulator</h1><div class="facts">{"".join(facts)}</div>'
        f"{body}</main></body></html>"
    )
