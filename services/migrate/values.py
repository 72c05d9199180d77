"""What a value of SQLite becomes in PostgreSQL, to the last byte, or why it cannot become it.

SQLite keeps any value in any column; PostgreSQL does not. Each encoder here makes one field of
PostgreSQL's binary COPY format: a length and the bytes that the type's own `..._send` function
answers with. So what is sent can be compared with what is stored without trusting any text form.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime, time, tzinfo
from decimal import Context, Decimal, InvalidOperation
from typing import Any
from zoneinfo import ZoneInfo

Encoder = Callable[[Any], bytes]

NULL = b"\xff\xff\xff\xff"

_INT2, _INT4, _INT8 = struct.Struct(">ih"), struct.Struct(">ii"), struct.Struct(">iq")
_FLOAT8 = struct.Struct(">id")
_BOOL = {0: b"\x00\x00\x00\x01\x00", 1: b"\x00\x00\x00\x01\x01"}
_LENGTH = struct.Struct(">i")
_LONGEST = 2**30 - 2**16
"""PostgreSQL takes no field, and no whole row, of 1 GiB."""
_EXACT = Context(prec=200_000)
"""Python's usual context rounds to 28 digits, and so does abs()."""
_EPOCH_NAIVE = datetime(2000, 1, 1)
_EPOCH = _EPOCH_NAIVE.replace(tzinfo=UTC)
_EPOCH_DAY = date(2000, 1, 1).toordinal()


class MisfitError(Exception):
    """A value that the column of PostgreSQL cannot hold as it is; says why in a few words."""


class Undecodable(bytes):
    """Text of SQLite that is not UTF-8."""


def text_or_undecodable(raw: bytes) -> str | Undecodable:
    """For sqlite3's text_factory, which would else fail on the whole row."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Undecodable(raw)


def encoder(kind: str, *, required: bool, zone: tzinfo) -> Encoder | None:
    """The encoder for a type as PostgreSQL's format_type names it; None for one not known.

    `zone` is what points in time without a zone are taken to be in.
    """
    encode = _of_kind(kind, zone)
    if encode is None:
        return None

    def nullable(value: Any) -> bytes:
        return NULL if value is None else encode(value)

    def needed(value: Any) -> bytes:
        if value is None:
            raise MisfitError("is empty, but must be given")
        return encode(value)

    return needed if required else nullable


def zone_named(name: str) -> tzinfo:
    """A time zone; UTC also where no time zone data is installed. Raises KeyError,
    OSError or ValueError for what is none."""
    return UTC if name == "UTC" else ZoneInfo(name)


def send_function(kind: str) -> str:
    """PostgreSQL's function that answers with the same bytes, without the length."""
    return _SEND[_base(kind)]


def _base(kind: str) -> str:
    """`character varying(16)` without its length."""
    return re.sub(r"\(.*?\)", "", kind)


def _limits(kind: str) -> list[int]:
    found = re.search(r"\((.*?)\)", kind)
    return [int(part) for part in found[1].split(",")] if found else []


def _of_kind(kind: str, zone: tzinfo) -> Encoder | None:
    base, limits = _base(kind), _limits(kind)
    if base == "character varying" and limits:
        return _varchar(limits[0])
    if base == "numeric":
        return _numeric(*limits)
    if base == "timestamp with time zone":
        return _instant(zone)
    return _PLAIN.get(base)


def _field(raw: bytes) -> bytes:
    if len(raw) > _LONGEST:
        raise MisfitError("is larger than the gigabyte that PostgreSQL takes")
    return _LENGTH.pack(len(raw)) + raw


def _storage(value: Any) -> str:
    if isinstance(value, Undecodable):
        return "text that is not UTF-8"
    names = {str: "text", bytes: "a blob", int: "a whole number", float: "a fraction"}
    return names.get(type(value), type(value).__name__)


def _wrong(value: Any, wanted: str) -> MisfitError:
    return MisfitError(f"is {_storage(value)}, not {wanted}")


def _integer(packer: struct.Struct, size: int) -> Encoder:
    def encode(value: Any) -> bytes:
        if type(value) is not int:
            raise _wrong(value, "a whole number")
        try:
            return packer.pack(size, value)
        except struct.error:
            raise MisfitError(f"is a whole number beyond {size * 8} bits") from None

    return encode


def _float(value: Any) -> bytes:
    if type(value) is int:
        if abs(value) > 2**53 and int(float(value)) != value:
            raise MisfitError("is a whole number that a fraction cannot hold exactly")
    elif type(value) is not float:
        raise _wrong(value, "a number")
    return _FLOAT8.pack(8, value)


def _boolean(value: Any) -> bytes:
    if type(value) is int and value in _BOOL:
        return _BOOL[value]
    if type(value) is int:
        raise MisfitError("is a whole number other than 0 and 1, not true or false")
    raise _wrong(value, "0 or 1")


def _characters(value: Any) -> str:
    """A number in a text column is its digits; the shortest that read back as the same number."""
    if type(value) is str:
        if "\x00" in value:
            raise MisfitError("holds a NUL character, which PostgreSQL cannot store")
        return value
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return repr(value)
    raise _wrong(value, "text")


def _text(value: Any) -> bytes:
    return _field(_characters(value).encode())


def _varchar(longest: int) -> Encoder:
    def encode(value: Any) -> bytes:
        characters = _characters(value)
        if len(characters) > longest:
            raise MisfitError(f"is {len(characters)} characters long, {longest} fit")
        return _field(characters.encode())

    return encode


def _uuid(value: Any) -> bytes:
    raw = value
    if type(value) is str:
        digits = value if len(value) == 32 else _DASHED.sub(r"\1\2\3\4\5", value)
        try:
            raw = bytes.fromhex(digits)
        except ValueError:
            raw = b""
    if type(raw) is not bytes or len(raw) != 16 or (type(value) is str and len(digits) != 32):
        raise MisfitError(f"is {_storage(value)} that is no UUID")
    return b"\x00\x00\x00\x10" + raw


_DASHED = re.compile(r"^(\w{8})-(\w{4})-(\w{4})-(\w{4})-(\w{12})$")
_TOO_FINE = re.compile(r"\.\d{6}\d*[1-9]")


def _moment(value: Any) -> datetime:
    if type(value) is not str:
        raise _wrong(value, "a date and time as ISO 8601 text")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise MisfitError("is text that is no date and time of the calendar") from None
    if len(value) > 26 and _TOO_FINE.search(value):
        raise MisfitError("is finer than the microsecond that PostgreSQL keeps")
    return moment


def _instant(zone: tzinfo) -> Encoder:
    def encode(value: Any) -> bytes:
        moment = _moment(value)
        if moment.tzinfo is not None:
            past = moment - _EPOCH
        elif zone is UTC:
            past = moment - _EPOCH_NAIVE
        else:
            past = moment.replace(tzinfo=zone) - _EPOCH
        seconds = past.days * 86_400 + past.seconds
        return _INT8.pack(8, seconds * 1_000_000 + past.microseconds)

    return encode


def _naive_moment(value: Any) -> bytes:
    moment = _moment(value)
    if moment.tzinfo is not None:
        raise MisfitError("has a time zone, which the column does not keep")
    past = moment - _EPOCH_NAIVE
    return _INT8.pack(8, (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds)


def _day(value: Any) -> bytes:
    if type(value) is not str:
        raise _wrong(value, "a date as ISO 8601 text")
    try:
        return _INT4.pack(4, date.fromisoformat(value).toordinal() - _EPOCH_DAY)
    except ValueError:
        raise MisfitError("is text that is no date of the calendar") from None


def _time_of_day(value: Any) -> bytes:
    if type(value) is not str:
        raise _wrong(value, "a time of day as ISO 8601 text")
    try:
        at = time.fromisoformat(value)
    except ValueError:
        raise MisfitError("is text that is no time of day") from None
    if at.tzinfo is not None:
        raise MisfitError("has a time zone, which the column does not keep")
    if _TOO_FINE.search(value):
        raise MisfitError("is finer than the microsecond that PostgreSQL keeps")
    seconds = (at.hour * 60 + at.minute) * 60 + at.second
    return _INT8.pack(8, seconds * 1_000_000 + at.microsecond)


def _no_constant(name: str) -> Any:
    raise MisfitError(f"is JSON with {name}, which JSON does not have")


_JSON = json.JSONDecoder(parse_constant=_no_constant)


def _json(value: Any) -> bytes:
    """The text as it is: PostgreSQL's json keeps spaces, order and doubled keys."""
    # A column declared JSON turns the text 5 into a number: SQLite takes it for NUMERIC.
    text = repr(value) if type(value) in (int, float) else value
    if type(text) is not str:
        raise _wrong(value, "JSON text")
    try:
        _JSON.decode(text)
    except (ValueError, RecursionError):
        raise MisfitError("is text that is not JSON") from None
    return _field(text.encode())


def _blob(value: Any) -> bytes:
    if type(value) is not bytes:
        raise _wrong(value, "a blob")
    return _field(value)


def _numeric(digits: int | None = None, scale: int = 0) -> Encoder:
    def encode(value: Any) -> bytes:
        if type(value) not in (int, float, str):
            raise _wrong(value, "a number")
        try:
            number = Decimal(value if type(value) is not float else repr(value))
        except InvalidOperation:
            raise MisfitError("is text that is no number") from None
        if not number.is_finite():
            raise MisfitError("is not a finite number")
        if digits is not None:
            rounded = number.quantize(Decimal(1).scaleb(-scale), context=_EXACT)
            if rounded != number:
                raise MisfitError(f"has more than {scale} digits after the point")
            if number.copy_abs() >= Decimal(10) ** (digits - scale):
                raise MisfitError(f"has more than {digits - scale} digits before the point")
            number = rounded
        return _field(_numeric_field(number))

    return encode


def _numeric_field(number: Decimal) -> bytes:
    """numeric_send: digits to the base 10,000, weight of the first, sign, digits shown."""
    sign = 0x4000 if number < 0 else 0
    whole, _, fraction = format(number.copy_abs(), "f").partition(".")
    shown = len(fraction)
    whole = whole.zfill(-(-len(whole) // 4) * 4)
    fraction = fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int((whole + fraction)[at : at + 4]) for at in range(0, len(whole + fraction), 4)]
    weight = len(whole) // 4 - 1
    while groups and groups[0] == 0:
        groups.pop(0)
        weight -= 1
    while groups and groups[-1] == 0:
        groups.pop()
    if not groups:
        weight, sign = 0, 0
    if len(groups) > 0x7FFF or shown > 0x3FFF:
        raise MisfitError("has more digits than PostgreSQL's numeric")
    return struct.pack(f">hhHh{len(groups)}h", len(groups), weight, sign, shown, *groups)


_PLAIN: dict[str, Encoder] = {
    "smallint": _integer(_INT2, 2),
    "integer": _integer(_INT4, 4),
    "bigint": _integer(_INT8, 8),
    "double precision": _float,
    "boolean": _boolean,
    "text": _text,
    "character varying": _text,
    "uuid": _uuid,
    "timestamp without time zone": _naive_moment,
    "date": _day,
    "time without time zone": _time_of_day,
    "json": _json,
    "bytea": _blob,
}

_SEND = {
    "smallint": "int2send",
    "integer": "int4send",
    "bigint": "int8send",
    "double precision": "float8send",
    "boolean": "boolsend",
    "text": "textsend",
    "character varying": "varcharsend",
    "uuid": "uuid_send",
    "timestamp with time zone": "timestamptz_send",
    "timestamp without time zone": "timestamp_send",
    "date": "date_send",
    "time without time zone": "time_send",
    "json": "json_send",
    "bytea": "byteasend",
    "numeric": "numeric_send",
}
