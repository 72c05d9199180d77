"""The SQL a woken person pastes runs on the schema as it is, and only reads where it says so."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from speakfit.database import Table
from speakfit.runbook import Language, block_environment, parse_runbook, run_block
from speakfit_ops.runbook.shelf import find_runbook, subjects
from speakfit_ops.servers import postgres


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder: Path = tmp_path_factory.mktemp("sql")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = postgres(folder / "postgres", port)
    server.prepare()
    with server.running(folder / "postgres.log"):
        engine = create_engine(server.url)
        Table.metadata.create_all(engine)
        engine.dispose()
        yield block_environment({"DATABASE_URL": server.url})


def test_every_statement_runs_on_the_real_schema(environment: dict[str, str]) -> None:
    blocks = [
        block
        for subject in subjects()
        for block in find_runbook(subject).blocks
        if block.language is Language.SQL
    ]
    wrong = []
    for block in {block.text: block for block in blocks}.values():
        outcome = run_block(block, environment)
        if "ERROR" in outcome.output:
            wrong.append(f"{block.name}: {outcome.output}")
    assert len(blocks) > 20
    assert not wrong, "\n".join(wrong)


def test_a_check_in_sql_cannot_change_anything(environment: dict[str, str]) -> None:
    page = "```sql {kind} {name}\nCREATE TABLE made (); DROP TABLE made;\n```\n"
    [check, fix] = parse_runbook(
        "a",
        page.format(kind="check", name="a") + page.format(kind="fix", name="b"),
        where="a.md",
    ).blocks
    refused = run_block(check, environment)
    assert (refused.passed, "read-only transaction" in refused.output) == (False, True)
    assert run_block(fix, environment).passed


@pytest.mark.parametrize(("answer", "holds"), [("true", True), ("false", False), ("NULL", False)])
def test_a_verify_in_sql_holds_when_it_says_so(
    environment: dict[str, str], answer: str, holds: bool
) -> None:
    [block] = parse_runbook("a", f"```sql verify a\nSELECT {answer};\n```\n", where="").blocks
    assert run_block(block, environment).passed is holds
