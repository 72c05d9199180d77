"""Files as browsers and broken lines leave them are taken where they can be decoded."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from speakfit.audio import decode, probe
from speakfit.errors import AudioError
from tests.services.speech import KENNEDY, encode, samples_of


def streamed_webm(path: Path) -> bytes:
    """As MediaRecorder writes it: no length, no index, clusters of a second."""
    options = {"live": "1", "cluster_time_limit": "1000"}
    ogg = encode(path.with_suffix(".ogg"), samples_of(KENNEDY))
    with (
        av.open(str(ogg)) as spoken,
        av.open(str(path), "w", format="webm", options=options) as output,
    ):
        source = spoken.streams.audio[0]
        stream = output.add_stream_from_template(source)
        for packet in spoken.demux(source):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    with av.open(str(path)) as written:
        assert written.duration is None
    return path.read_bytes()


def heard_seconds(path: Path, content: bytes) -> float:
    """What is decoded of a file, which is what was measured when it was accepted."""
    path.write_bytes(content)
    seconds = sum(map(len, decode(path, longest_seconds=60))) / 16_000
    assert probe(path).duration.total_seconds() == pytest.approx(seconds, abs=0.1)
    return seconds


def test_a_browsers_webm_without_a_length_is_taken_whole_or_cut(tmp_path: Path) -> None:
    whole = streamed_webm(tmp_path / "a.webm")
    assert heard_seconds(tmp_path / "b.webm", whole) == pytest.approx(11.0, abs=0.05)
    half = heard_seconds(tmp_path / "c.webm", whole[: len(whole) // 2])
    assert half == pytest.approx(5.5, abs=0.5)
    with pytest.raises(AudioError, match="truncated or damaged"):
        probe(_written(tmp_path / "d.webm", whole[:200]))


def test_an_mp3_is_taken_from_any_frame_on_and_refused_where_its_header_tells_of_more(
    tmp_path: Path,
) -> None:
    whole = encode(tmp_path / "a.mp3", samples_of(KENNEDY)).read_bytes()
    first = whole.index(b"\xff\xf3")
    later = whole.index(whole[first : first + 2], len(whole) // 2)
    assert heard_seconds(tmp_path / "b.mp3", whole[later:]) == pytest.approx(5.5, abs=0.5)
    with pytest.raises(AudioError) as cut:
        probe(_written(tmp_path / "c.mp3", whole[: len(whole) // 2]))
    assert cut.value.code == "truncated"
    with pytest.raises(AudioError) as torn:
        probe(_written(tmp_path / "d.mp3", whole[later + 1 :]))
    assert torn.value.code == "not-audio"


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
