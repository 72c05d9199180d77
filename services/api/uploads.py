"""An upload goes from the socket to the disk in pieces, whole or not at all.

Starlette's form parser would spool the file elsewhere first and know no limit; this reads the
multipart stream itself, stops at the limit, and leaves nothing behind on an error.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import IO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from services.api.problems import Problem, unavailable
from speakfit.errors import StoreError
from speakfit.store import AudioStore

FIELD = "file"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WRITE_BYTES = 1024 * 1024
# Boundaries, headers and small other fields around the file.
_ENVELOPE_BYTES = 64 * 1024
_MOST_FIELDS = 32
_LONGEST_FIELD = 16 * 1024
_LONGEST_BOUNDARY = 70
"""RFC 2046, section 5.1.1."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that is on the disk, not yet in the audio store."""

    part: Path
    size_bytes: int
    checksum: str
    fields: Mapping[str, list[str]] = field(default_factory=dict)
    """The form's other fields, by name."""

    def discard(self) -> None:
        """Remove it; nothing remains."""
        self.part.unlink(missing_ok=True)


@contextmanager
def storage_problems() -> Iterator[None]:
    """Turn a full disk into 507 and a store that is away into 503; the rest stays errors."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise Problem(
            HTTPStatus.INSUFFICIENT_STORAGE,
            "disk-full",
            title="There is no room for the recording.",
            detail="Nothing was accepted; earlier recordings are safe.",
            todo="Try again later; the operator must free space in AUDIO_DIR.",
            headers={"Retry-After": "60"},
        ) from error
    except StoreError as error:
        raise unavailable("audio store") from error


class _FilePart:
    """Takes the parser's events and keeps the bytes of the one field that matters."""

    def __init__(self, output: IO[bytes], limit: int) -> None:
        self._output = output
        self._limit = limit
        self._name = b""
        self._value = b""
        self._disposition = b""
        self._wanted = False
        self._field: bytearray | None = None
        self._fields: list[tuple[bytes, bytearray]] = []
        self._pending = bytearray()
        self._hash = hashlib.sha256()
        self.found = False
        self.doubled = False
        self.ended = False
        self.crowded = False
        self.size = 0

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"")
        ours = name == FIELD.encode()
        self._field = None if ours else bytearray()
        if self._field is not None:
            self.crowded = self.crowded or len(self._fields) >= _MOST_FIELDS
            if not self.crowded:
                self._fields.append((name, self._field))
        self.doubled = self.doubled or (ours and self.found)
        self._wanted = ours and not self.found
        self.found = self.found or ours

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            self.size += end - start
            if self.size <= self._limit:
                self._pending += data[start:end]
        elif self._field is not None and not self.crowded:
            self._field += data[start:end]
            self.crowded = len(self._field) > _LONGEST_FIELD

    def _end(self) -> None:
        self.ended = True

    @property
    def fields(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, value in self._fields:
            found.setdefault(name.decode(errors="replace"), []).append(
                value.decode(errors="replace")
            )
        return found

    @property
    def waiting(self) -> int:
        return len(self._pending)

    def write(self) -> None:
        """Move what was taken to the disk; called outside the event loop."""
        self._hash.update(self._pending)
        self._output.write(self._pending)
        self._pending.clear()

    @property
    def checksum(self) -> str:
        return self._hash.hexdigest()


async def receive(request: Request, store: AudioStore, limit: int) -> Upload:
    """Store the request's file; a Problem says why not, and then nothing is left on the disk."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary or len(boundary) > _LONGEST_BOUNDARY:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "not-multipart",
            title="The request is not a form with a file.",
            detail="Expected multipart/form-data.",
            todo=f"Send the audio as the form field `{FIELD}`: curl -F {FIELD}=@talk.wav ...",
        )
    with storage_problems():
        part = store.new_part()
        try:
            with part.open("wb") as output:
                taken = _FilePart(output, limit)
                parser = MultipartParser(boundary, taken.callbacks())  # type: ignore[arg-type] # a TypedDict of optional callbacks
                await _pump(request.stream(), parser, taken, limit)
                await run_in_threadpool(_finish, taken, output)
            _check(taken, limit)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    return Upload(part=part, size_bytes=taken.size, checksum=taken.checksum, fields=taken.fields)


async def _pump(
    stream: AsyncIterator[bytes], parser: MultipartParser, taken: _FilePart, limit: int
) -> None:
    received = 0
    try:
        async for piece in stream:
            received += len(piece)
            # Clients read the answer only after sending all: what is too much is let pass by,
            # but not for ever.
            if received > 2 * limit + _ENVELOPE_BYTES:
                raise too_large(limit)
            parser.write(piece)
            if taken.waiting >= _WRITE_BYTES:
                await run_in_threadpool(taken.write)
        parser.finalize()
    except (MultipartParseError, ClientDisconnect) as error:
        raise _incomplete() from error
    if not taken.ended:
        raise _incomplete()


async def receive_bytes(request: Request, store: AudioStore, size_bytes: int) -> Path:
    """Store a body that is the file itself and has a known size; the path of its part."""
    with storage_problems():
        part = store.new_part()
        try:
            with part.open("wb") as output:
                received = 0
                async for piece in request.stream():
                    received += len(piece)
                    if received > size_bytes:
                        raise too_large(size_bytes)
                    await run_in_threadpool(output.write, piece)
                if received < size_bytes:
                    raise _incomplete()
                await run_in_threadpool(_sync, output)
        except ClientDisconnect as error:
            part.unlink(missing_ok=True)
            raise _incomplete() from error
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    return part


def _finish(taken: _FilePart, output: IO[bytes]) -> None:
    taken.write()
    _sync(output)


def _sync(output: IO[bytes]) -> None:
    output.flush()
    os.fsync(output.fileno())


def _check(taken: _FilePart, limit: int) -> None:
    if not taken.found:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "no-file",
            title="The form holds no file.",
            detail=f"The field `{FIELD}` is missing.",
            todo=f"Send the audio as the form field `{FIELD}`.",
        )
    if taken.doubled:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "two-files",
            title="The form holds more than one file.",
            detail=f"The field `{FIELD}` is there more than once.",
            todo="Send one request for each recording.",
        )
    if taken.size > limit:
        raise too_large(limit)
    if taken.crowded:
        raise Problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "fields-too-large",
            title="The form holds too much beside its file.",
            detail=f"At most {_MOST_FIELDS} fields of {_LONGEST_FIELD} bytes are taken.",
            todo="Leave out what is not needed.",
        )


def too_large(limit: int) -> Problem:
    """The refusal of a file over the limit."""
    return Problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too-large",
        title="The file is too large.",
        detail=f"At most {limit} bytes are accepted.",
        todo="Compress it (ogg, mp3) or split it.",
    )


def _incomplete() -> Problem:
    return Problem(
        HTTPStatus.BAD_REQUEST,
        "incomplete-upload",
        title="The upload is incomplete.",
        detail="It ended before all of it was there, or is malformed.",
        todo="Upload it again.",
    )
