"""What attackers send: broken and lying audio, paths, forms, framing. Nothing breaks or stays."""

from __future__ import annotations

import random
import re
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from sqlalchemy import Engine, func, select

from speakfit.audio import decode
from speakfit.database import Recording, transaction
from speakfit.errors import AudioError
from tests.conftest import free_port, service
from tests.recording_monitoring import until
from tests.services.speech import (
    CODECS,
    KENNEDY,
    encode,
    samples_of,
    silence,
    write_wav,
)
from tests.services.test_recordings import assert_problem

SEED = 20261125
LONGEST = 100
"""Seconds; MAX_RECORDING_DURATION of the tests' API."""
REFUSED = (HTTPStatus.UNSUPPORTED_MEDIA_TYPE, HTTPStatus.UNPROCESSABLE_ENTITY)


def flipped(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 4, 64))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def head_broken(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.randint(1, 8)):
        data[dice.randrange(4, min(200, len(data)))] = dice.choice((0, 0x7F, 0x80, 0xFF))


def cut(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(len(data)) :]


def hole(data: bytearray, dice: random.Random) -> None:
    begin = dice.randrange(len(data))
    del data[begin : begin + dice.choice((1, 100, 5000))]


def zeroed(data: bytearray, dice: random.Random) -> None:
    begin = dice.randrange(len(data))
    end = min(len(data), begin + dice.choice((16, 1000, 20_000)))
    data[begin:end] = bytes(end - begin)


def doubled(data: bytearray, dice: random.Random) -> None:
    begin = dice.randrange(len(data))
    piece = data[begin : begin + dice.choice((8, 500, 8000))]
    place = dice.randrange(len(data))
    data[place:place] = piece * dice.randint(1, 3)


def size_lied(data: bytearray, dice: random.Random) -> None:
    """Where containers keep lengths and counts, the extremes of 32 bits."""
    place = dice.randrange(4, min(400, len(data) - 4))
    value = dice.choice((0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF))
    struct.pack_into(dice.choice("<>") + "I", data, place, value)


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flipped, head_broken, cut, hole, zeroed, doubled, size_lied,
)  # fmt: skip


def corpus(folder: Path, each: int) -> Iterator[tuple[str, bytes]]:
    """Broken files of every container, made from real speech; the same ones every time."""
    spoken = samples_of(KENNEDY)[: 16_000 * 4]
    for kind in CODECS:
        whole = encode(folder / f"whole.{kind}", spoken).read_bytes()
        for number in range(each):
            dice = random.Random(f"{SEED} {kind} {number}")
            data = bytearray(whole)
            mutation = MUTATIONS[number % len(MUTATIONS)]
            mutation(data, dice)
            yield f"{kind} {number} {mutation.__name__}", bytes(data)


@dataclass(frozen=True, kw_only=True)
class Besieged:
    """An API of its own, whose process and folder can be looked at."""

    client: httpx.Client
    process: psutil.Process
    audio_dir: Path


@pytest.fixture
def besieged(
    environment: dict[str, str],
    engine: Engine,
    broker: redis.Redis,
    api: httpx.Client,
    tmp_path: Path,
) -> Iterator[Besieged]:
    port = free_port()
    audio_dir = tmp_path / "audio"
    own = {**environment, "AUDIO_DIR": str(audio_dir), "PORT": str(port)}
    with (
        service("services.api", own, tmp_path / "api.log") as process,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": api.headers["authorization"]},
            timeout=30,
        ) as client,
    ):

        def alive() -> bool:
            try:
                return client.get("/healthz").is_success
            except httpx.TransportError:
                return False

        until(alive, what="the API")
        yield Besieged(
            client=client, process=psutil.Process(process.popen.pid), audio_dir=audio_dir
        )


def assert_nothing_breaks(
    besieged: Besieged, engine: Engine, files: Iterator[tuple[str, bytes]], at_least: int
) -> None:
    accepted = seen = 0
    settled = 0
    for name, data in files:
        answer = besieged.client.post("/v1/recordings", files={"file": data})
        assert answer.status_code in (HTTPStatus.ACCEPTED, *REFUSED), (name, answer.text)
        if answer.status_code == HTTPStatus.ACCEPTED:
            accepted += 1
        else:
            assert answer.headers["content-type"] == "application/problem+json", name
        seen += 1
        if seen == at_least // 3:
            settled = besieged.process.memory_info().rss
    assert seen >= at_least
    assert 0 < accepted < seen, "some damage is harmless, some is not"
    grown = besieged.process.memory_info().rss - settled
    assert grown < 64 * 2**20, f"the process grew by {grown} bytes"
    assert list((besieged.audio_dir / ".incoming").glob("*")) == []
    with transaction(engine) as session:
        assert session.scalar(select(func.count()).select_from(Recording)) == accepted
        uploads = select(func.count(Recording.object_key.distinct()))
        shared = session.scalar(uploads)
    kept = [path for path in (besieged.audio_dir / "sha256").rglob("*") if path.is_file()]
    assert len(kept) == shared, "what was refused leaves no file"
    for path in kept:
        decodes_within_bounds(path)


def decodes_within_bounds(path: Path) -> None:
    """What a worker does with it: samples up to the limit, or an error that names the file."""
    total = 0
    try:
        for window in decode(path, longest_seconds=LONGEST):
            total += len(window)
    except AudioError:
        pass
    assert total <= (LONGEST + 60) * 16_000


def test_broken_audio_breaks_nothing(besieged: Besieged, engine: Engine, tmp_path: Path) -> None:
    assert_nothing_breaks(besieged, engine, corpus(tmp_path, each=7), 42)


@pytest.mark.slow
def test_five_hundred_broken_files_break_nothing(
    besieged: Besieged, engine: Engine, tmp_path: Path
) -> None:
    assert_nothing_breaks(besieged, engine, corpus(tmp_path, each=91), 500)


def test_a_decoder_that_names_damage_otherwise_blames_the_file(tmp_path: Path) -> None:
    # FFmpeg answers EPERM here; taken for trouble of the machine, it would be tried for ever.
    data = next(data for name, data in corpus(tmp_path, each=36) if name.startswith("m4a 35"))
    path = tmp_path / "damaged"
    path.write_bytes(data)
    decodes_within_bounds(path)


def wav_at_one_hertz(folder: Path) -> bytes:
    """A megabyte that lasts six days."""
    data = bytearray(write_wav(folder / "a.wav", silence(32)).read_bytes())
    struct.pack_into("<II", data, 24, 1, 2)
    return bytes(data)


def flac_that_hides_its_length(folder: Path) -> bytes:
    """Minutes of silence under a header that speaks of one second."""
    quiet = silence(600)
    quiet[:] = 0
    data = bytearray(encode(folder / "a.flac", quiet).read_bytes())
    # STREAMINFO's 36 bits of total samples: the low half of byte 21, then bytes 22 to 25.
    data[21] &= 0xF0
    struct.pack_into(">I", data, 22, 16_000)
    return bytes(data)


def mp3_of_repeated_frames(folder: Path) -> bytes:
    """Frames that cost next to nothing, over and over."""
    data = encode(folder / "a.mp3", silence(20)).read_bytes()
    return data * 12


BOMBS = (wav_at_one_hertz, flac_that_hides_its_length, mp3_of_repeated_frames)


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_audio_bomb_is_refused_or_stopped_at_the_limit(
    bomb: Callable[[Path], bytes], api: httpx.Client, tmp_path: Path
) -> None:
    data = bomb(tmp_path)
    answer = api.post("/v1/recordings", files={"file": data})
    assert answer.status_code in (HTTPStatus.ACCEPTED, *REFUSED), answer.text
    path = tmp_path / "bomb"
    path.write_bytes(data)
    if answer.status_code == HTTPStatus.ACCEPTED:
        decodes_within_bounds(path)
    else:
        assert answer.json()["code"] in ("too-long", "truncated")


@pytest.mark.parametrize(
    "name",
    ["../../../tmp/speakfit-escaped", "/tmp/speakfit-escaped", "a\0b", "x" * 500, "..", "é"],
)
def test_a_file_name_decides_nothing(
    name: str, api: httpx.Client, environment: dict[str, str]
) -> None:
    answer = api.post("/v1/recordings", files={"file": (name, KENNEDY.read_bytes())})
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    assert not Path("/tmp/speakfit-escaped").exists()
    assert "escaped" not in str(list(Path(environment["AUDIO_DIR"]).rglob("*")))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/recordings/..%2f..%2fetc%2fpasswd", "/v1/recordings/%00", "/v1/recordings/%ff%fe",
        "/v1/recordings/" + "a" * 8000, "//v1//recordings", "/v1/recordings/%2e%2e/%2e%2e",
        "/v1/recordings/1b4e28ba-2fa1-41d2-883f-0016d3cca427%0d%0aX-Evil:%201", "/%", "/v1/../.env",
    ],
)  # fmt: skip
def test_a_path_leads_nowhere_else(path: str, api: httpx.Client) -> None:
    with socket.create_connection((api.base_url.host, api.base_url.port or 0), timeout=10) as line:
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        line.sendall(f"{head}Authorization: {api.headers['authorization']}\r\n\r\n".encode())
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer.split(b" ", 2)[1] in (b"404", b"400"), answer[:200]
    assert b"application/problem+json" in answer
    assert b"x-evil" not in answer.partition(b"\r\n\r\n")[0].lower()


def form(*parts: bytes, boundary: bytes = b"b", end: bytes = b"--") -> bytes:
    head = b'Content-Disposition: form-data; name="file"\r\n\r\n'
    return b"".join(b"--%b\r\n%b%b\r\n" % (boundary, head, part) for part in parts) + (
        b"--%b%b\r\n" % (boundary, end)
    )


FORMS: dict[str, tuple[str, bytes]] = {
    "ten thousand parts": ("b", form(*[b"x"] * 10_000)),
    "a part's head without an end": ("b", b"--b\r\nContent-Disposition: " + b"a" * 200_000),
    "a part with a thousand headers": (
        "b",
        b"--b\r\n" + b"X: y\r\n" * 1000 + b"\r\nx\r\n--b--\r\n",
    ),
    "a boundary of nothing": ("", form(b"x")),
    "a boundary of a kilobyte": ("b" * 1000, form(b"x", boundary=b"b" * 1000)),
    "another boundary": ("c", form(b"x")),
    "no last boundary": ("b", form(b"x", end=b"")),
    "a form within the form": ("b", form(form(b"x", boundary=b"c"))),
    "bytes that are no form": ("b", bytes(range(256)) * 100),
    "nothing": ("b", b""),
    "a name that is a list": ("b", b'--b\r\nContent-Disposition: form-data; name="file[]"\r\n\r\n'),
    "an encoded name": ("b", b"--b\r\nContent-Disposition: form-data; name*=utf-8''file\r\n\r\nx"),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_malicious_form_is_refused(
    name: str, api: httpx.Client, environment: dict[str, str]
) -> None:
    boundary, content = FORMS[name]
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    answer = api.post("/v1/recordings", content=content, headers=kind)
    assert answer.status_code in (400, *REFUSED), answer.text
    assert_problem(answer, answer.status_code, answer.json()["code"])
    assert list((Path(environment["AUDIO_DIR"]) / ".incoming").glob("*")) == []


FRAMINGS: dict[str, bytes] = {
    "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "a negative length": b"Content-Length: -1\r\n\r\n",
    "a length that is no number": b"Content-Length: 0x10\r\n\r\n",
    "a chunk of no size": b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "an enormous chunk": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffffff\r\nabc",
    "a folded header": b"X-A: b\r\n c\r\n\r\n",
    "a header without a name": b": b\r\n\r\n",
    "a null in a header": b"X-A: a\0b\r\n\r\n",
    "a bare line feed": b"X-A: b\nX-B: c\r\n\r\n",
    "an upgrade": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n",
    "a made-up method's body": b"Expect: 200-maybe\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", FRAMINGS)
def test_malicious_framing_is_refused_and_the_next_request_is_another(
    name: str, api: httpx.Client
) -> None:
    with socket.create_connection((api.base_url.host, api.base_url.port or 0), timeout=10) as line:
        head = "POST /v1/recordings HTTP/1.1\r\nHost: x\r\n"
        key = f"Authorization: {api.headers['authorization']}\r\n"
        line.sendall((head + key).encode() + FRAMINGS[name])
        line.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    assert answer[:5] in (b"HTTP/", b"")
    if answer:
        assert answer.split(b" ", 2)[1][:1] == b"4", answer[:300]
    assert len(re.findall(rb"HTTP/1\.1 \d", answer)) <= 1, "no smuggled request was answered"
    assert api.get("/healthz").status_code == 200
