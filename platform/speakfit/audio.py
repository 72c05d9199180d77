"""Recordings as files: what they are, how long they last, and their samples in small windows.

The container is told by its first bytes, never by name or by FFmpeg's own guess: a guess may
choose a playlist format, and a playlist may name other files on this machine.
"""

from __future__ import annotations

import io
import math
import os
import wave
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError, InvalidDataError
from numpy.typing import NDArray

from speakfit.errors import AudioError

SAMPLE_RATE = 16_000
"""Hertz; what Whisper and the voice-activity detector both expect."""

FORMATS = ("wav", "mp3", "m4a", "ogg", "flac", "webm")

_HEAD_BYTES = 16
_RIFF_SLACK_BYTES = 1024
_TRUNCATION_SLACK_SECONDS = 0.5
_LENGTH_SLACK_SECONDS = 1.0
_FORGIVEN_PACKETS = 2
_FORGIVEN_SHARE = 0.01
_PROBE_FRAMES = 8
# RFC 3533: a page is a header of 27 bytes, its segment table and at most 65 307 bytes in all.
_OGG_HEADER_BYTES = 27
_OGG_LONGEST_PAGE_BYTES = 65_307
_OGG_END_OF_STREAM = 0x04
_MACHINE_ERRORS = (OSError, MemoryError)
_CONTENT_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "mp4": "audio/mp4",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
    "matroska": "audio/webm",
}

Samples = NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a file turned out to be."""

    content_type: str
    duration: timedelta


def pack_chunk(samples: Samples) -> bytes:
    """A chunk as it waits in the store: a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(SAMPLE_RATE)
        output.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def unpack_chunk(content: bytes) -> Samples:
    """The samples of a chunk."""
    with wave.open(io.BytesIO(content), "rb") as source:
        return np.frombuffer(source.readframes(source.getnframes()), dtype="<i2")


def _ffmpeg_format(head: bytes) -> str | None:
    """FFmpeg's name of the container that begins with `head`."""
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "wav"
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return "mp3"
    if head[4:8] == b"ftyp":
        return "mp4"
    if head[:4] == b"OggS":
        return "ogg"
    if head[:4] == b"fLaC":
        return "flac"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    return None


def _open(path: Path) -> tuple[Any, str]:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise AudioError("The file is empty.", code="empty", todo="Upload a file with speech.")
    name = _ffmpeg_format(head)
    if name is None:
        raise AudioError(
            "The file is not audio that this service reads.",
            code="not-audio",
            todo="Upload one of: " + ", ".join(FORMATS) + ".",
        )
    if name == "wav" and _riff_is_short(head, path.stat().st_size):
        raise _broken()
    if name == "ogg" and not _ogg_is_ended(path):
        raise _broken()
    try:
        container = av.open(str(path), format=name, metadata_errors="ignore")
    except FFmpegError as error:
        raise _broken() from error
    if not container.streams.audio:
        container.close()
        raise AudioError(
            "The file has no audio track.",
            code="not-audio",
            todo="Upload a file with speech in it.",
        )
    return container, name


def _riff_is_short(head: bytes, size: int) -> bool:
    """FFmpeg takes a WAV's length from the file's size; the header knows better.

    Recorders that stream write 0 or all ones, because they do not know it.
    """
    declared = int.from_bytes(head[4:8], "little")
    return declared not in (0, 0xFFFFFFFF) and size < declared + 8 - _RIFF_SLACK_BYTES


def _ogg_is_ended(path: Path) -> bool:
    """Ogg states no length, but its last page is whole and says that it is the last."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        # Twice the longest page: a torn last one still leaves a whole one before it in view.
        file.seek(max(0, size - 2 * _OGG_LONGEST_PAGE_BYTES))
        tail = file.read()
    begin = tail.rfind(b"OggS\0")
    page = tail[begin:] if begin >= 0 else b""
    if len(page) < _OGG_HEADER_BYTES:
        return False
    segments = page[26]
    table = page[_OGG_HEADER_BYTES : _OGG_HEADER_BYTES + segments]
    whole = len(table) == segments and len(page) >= _OGG_HEADER_BYTES + segments + sum(table)
    return whole and bool(page[5] & _OGG_END_OF_STREAM)


def _broken() -> AudioError:
    return AudioError(
        "The file begins like audio but cannot be read: it is truncated or damaged.",
        code="truncated",
        todo="Upload the whole file again.",
    )


def probe(path: Path, *, longest_seconds: float = math.inf) -> Probe:
    """Prove that a file can be decoded and measure it, reading packets without decoding them all.

    Raises AudioError with code `empty`, `not-audio`, `too-long` or `truncated`. A file that claims
    one sample a second has a packet for each: nothing is read beyond the limit. Truncation is seen
    where the container states a length or its end (ogg); a plain mp3 is merely shorter.
    """
    container, name = _open(path)
    with container:
        stream = container.streams.audio[0]
        declared = _declared_seconds(container, stream)
        decoded = 0
        end = 0.0
        first = max(float((stream.start_time or 0) * stream.time_base), 0.0)
        try:
            for packet in container.demux(stream):
                if decoded < _PROBE_FRAMES:
                    with suppress(InvalidDataError):
                        decoded += len(packet.decode())
                if packet.pts is not None and packet.time_base is not None:
                    begin = float(packet.pts * packet.time_base)
                    end = max(end, begin + float((packet.duration or 0) * packet.time_base))
                if end - first > longest_seconds + _LENGTH_SLACK_SECONDS:
                    raise too_long(longest_seconds)
        except FFmpegError as error:
            raise _broken() from error
        if decoded == 0:
            raise _broken()
    measured = end - first
    if declared is not None and measured < declared - _TRUNCATION_SLACK_SECONDS:
        raise _broken()
    return Probe(
        content_type=_CONTENT_TYPES[name], duration=timedelta(seconds=max(measured, declared or 0))
    )


def _declared_seconds(container: Any, stream: Any) -> float | None:
    """The length the container states; FFmpeg fills it in from the size where it states none."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration:
        return float(container.duration) / 1_000_000
    return None


def too_long(limit_seconds: float) -> AudioError:
    """The refusal of a recording over the limit."""
    return AudioError(
        f"The recording is longer than {limit_seconds:g} s.",
        code="too-long",
        todo="Split it and upload the parts.",
    )


def decode(path: Path, *, longest_seconds: float) -> Iterator[Samples]:
    """The samples as 16 kHz mono in windows of well under a second, so memory stays flat.

    Raises AudioError with code `truncated` where more than a few packets are bad, and `too-long`
    where more comes out than the container stated. The file was probed whole when it was
    accepted, so what the machine refuses now (OSError, MemoryError) is not the file's fault.
    """
    try:
        container, _ = _open(path)
    except AudioError as refusal:
        if isinstance(refusal.__cause__, _MACHINE_ERRORS):
            raise refusal.__cause__ from None
        raise
    with container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        count = good = bad = 0
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                    good += 1
                except FFmpegError as error:
                    # A decoder reads no file: but for memory, the data is to blame, even where
                    # FFmpeg calls it EPERM. Tags and cut frames make single packets fail in files
                    # that play well.
                    if isinstance(error, MemoryError):
                        raise
                    bad += 1
                    continue
                for frame in frames:
                    for piece in resampler.resample(frame):
                        count += piece.samples
                        if count > (longest_seconds + _LENGTH_SLACK_SECONDS) * SAMPLE_RATE:
                            raise too_long(longest_seconds)
                        yield _samples(piece)
            if bad > _FORGIVEN_PACKETS + good * _FORGIVEN_SHARE:
                raise _broken()
            # A resampler that never saw a frame cannot be flushed.
            for piece in resampler.resample(None) if count else ():
                yield _samples(piece)
        except FFmpegError as error:
            if isinstance(error, _MACHINE_ERRORS):
                raise
            raise _broken() from error


def _samples(frame: Any) -> Samples:
    samples: Samples = frame.to_ndarray().reshape(-1).astype(np.int16, copy=False)
    return samples
