"""What a transcript cannot show: late imports, a person's answer, runbooks rewritten."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from alerts.commands.policies import policy_rows
from alerts.gateway import Gateway
from alerts.policies import CATALOG
from speakfit.target import Target, alert_policy_client
from tests.alerts.conftest import KEYS, ROOT, Run, apply, edit, live_policies

QUESTIONS = (b"[y/N]:", b"to delete all this:")


def test_help_waits_for_no_heavy_library() -> None:
    heavy = {"google", "grpc", "numpy", "pydantic", "lark", "sqlalchemy"}
    done = subprocess.run(
        [sys.executable, "-c", "import sys, alerts.cli; print(*sys.modules)"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "platform:."},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert not heavy & set(done.stdout.split())


def test_a_shell_completes_commands_and_policies() -> None:
    def completed(*words: str) -> list[str]:
        done = subprocess.run(
            [Path(sys.executable).parent / "speakfit-alerts"],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": "platform:.",
                "_SPEAKFIT_ALERTS_COMPLETE": "complete_bash",
                "COMP_WORDS": " ".join(words),
                "COMP_CWORD": str(len(words) - 1),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout.split()

    assert completed("speakfit-alerts", "sh") == ["show"]
    assert completed("speakfit-alerts", "show", "worker") == ["worker-down-critical"]


def on_terminal(
    answer: str, target: Target, *words: str, meanwhile: Callable[[], object] = lambda: None
) -> tuple[int, str]:
    """A command as a person runs it: output and input are a terminal.

    The answer comes when a question has been asked, and `meanwhile` before it.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "alerts", *words, "--emulator", str(target.host)],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": "platform:.",
            "TERM": "xterm-256color",
            "GOOGLE_CLOUD_PROJECT": target.project,
            **{f"PAGERDUTY_ROUTING_KEY_{name.upper()}": key for name, key in KEYS.items()},
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown, asked = b"", False
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break  # Linux ends a terminal whose other side has closed this way.
        if not part:
            break
        shown += part
        if not asked and shown.rstrip().endswith(QUESTIONS):
            asked = True
            meanwhile()
            os.write(ours, answer.encode())
    os.close(ours)
    return process.wait(timeout=60), shown.decode()


def test_apply_asks_on_a_terminal_and_a_no_changes_nothing(target: Target) -> None:
    code, shown = on_terminal("n\n", target, "apply")
    assert code == 5
    assert "Make these changes?" in shown
    assert "\x1b[32m" in shown, "creates are green on a terminal"
    client = alert_policy_client(target)
    assert list(client.list_alert_policies(name=target.project_name)) == []


def test_apply_asks_on_a_terminal_and_a_yes_applies(target: Target) -> None:
    code, shown = on_terminal("y\n", target, "apply")
    assert code == 0, shown
    client = alert_policy_client(target)
    found = list(client.list_alert_policies(name=target.project_name))
    assert len(found) == len(CATALOG.policies)


def test_what_is_edited_while_a_person_reads_the_plan_is_not_overwritten(
    target: Target, gateway: Gateway
) -> None:
    apply(gateway)
    edit(target, "worker-down-critical", lambda policy: setattr(policy, "enabled", False))

    def meanwhile() -> None:
        edit(target, "queue-depth-warning", lambda policy: setattr(policy, "enabled", False))

    before = live_policies(target)
    code, shown = on_terminal("y\n", target, "apply", meanwhile=meanwhile)
    assert code == 5
    assert "policy queue-depth-warning was edited by" in shown
    after = live_policies(target)
    assert sum(before[name] != after[name] for name in before) == 1, "only the edit itself"


def test_destroy_wants_the_name_typed_out(target: Target, gateway: Gateway) -> None:
    apply(gateway)
    code, shown = on_terminal("speakfi\n", target, "destroy")
    assert (code, len(live_policies(target))) == (5, len(CATALOG.policies))
    assert "Type speakfit to delete all this" in shown
    code, shown = on_terminal("speakfit\n", target, "destroy")
    assert (code, live_policies(target)) == (0, {}), shown


def test_old_runbook_headers_are_found_and_rewritten(alerts: Run, tmp_path: Path) -> None:
    folder = tmp_path / "runbooks"
    shutil.copytree(ROOT / "runbooks", folder)
    # The headers tell what the drills took.
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "drills.json", tmp_path / "docs")
    page = folder / "worker-down.md"
    current = page.read_text(encoding="utf-8")
    page.write_text(current.replace("below 1 for 5 min", "below 1 for 9 min"), encoding="utf-8")
    assert alerts("runbooks").returncode == 3
    assert alerts("runbooks", "--write").returncode == 0
    assert page.read_text(encoding="utf-8") == current
    assert alerts("runbooks").returncode == 0
    page.unlink()
    missing = alerts("runbooks")
    assert missing.returncode == 1
    assert "The runbook of worker-down-critical is not there." in missing.stderr


def test_documents_can_print_every_policy() -> None:
    rows = policy_rows()
    assert len(rows) == len(CATALOG.policies)
    assert (
        "`worker-down-critical`",
        "critical",
        "live transcription workers below 1 for 5 min",
    ) in rows
