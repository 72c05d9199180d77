"""Every encoder makes what PostgreSQL itself makes, told by PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.migrate.target import count_and_sum
from services.migrate.values import encoder
from tests.new_postgres import new_postgres

BERLIN = ZoneInfo("Europe/Berlin")

SAME: dict[str, list[tuple[Any, Any]]] = {
    "smallint": [(-(2**15), -(2**15)), (2**15 - 1, 2**15 - 1)],
    "integer": [(-(2**31), -(2**31)), (0, 0)],
    "bigint": [(-(2**63), -(2**63)), (2**63 - 1, 2**63 - 1)],
    "double precision": [(0.1, 0.1), (7, 7.0), (5e-324, 5e-324), (float("-inf"), float("-inf"))],
    "boolean": [(0, False), (1, True)],
    "text": [("", ""), ("Grüße 🎤\n", "Grüße 🎤\n"), (12, "12"), (0.1, "0.1")],
    "character varying(4)": [("äöüß", "äöüß"), ("ab  ", "ab  ")],
    "uuid": [
        ("0123456789abcdefABCDEF9876543210", uuid.UUID("0123456789abcdefabcdef9876543210")),
        ("01234567-89ab-cdef-abcd-ef9876543210", uuid.UUID("0123456789abcdefabcdef9876543210")),
        (b"\x01" * 16, uuid.UUID(bytes=b"\x01" * 16)),
    ],
    "timestamp with time zone": [
        ("2026-07-01 12:00:00.000001", datetime(2026, 7, 1, 10, 0, 0, 1, tzinfo=UTC)),
        ("2026-01-01T12:00:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("1969-12-31 23:00:00-05:30", datetime(1970, 1, 1, 4, 30, tzinfo=UTC)),
        ("2026-01-02 03:04:05.678901000", datetime(2026, 1, 2, 2, 4, 5, 678901, tzinfo=UTC)),
    ],
    "timestamp without time zone": [("0001-01-01 00:00:00", datetime(1, 1, 1))],
    "date": [("2024-02-29", date(2024, 2, 29)), ("0001-01-01", date(1, 1, 1))],
    "time without time zone": [("23:59:59.999999", time(23, 59, 59, 999999))],
    "json": [('{"a" : [1, null]}', {"a": [1, None]}), (5, 5), ('"\\u00fc"', "ü")],
    "bytea": [(b"", b""), (b"\x00\xff", b"\x00\xff")],
    "numeric": [("0.00010", Decimal("0.00010")), (0.1, Decimal("0.1")), (10**20, Decimal(10**20))],
    "numeric(60,2)": [("7" * 58, Decimal("7" * 58))],
    "numeric(6,2)": [(12.5, Decimal("12.50")), (-9999.99, Decimal("-9999.99")), (0, Decimal(0))],
}


@pytest.fixture(scope="module")
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection whose every table is thrown away."""
    with (
        new_postgres(database_url) as url,
        psycopg.connect(url.replace("+psycopg", "")) as connection,
    ):
        yield connection


def stored(connection: psycopg.Connection[Any], kind: str, values: list[Any]) -> list[Any]:
    """What PostgreSQL has after our COPY, and the same as it makes of its own text."""
    encode = encoder(kind, required=False, zone=BERLIN)
    assert encode is not None
    connection.execute(f"CREATE TEMP TABLE ours (at serial, v {kind}) ON COMMIT DROP")
    with connection.cursor().copy("COPY ours (v) FROM STDIN (FORMAT BINARY)") as copy:
        fields = b"".join(b"\x00\x01" + encode(value) for value in values)
        copy.write(b"PGCOPY\n\xff\r\n\x00" + bytes(8) + fields + b"\xff\xff")
    connection.execute(
        f"CREATE TEMP TABLE own ON COMMIT DROP AS SELECT at, v::text::{kind} FROM ours"
    )
    sums = [count_and_sum(connection, "pg_temp", name, {"v": kind}) for name in ("ours", "own")]
    found = [row[0] for row in connection.execute("SELECT v FROM ours ORDER BY at").fetchall()]
    connection.rollback()
    assert sums[0] == sums[1]
    return found


@pytest.mark.parametrize("kind", SAME)
def test_what_is_sent_is_what_is_stored(connection: psycopg.Connection[Any], kind: str) -> None:
    values = [value for value, _ in SAME[kind]]
    assert stored(connection, kind, [*values, None]) == [
        *(wanted for _, wanted in SAME[kind]),
        None,
    ]


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
@example(
    [Decimal("1E+30"), Decimal("-0.0"), Decimal("1E-30"), Decimal("10000"), Decimal("9999.9999")]
)
def test_any_decimal_arrives_digit_by_digit(
    connection: psycopg.Connection[Any], numbers: list[Decimal]
) -> None:
    numbers = [number for number in numbers if abs(number.adjusted()) < 1_000]
    written = [format(number, "f") for number in numbers]
    found = stored(connection, "numeric", [str(number) for number in numbers])
    assert [format(number.copy_abs(), "f") for number in found] == [
        one.lstrip("-") for one in written
    ]
    assert found == numbers
