"""Word error rates of the whole way from file to transcript, on speech whose words are known.

The speech comes from Debian's archive with `apt-get download`, is kept in .speakfit and never
committed: Asterisk's prompts are under CC-BY-SA 3.0, the LibriVox clips in the public domain.
"""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import jiwer
import numpy as np
import pytest

from services.api.seams import Heard
from services.api.transcript import assemble
from services.worker.engines import Speech
from services.worker.engines.whisper import WhisperEngine
from services.worker.speech import VoiceActivity, stretches
from speakfit.audio import SAMPLE_RATE
from tests.benchmarks.fillers import engine
from tests.conftest import ROOT
from tests.services.speech import Samples, samples_of, silence

PACKAGES = ("asterisk-core-sounds-en", "asterisk-core-sounds-en-g722", "pocketsphinx-testdata")
KEPT = ROOT / ".speakfit" / "debian-speech"
PROMPTS = "usr/share/asterisk/sounds/en_US_f_Allison"
LIBRIVOX = "usr/share/pocketsphinx/test/data/librivox"

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@pytest.fixture(scope="module")
def speech() -> Path:
    """What the packages hold; downloaded once."""
    if not (KEPT / "complete").exists():
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                pytest.skip(f"the speech is in Debian packages, and there is no {tool} here")
        shutil.rmtree(KEPT, ignore_errors=True)
        KEPT.mkdir(parents=True)
        done = subprocess.run(
            ["apt-get", "download", *PACKAGES],
            cwd=KEPT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            pytest.skip(f"the Debian archive gives no speech: {done.stderr.strip()[-200:]}")
        for package in KEPT.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", package, KEPT], check=True, timeout=60)
            package.unlink()
        (KEPT / "complete").touch()
    return KEPT


@pytest.fixture(scope="module")
def whisper() -> Iterator[WhisperEngine]:
    """The local model."""
    made = engine()
    yield made
    made.close()


def heard(whisper: WhisperEngine, samples: Samples) -> str:
    """What a recording's transcript says, cut and joined as workers and API do."""
    chunks = []
    for stretch in stretches([samples], VoiceActivity(), []):
        begin, end = stretch.start_seconds, stretch.end_seconds
        chunk = Speech(samples=stretch.samples, start_seconds=begin, end_seconds=end)
        (result,) = whisper.transcribe([chunk])
        chunks.append(Heard(start=begin, end=end, result=result))
    duration = len(samples) / SAMPLE_RATE
    return assemble(
        recording_id="measured", duration_seconds=duration, chunks=chunks, speech=[]
    ).text


def g722(path: Path) -> Samples:
    with av.open(str(path), format="g722") as file:
        return np.concatenate([frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)])


def prompts(folder: Path) -> Iterator[tuple[str, Samples]]:
    """Text and samples of every prompt that is spoken, not a tone."""
    listing = folder / "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
    for line in gzip.decompress(listing.read_bytes()).decode().splitlines():
        name, colon, text = line.partition(": ")
        path = folder / PROMPTS / f"{name.strip()}.g722"
        spoken = re.search("[a-z]", text) and not text.strip().startswith(("[", "(", "<"))
        if colon and not name.startswith(";") and spoken and path.exists():
            yield text, g722(path)


def plain(text: str) -> str:
    """Without what is not heard: case, punctuation, and how numbers are written."""
    text = re.sub(r"[\u2019']", "", text.lower())
    text = re.sub(r"(?<=\d)(?=[a-z])|(?<=[a-z])(?=\d)", " ", text)
    text = re.sub(r"\d+", lambda found: f" {_spoken(found[0])} ", text)
    for short, long in {"mr": "mister", "ok": "okay", "am": "a m", "pm": "p m"}.items():
        text = re.sub(rf"\b{short}\b", long, text)
    return " ".join(re.sub(r"[^a-z ]", " ", text).split())


def _spoken(digits: str) -> str:
    number = int(digits)
    if number < 20:
        return _ONES[number]
    if number < 100:
        ones = f" {_ONES[number % 10]}" if number % 10 else ""
        return _TENS[number // 10 - 2] + ones
    return " ".join(_ONES[int(digit)] for digit in digits)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_asterisks_prompts_are_heard_with_at_most_8_percent_wrong(
    speech: Path, whisper: WhisperEngine
) -> None:
    spoken = list(prompts(speech))
    assert len(spoken) >= 500
    # As recordings of some minutes, with the pauses of somebody who reads a list.
    said, told = [], []
    for first in range(0, len(spoken), 60):
        some = spoken[first : first + 60]
        said.append(plain(" ".join(text for text, _ in some)))
        pause = silence(0.8)
        told.append(plain(heard(whisper, np.concatenate([x for _, s in some for x in (s, pause)]))))
    rate = jiwer.wer(said, told)
    print(f"{len(spoken)} prompts, {sum(map(len, map(str.split, said)))} words: {rate:.2%} wrong")
    assert rate <= 0.08


@pytest.mark.slow
def test_librivox_sentences_are_heard_with_at_most_6_percent_wrong(
    speech: Path, whisper: WhisperEngine
) -> None:
    listing = (speech / LIBRIVOX / "transcription").read_text(encoding="utf-8")
    clips = re.findall(r"<s> (.*?) </s> \((.*?)\)", listing)
    assert len(clips) == 5
    # One recording, as the book is read. Alone, clips of 3 s turn with 12 ms more of silence.
    pieces = [
        x
        for _, name in clips
        for x in (samples_of(speech / LIBRIVOX / f"{name}.wav"), silence(0.8))
    ]
    said = plain(" ".join(text for text, _ in clips))
    rate = jiwer.wer(said, plain(heard(whisper, np.concatenate(pieces))))
    print(f"{len(said.split())} words: {rate:.2%} wrong")
    assert rate <= 0.06
