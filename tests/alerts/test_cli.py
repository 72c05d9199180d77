"""What a transcript cannot show: late imports, a person's answer, runbooks rewritten."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

from alerts.commands.policies import policy_rows
from alerts.policies import CATALOG
from speakfit.emulator.server import Emulator
from speakfit.target import Target, alert_policy_client
from tests.alerts.conftest import KEYS, ROOT, Run


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


def on_terminal(answer: str, emulator: Emulator) -> tuple[int, str]:
    """`apply` as a person runs it: output and input are a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "alerts", "apply", "--emulator", emulator.grpc_address],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": "platform:.",
            "TERM": "xterm-256color",
            "GOOGLE_CLOUD_PROJECT": "speakfit-test",
            **{f"PAGERDUTY_ROUTING_KEY_{name.upper()}": key for name, key in KEYS.items()},
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    os.write(ours, answer.encode())
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break  # Linux ends a terminal whose other side has closed this way.
        if not part:
            break
        shown += part
    os.close(ours)
    return process.wait(timeout=60), shown.decode()


def test_apply_asks_on_a_terminal_and_a_no_changes_nothing(
    emulator: Emulator, target: Target
) -> None:
    code, shown = on_terminal("n\n", emulator)
    assert code == 5
    assert "Make these changes?" in shown
    assert "\x1b[32m" in shown, "creates are green on a terminal"
    client = alert_policy_client(target)
    assert list(client.list_alert_policies(name=target.project_name)) == []


def test_apply_asks_on_a_terminal_and_a_yes_applies(emulator: Emulator, target: Target) -> None:
    code, shown = on_terminal("y\n", emulator)
    assert code == 0, shown
    client = alert_policy_client(target)
    found = list(client.list_alert_policies(name=target.project_name))
    assert len(found) == len(CATALOG.policies)


def test_old_runbook_headers_are_found_and_rewritten(alerts: Run, tmp_path: Path) -> None:
    folder = tmp_path / "runbooks"
    shutil.copytree(ROOT / "runbooks", folder)
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
