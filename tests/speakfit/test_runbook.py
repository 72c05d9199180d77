"""Typed blocks are read as they are written, refused when they are not, and run as a whole."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from speakfit.errors import CatalogError
from speakfit.runbook import (
    BEGIN,
    END,
    Block,
    Kind,
    Language,
    Place,
    block_environment,
    parse_runbook,
    run_block,
)

PAGE = f"""# worker-down: nobody transcribes

{BEGIN}
above 1
{END}

## First minute

1. Which live?

   ```sql check workers-seen
   SELECT 1;
   ```

```bash fix restart-workers production
gcloud compute ${{GROUP:?the group}}
```

```text
no block
```
"""


def parse(text: str) -> tuple[Block, ...]:
    return parse_runbook("page", text, where="page.md").blocks


def test_a_page_is_its_typed_blocks_and_the_places_they_run_at() -> None:
    page = parse_runbook("worker-down", PAGE, where="worker-down.md")
    seen, restart = page.blocks
    assert (seen.language, seen.kind, seen.name) == (Language.SQL, Kind.CHECK, "workers-seen")
    assert (seen.place, seen.section, seen.line) == (Place.EVERYWHERE, "First minute", 11)
    assert seen.text == "SELECT 1;\n"
    assert restart.asks == {"GROUP": "the group"}
    assert page.at(Place.LOCAL) == (seen,)
    assert page.at(Place.PRODUCTION, Kind.FIX) == (restart,)
    assert page.anchors == ("worker-down-nobody-transcribes", "first-minute")


def test_the_digest_is_of_what_people_wrote() -> None:
    digest = parse_runbook("a", PAGE, where="").digest
    assert parse_runbook("a", PAGE.replace("above 1", "above 2"), where="").digest == digest
    assert parse_runbook("a", PAGE.replace("SELECT 1", "SELECT 2"), where="").digest != digest


@pytest.mark.parametrize(
    "opening",
    ["bash chek a", "bash check", "zsh check a", "bash check a nowhere", "bash check a local b",
     "bash check local", "bash check A_b"],
)  # fmt: skip
def test_a_block_that_is_written_wrongly_is_refused_with_its_line(opening: str) -> None:
    with pytest.raises(CatalogError, match="no typed block") as refused:
        parse(f"# a\n\n```{opening}\ntrue\n```\n")
    assert refused.value.where == "page.md:3"


def test_two_blocks_of_one_name_and_an_empty_one_are_refused() -> None:
    block = "```bash check a\ntrue\n```\n"
    with pytest.raises(CatalogError, match="Two blocks are named a"):
        parse(block + block)
    with pytest.raises(CatalogError, match="The block a is empty"):
        parse("```bash check a\n\n```\n")


def test_a_block_stops_at_its_first_failing_command() -> None:
    [block] = parse("```bash check a\necho one\nfalse | cat\necho two\n```\n")
    outcome = run_block(block, block_environment({}))
    assert (outcome.exit_code, outcome.output) == (1, "one\n")
    [block] = parse("```bash check a\necho ${WHO:?who it is}\n```\n")
    assert "who it is" in run_block(block, block_environment({})).output
    assert run_block(block, block_environment({"WHO": "you"})).output == "you\n"


def test_a_block_ends_with_all_its_processes_at_the_limit(tmp_path: Path) -> None:
    [block] = parse("```bash check a\necho $$ > $PIDS; sleep 60 & echo $! >> $PIDS; wait\n```\n")
    pids = tmp_path / "pids"
    environment = block_environment({"PIDS": str(pids)})
    outcome = run_block(block, environment, limit=timedelta(seconds=1))
    assert (outcome.exit_code, outcome.passed) == (124, False)
    deadline = time.monotonic() + 10
    left = [int(pid) for pid in pids.read_text("utf-8").split()]
    assert len(left) == 2
    while any(map(runs, left)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_local_environment_finds_psql() -> None:
    folders = block_environment({})["PATH"].split(os.pathsep)
    assert any((Path(folder) / "psql").exists() for folder in folders[:2])
