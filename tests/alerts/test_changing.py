"""docs/changing.md works as it stands: each of its commands runs, in its order."""

from __future__ import annotations

import re
import shlex

from speakfit.target import Target
from tests.alerts.conftest import ROOT, Run, live_policies
from tests.alerts.test_adopt import by_hand

PAGE = (ROOT / "docs" / "changing.md").read_text(encoding="utf-8")
LINES = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()
]


def test_the_page_on_changing_runs(target: Target, quick_alerts: Run) -> None:
    for line in LINES:
        wanted = re.search(r"# exits (\d)", line)
        python, dash_m, tool, *words = shlex.split(line, comments=True)
        assert [python, dash_m, tool] == ["python", "-m", "alerts"]
        if words[0] == "adopt":
            by_hand(target)
        done = quick_alerts(*words, "--emulator", str(target.host))
        assert done.returncode == (int(wanted[1]) if wanted else 0), f"{line}\n{done.stderr}"
    assert [one["displayName"] for one in live_policies(target).values()] == ["Workers are gone"]
