"""The SQL a woken person pastes runs on the schema as it is."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.exc import ProgrammingError

from speakfit.database import Table
from speakfit_ops.servers import postgres
from tests.runbooks.test_pages import FOLDER


def statements() -> list[tuple[str, str]]:
    """Every statement of every page; what needs a process id to be filled in is left out."""
    found = []
    for page in sorted(FOLDER.glob("*.md")):
        body = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```sql\n(.*?)```", body, re.DOTALL)
        inline = re.findall(r"`(SELECT [^`]*)`", body)
        for statement in ";".join([*blocks, *inline]).split(";"):
            if statement.strip() and "(PID)" not in statement:
                found.append((page.stem, statement.strip()))
    return found


def test_every_statement_runs_on_the_real_schema(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = postgres(tmp_path / "postgres", port)
    server.prepare()
    wrong = []
    with server.running(tmp_path / "postgres.log"):
        engine = create_engine(server.url)
        Table.metadata.create_all(engine)
        for page, statement in statements():
            with engine.begin() as connection:
                try:
                    connection.execute(text(statement))
                except ProgrammingError as error:
                    wrong.append(f"{page}: {statement}\n{error.orig}")
        engine.dispose()
    assert len(statements()) > 15
    assert not wrong, "\n".join(wrong)
