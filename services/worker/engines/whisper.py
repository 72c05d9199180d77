"""faster-whisper: a model that is loaded once, used in batches, and let go of when idle."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import itertools
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from faster_whisper import BatchedInferencePipeline, WhisperModel
from numpy.typing import NDArray

from services.worker.engines import Speech, whisper_model
from speakfit.audio import SAMPLE_RATE
from speakfit.fillers import FillerMethod, filler_name
from speakfit.settings import Settings

WINDOW_SECONDS = 30
"""Whisper pads what it hears to this."""

VERBATIM_PROMPT = "Um, uh, so, um, I was, uh, you know, like, um, hmm."
"""Shows the model that fillers are written down; without it, it leaves most of them out."""

_VERBATIM_TOKENS = 200
# The width of the encoding tells OpenAI's models apart; turbo and distilled ones keep large's.
_WIDTHS = {384: "tiny", 512: "base", 768: "small", 1024: "medium"}
_SENTENCE_ENDS = (".", "?", "!", "\u3002", "\uff1f", "\uff01")
# What CTranslate2 4.8 raises: the text of CUDA's error, of cuBLAS's status, of std::bad_alloc.
_OUT_OF_MEMORY = ("out of memory", "cublas_status_alloc_failed", "bad_alloc")

logger = logging.getLogger(__name__)


class _Model(WhisperModel):  # type: ignore[misc] # it has no types
    """Encodes a window once, however often it is decoded: detection, both passes, retries."""

    def encode(self, features: NDArray[np.float32]) -> Any:
        key = hashlib.blake2b(features.tobytes(), digest_size=16).digest()
        kept: dict[bytes, Any] = self.__dict__.setdefault("_kept", {})
        if key not in kept:
            kept[key] = super().encode(features)
        return kept[key]

    def forget(self) -> None:
        self.__dict__.pop("_kept", None)


class WhisperEngine:
    """One thread of a processor, or one GPU: throughput comes from processes (measured: 61
    chunks a minute with 1x1, 52 to 57 with 1x2, 111 to 120 with 2x1).

    A batch that does not fit into memory is halved, and stays so until the model is loaded again.
    What does not fit alone lets go of the model and raises: that is the machine's trouble.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._source = whisper_model(settings)
        self._name = Path(self._source).name
        self._loaded: _Model | None = None
        self._batch = settings.whisper_batch_size
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._used_at = time.monotonic()
        self._watch: threading.Thread | None = None

    @property
    def model(self) -> str:
        """The model's name as OpenAI gave it; a folder may be called anything."""
        return self._name

    @property
    def is_loaded(self) -> bool:
        """Whether the model takes up memory; waits for what is under way."""
        with self._lock:
            return self._loaded is not None

    @property
    def batch_size(self) -> int:
        """Chunks decoded at once; less than the setting after memory ran out."""
        return self._batch

    def load(self) -> None:
        """Load the model now rather than with the first chunk."""
        with self._lock:
            model = self._ready()
            silence = np.zeros((model.model.n_mels, 100 * WINDOW_SECONDS), dtype=np.float32)
            # The first window takes longer than later ones, and shows which model it is.
            width = model.encode(silence).shape[-1]
            model.forget()
            if width in _WIDTHS:
                self._name = _WIDTHS[width] + ("" if model.model.is_multilingual else ".en")

    def close(self) -> None:
        """Let go of the model; the engine may be used again."""
        self._closing.set()
        if self._watch is not None:
            self._watch.join()
            self._watch = None
        with self._lock:
            self._unload()

    def transcribe(self, chunks: Sequence[Speech]) -> list[dict[str, Any]]:
        """Segments, words and fillers of each chunk.

        Chunks are transcribed in any order, so none is conditioned on another's text.
        """
        found: list[dict[str, Any]] = []
        with self._lock:
            try:
                while len(found) < len(chunks):
                    found += self._next(chunks[len(found) :])
            finally:
                if self._loaded is not None:
                    self._loaded.forget()
                self._used_at = time.monotonic()
        return found

    def _next(self, chunks: Sequence[Speech]) -> list[dict[str, Any]]:
        """As many of the first chunks as are alike and fit into memory together."""
        alike = list(itertools.takewhile(lambda chunk: chunk.wishes == chunks[0].wishes, chunks))
        while True:
            some = alike[: self._batch]
            try:
                return self._hear(self._ready(), some)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(some) == 1:
                    self._unload()
                    raise
                self._batch = len(some) // 2
                logger.warning("out of memory; from now on %d chunks at once", self._batch)

    def _hear(self, model: _Model, chunks: Sequence[Speech]) -> list[dict[str, Any]]:
        model.forget()
        if len(chunks) == 1:
            phrases, language = _alone(model, chunks[0])
        else:
            windows, language = _together(model, chunks)
            phrases = [list(itertools.chain.from_iterable(map(_sentences, w))) for w in windows]
        fillers: Sequence[list[dict[str, Any]] | None] = [None] * len(chunks)
        if chunks[0].wishes.fillers is FillerMethod.VERBATIM_PASS:
            fillers = _fillers(model, chunks, language)
        return [
            {
                "language": language,
                "segments": [_segment(phrase, chunk, place) for phrase in heard],
                "fillers": filled,
            }
            for place, (chunk, heard, filled) in enumerate(
                zip(chunks, phrases, fillers, strict=True)
            )
        ]

    def _ready(self) -> _Model:
        if self._loaded is None:
            began = time.monotonic()
            self._loaded = _Model(
                self._source,
                device=self._settings.whisper_device,
                compute_type=self._settings.whisper_compute_type,
                cpu_threads=1,
                num_workers=1,
            )
            self._batch = self._settings.whisper_batch_size
            self._used_at = time.monotonic()
            logger.info("model loaded in %.2f s", self._used_at - began)
            if self._watch is None and self._settings.whisper_idle_limit:
                self._closing.clear()
                self._watch = threading.Thread(target=self._evict, name="idle model", daemon=True)
                self._watch.start()
        return self._loaded

    def _evict(self) -> None:
        """Unload whenever nothing was transcribed for as long as the setting says."""
        limit = self._settings.whisper_idle_limit.total_seconds()
        wait = limit
        while not self._closing.wait(wait):
            with self._lock:
                idle = time.monotonic() - self._used_at
                if idle >= limit and self._loaded is not None:
                    self._unload()
                    logger.info("model unloaded after %.0f s without work", idle)
            wait = limit - idle if idle < limit else limit

    def _unload(self) -> None:
        if self._loaded is None:
            return
        self._loaded.model.unload_model()
        self._loaded = None
        gc.collect()
        _give_back_memory()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less at once may work; CTranslate2 has no exception of its own for it."""
    return isinstance(error, MemoryError) or any(
        text in str(error).lower() for text in _OUT_OF_MEMORY
    )


def _audio(chunk: Speech) -> NDArray[np.float32]:
    return chunk.samples.astype(np.float32) / 32768.0


def _options(chunk: Speech) -> dict[str, Any]:
    wished = {
        "language": chunk.wishes.language,
        "initial_prompt": chunk.wishes.prompt,
        "temperature": chunk.wishes.temperature,
    }
    return {
        "beam_size": 1,
        "condition_on_previous_text": False,
        "word_timestamps": True,
        "vad_filter": False,
        **{name: value for name, value in wished.items() if value is not None},
    }


def _alone(model: _Model, chunk: Speech) -> tuple[list[list[Any]], str]:
    found, information = model.transcribe(_audio(chunk), **_options(chunk))
    return [list(found)], information.language


def _together(
    model: _Model, chunks: Sequence[Speech], **options: Any
) -> tuple[list[list[Any]], str]:
    """One decoding of all; each chunk lies in a window of its own, whose times are exact."""
    window = WINDOW_SECONDS * SAMPLE_RATE
    audio = np.zeros(window * len(chunks), dtype=np.float32)
    clips = []
    for place, chunk in enumerate(chunks):
        audio[place * window : place * window + len(chunk.samples)] = _audio(chunk)
        begin = place * WINDOW_SECONDS
        clips.append({"start": begin, "end": begin + len(chunk.samples) / SAMPLE_RATE})
    found, information = BatchedInferencePipeline(model).transcribe(
        audio,
        clip_timestamps=clips,
        batch_size=len(chunks),
        # A window is decoded once here: asked for times, the model may stop at one and leave the
        # rest of the window out. The words' times come from its attention, not from these.
        without_timestamps=True,
        **{**_options(chunks[0]), **options},
    )
    phrases: list[list[Any]] = [[] for _ in chunks]
    for phrase in found:
        phrases[int(phrase.seek // (WINDOW_SECONDS * model.frames_per_second))].append(phrase)
    return phrases, information.language


def _sentences(window: Any) -> Iterator[SimpleNamespace]:
    """What one decoding gave as one text, by sentences."""
    words: list[Any] = []
    for place, word in enumerate(window.words or (), start=1):
        words.append(word)
        if word.word.endswith(_SENTENCE_ENDS) or place == len(window.words):
            yield SimpleNamespace(
                start=words[0].start,
                end=words[-1].end,
                text="".join(word.word for word in words),
                words=words,
                temperature=window.temperature,
                avg_logprob=window.avg_logprob,
                no_speech_prob=window.no_speech_prob,
            )
            words = []


def _segment(phrase: Any, chunk: Speech, place: int) -> dict[str, Any]:
    offset = place * WINDOW_SECONDS
    return {
        "start": chunk.at(phrase.start - offset),
        "end": chunk.at(phrase.end - offset),
        "text": phrase.text.strip(),
        "temperature": round(float(phrase.temperature or 0.0), 2),
        "avg_logprob": round(float(phrase.avg_logprob), 4),
        "no_speech_prob": round(float(phrase.no_speech_prob), 4),
        "words": [
            {
                "start": chunk.at(start - offset),
                "end": chunk.at(end - offset),
                "word": word,
                "probability": round(float(probability), 3),
            }
            for word, start, end, probability in _whole_words(phrase.words or ())
        ],
    }


def _whole_words(pieces: Iterable[Any]) -> Iterator[tuple[str, float, float, float]]:
    """Words as they are written: the model takes `cold-hearted` for two."""
    held: tuple[str, float, float, float] | None = None
    for piece in pieces:
        if held is not None and piece.word.startswith("-"):
            held = (
                held[0] + piece.word.strip(),
                held[1],
                piece.end,
                min(held[3], piece.probability),
            )
            continue
        if held is not None:
            yield held
        held = (piece.word.strip(), piece.start, piece.end, piece.probability)
    if held is not None:
        yield held


def _fillers(model: _Model, chunks: Sequence[Speech], language: str) -> list[list[dict[str, Any]]]:
    """Fillers of each chunk from a second decoding that is shown fillers; nothing else of it.

    One decoding of one encoding and no retries: its cost is bounded whatever is said.
    """
    phrases, _ = _together(
        model,
        chunks,
        language=language,
        initial_prompt=VERBATIM_PROMPT,
        temperature=0.0,
        max_new_tokens=_VERBATIM_TOKENS,
    )
    return [
        [
            {"start": word["start"], "end": word["end"], "word": word["word"]}
            for phrase in heard
            for word in _segment(phrase, chunk, place)["words"]
            if filler_name(word["word"]) is not None
        ]
        for place, (chunk, heard) in enumerate(zip(chunks, phrases, strict=True))
    ]


def _give_back_memory() -> None:
    """glibc keeps what was freed for later; a process that idles should not."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
