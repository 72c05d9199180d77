"""The audio store: uploads named by their content, and chunks until they are transcribed.

A local folder, or a bucket (`gs://`) that API and workers on other machines share. What is there
is whole: a write is seen under its name only when it is complete and, locally, on the disk.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec

from speakfit.errors import AudioError, SettingsError, StoreError
from speakfit.settings import Settings

BUCKET = "gs://"

_CALL_LIMIT = timedelta(seconds=10)
_SILENCE_LIMIT = timedelta(seconds=10)
_SLOWEST_BYTES_PER_SECOND = 500_000
_ABANDONED_AFTER = timedelta(hours=6)
_TRIES = 2
_SECRET = ".signing-key"
_GOOGLE = "https://storage.googleapis.com"
_SIGNING_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)

logger = logging.getLogger(__name__)


def object_key(checksum: str) -> str:
    """Where the store keeps an upload with this SHA-256 (hexadecimal)."""
    return f"sha256/{checksum[:2]}/{checksum[2:]}"


def source_key(recording_id: uuid.UUID, known: str | None) -> str:
    """Where a recording's upload is; before objects were shared each had a folder of its own."""
    return known or f"{recording_id}/source"


def staging_key(upload_id: uuid.UUID) -> str:
    """Where an upload to a signed address waits until its caller completes it."""
    return f"uploads/{upload_id}"


def chunk_key(recording_id: uuid.UUID, index: int) -> str:
    """Where a chunk's samples wait to be transcribed."""
    return f"{chunk_folder(recording_id)}/{index:05d}.wav"


def chunk_folder(recording_id: uuid.UUID) -> str:
    """The folder of a recording's chunks; nothing else is in it."""
    return f"chunks/{recording_id}"


def checksum_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Target:
    """An address that takes one file by PUT, from whoever has it."""

    url: str = field(repr=False)
    headers: dict[str, str]
    """To be sent with the file; the signature covers them."""


class AudioStore(ABC):
    """Keeps bytes under keys; `scratch` is a local folder for what is on its way.

    FileNotFoundError says that nothing is under a key. Other OSErrors are this machine's trouble
    (disk full), StoreError is the store's; both may pass.
    """

    def __init__(self, scratch: Path) -> None:
        self._incoming = scratch / ".incoming"

    def new_part(self) -> Path:
        """A local name nobody else uses, for a file on its way in or out."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        return self._incoming / f"{uuid.uuid4()}.part"

    def free_parts(self) -> None:
        """Remove what killed processes left on their way; called when one starts.

        Only what is old: another process may be using the same folder right now.
        """
        horizon = time.time() - _ABANDONED_AFTER.total_seconds()
        for part in self._incoming.glob("*.part"):
            with suppress(FileNotFoundError):
                if part.stat().st_mtime < horizon:
                    part.unlink()

    @abstractmethod
    def put(self, part: Path, key: str) -> None:
        """Keep a copy of a file, durably; the part stays until its owner removes it."""

    @abstractmethod
    def write(self, key: str, content: bytes) -> None:
        """Keep bytes, durably."""

    @abstractmethod
    def read(self, key: str) -> bytes:
        """The bytes under a key."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove what is under a key; fine when nothing is."""

    @abstractmethod
    def remove_folder(self, folder: str) -> None:
        """Remove everything whose key begins with the folder's; fine when nothing does."""

    @abstractmethod
    def sign(self, key: str, *, size_bytes: int, lasts: timedelta) -> Target | None:
        """An address of the store itself, for one file of this size under a key that is free.

        None where the store has no addresses: then the API takes the file.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise when the store cannot be used now."""

    @abstractmethod
    def _fetch(self, key: str) -> Path:
        """A local file with the content; `_release` it."""

    @abstractmethod
    def _release(self, path: Path) -> None: ...

    @contextmanager
    def local(self, key: str, checksum: str) -> Iterator[Path]:
        """The content as a local file, proven to be what was uploaded.

        Raises AudioError with code `damaged` when the store gives other bytes, twice.
        """
        path = self._fetch(key)
        try:
            for _ in range(_TRIES - 1):
                if checksum_of(path) == checksum:
                    break
                logger.error("the store gave other bytes than were uploaded; asking again")
                self._release(path)
                path = self._fetch(key)
            else:
                if checksum_of(path) != checksum:
                    raise AudioError(
                        "The stored audio is damaged.", code="damaged", todo="Upload it again."
                    )
            yield path
        finally:
            self._release(path)

    @contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        """What is under a key as a local file, whatever it is; only to be read."""
        path = self._fetch(key)
        try:
            yield path
        finally:
            self._release(path)

    def remove_chunks(self, recording_id: uuid.UUID) -> None:
        """Remove a finished recording's chunks; what cannot be removed now is logged and stays."""
        try:
            self.remove_folder(chunk_folder(recording_id))
        except (OSError, StoreError) as error:
            logger.warning("chunks could not be removed: %s", type(error).__name__)


class LocalStore(AudioStore):
    """A folder of this machine, or one that all machines mount."""

    def __init__(self, root: Path, scratch: Path) -> None:
        super().__init__(scratch)
        self._root = root

    def put(self, part: Path, key: str) -> None:
        def place(temporary: Path) -> None:
            try:
                os.link(part, temporary)
            except OSError:
                # Another file system, or one without links.
                shutil.copyfile(part, temporary)

        self._install(key, place)

    def put_once(self, part: Path, key: str) -> bool:
        """Keep a file unless something is under the key already; False when something is."""
        try:
            self._install(key, lambda temporary: os.link(part, temporary), anew=True)
        except FileExistsError:
            return False
        return True

    def holds(self, key: str) -> bool:
        """Whether something is under a key."""
        return (self._root / key).exists()

    def secret(self) -> bytes:
        """What addresses of this folder are signed with; all who mount it share it.

        Removing the file makes every address invalid that was given out.
        """
        file = self._root / _SECRET
        if not file.exists():
            self._root.mkdir(parents=True, exist_ok=True)
            temporary = file.with_name(f"{_SECRET}.{uuid.uuid4().hex}")
            temporary.touch(mode=0o600)
            try:
                temporary.write_bytes(secrets.token_bytes(32))
                _sync(temporary)
                # Another process may be first: then its secret holds.
                with suppress(FileExistsError):
                    os.link(temporary, file)
            finally:
                temporary.unlink()
        return file.read_bytes()

    def write(self, key: str, content: bytes) -> None:
        self._install(key, lambda temporary: temporary.write_bytes(content))

    def _install(self, key: str, place: Any, *, anew: bool = False) -> None:
        final = self._root / key
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(f".{uuid.uuid4().hex}.part")
        try:
            place(temporary)
            _sync(temporary)
            if anew:
                os.link(temporary, final)
            else:
                temporary.replace(final)
        finally:
            # It is still there after an error, and where both names were the same file already.
            temporary.unlink(missing_ok=True)
        folder = final.parent
        while folder != self._root.parent:
            _sync(folder)
            folder = folder.parent

    def read(self, key: str) -> bytes:
        return (self._root / key).read_bytes()

    def remove(self, key: str) -> None:
        # Its folder stays: another upload may be about to write there.
        (self._root / key).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self._root / folder)

    def sign(self, key: str, *, size_bytes: int, lasts: timedelta) -> Target | None:
        return None

    def check(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        if not os.access(self._root, os.W_OK):
            raise StoreError(
                "The audio folder cannot be written.",
                where="AUDIO_STORE",
                todo="Let the service's account write there.",
            )

    def _fetch(self, key: str) -> Path:
        return self._root / key

    def _release(self, path: Path) -> None:
        return None


class BucketStore(AudioStore):
    """A bucket of Google Cloud Storage, whose writes are seen whole or not at all.

    STORAGE_EMULATOR_HOST, the convention of Google's own clients, points it elsewhere.
    """

    def __init__(self, address: str, scratch: Path) -> None:
        super().__init__(scratch)
        # Its support of zonal buckets brings a gRPC client, which must not be in processes that
        # start others; read when first imported.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        emulated = bool(os.environ.get("STORAGE_EMULATOR_HOST"))
        try:
            import aiohttp

            # Not for a whole file, which may be large: for a connection, and between two pieces.
            silence = _SILENCE_LIMIT.total_seconds()
            self._files: Any = fsspec.filesystem(
                "gs",
                token="anon" if emulated else None,
                consistency="md5",
                use_listings_cache=False,
                requests_timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=silence, sock_read=silence
                ),
            )
        except ImportError as error:
            raise SettingsError(
                "Audio in a bucket needs gcsfs.",
                where="AUDIO_STORE",
                todo="Install it: `pip install 'speakfit-platform[gcs]'`.",
            ) from error
        self._root = address.removeprefix(BUCKET).rstrip("/")

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def put(self, part: Path, key: str) -> None:
        with _store_errors(writing=True):
            self._files.put_file(str(part), self._path(key), timeout=_limit(part.stat().st_size))

    def write(self, key: str, content: bytes) -> None:
        with _store_errors(writing=True):
            self._files.pipe_file(self._path(key), content, timeout=_limit(len(content)))

    def read(self, key: str) -> bytes:
        with _store_errors():
            content: bytes = self._files.cat_file(self._path(key), timeout=_limit(0))
        return content

    def remove(self, key: str) -> None:
        with _store_errors(), suppress(FileNotFoundError):
            self._files.rm_file(self._path(key), timeout=_limit(0))

    def remove_folder(self, folder: str) -> None:
        with _store_errors():
            for path in self._files.find(self._path(folder), timeout=_limit(0)):
                with suppress(FileNotFoundError):
                    self._files.rm_file(path, timeout=_limit(0))

    def sign(self, key: str, *, size_bytes: int, lasts: timedelta) -> Target | None:
        # Google refuses another size with 400, and a second file with 412.
        headers = {
            "x-goog-content-length-range": f"{size_bytes},{size_bytes}",
            "x-goog-if-generation-match": "0",
        }
        with _store_errors():
            return Target(url=self._signed(key, headers, lasts), headers=headers)

    def _signed(self, key: str, headers: dict[str, str], lasts: timedelta) -> str:
        import google.auth
        from google.auth import credentials as kinds
        from google.auth.transport.requests import Request
        from google.cloud import storage  # type: ignore[attr-defined]

        account: Any
        account, _ = google.auth.default(scopes=_SIGNING_SCOPES)
        signer: dict[str, Any] = {"credentials": account}
        if not isinstance(account, kinds.Signing):
            # On Cloud Run nobody has the key: Google signs (signBlob) as the service's account.
            account.refresh(Request())
            signer = {
                "service_account_email": account.service_account_email,
                "access_token": account.token,
            }
        nobody: Any = kinds.AnonymousCredentials
        bucket, _, folder = self._root.partition("/")
        name = f"{folder}/{key}" if folder else key
        client = storage.Client(project="unused", credentials=nobody())
        url: str = (
            client.bucket(bucket)
            .blob(name)
            .generate_signed_url(
                version="v4",
                method="PUT",
                expiration=lasts,
                # It adds to what it is given.
                headers=dict(headers),
                api_access_endpoint=os.environ.get("STORAGE_EMULATOR_HOST") or _GOOGLE,
                **signer,
            )
        )
        return url

    def check(self) -> None:
        with _store_errors():
            self._files.find(self._path(".ready"), timeout=2)

    def _fetch(self, key: str) -> Path:
        path = self.new_part()
        try:
            with _store_errors():
                size = self._files.info(self._path(key), timeout=_limit(0))["size"]
                self._files.get_file(
                    self._path(key), str(path), concurrency=1, timeout=_limit(size)
                )
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _release(self, path: Path) -> None:
        path.unlink(missing_ok=True)


@contextmanager
def _store_errors(*, writing: bool = False) -> Iterator[None]:
    """Turn what the client of a bucket raises into StoreError.

    A full disk stays OSError; so does an object that is not there, but nothing has to be there
    to be written: then it is the bucket that is missing. A line that breaks has a number like a
    full disk has, and is the store's trouble all the same.
    """
    try:
        yield
    except Exception as error:
        from aiohttp import ClientError

        missing = isinstance(error, FileNotFoundError)
        line = isinstance(error, ClientError | ConnectionError | TimeoutError)
        machine = isinstance(error, OSError) and error.errno and not line
        if (missing and not writing) or machine:
            raise
        reason = "has no such bucket" if missing else "does not answer"
        raise StoreError(
            f"The audio store {reason} ({type(error).__name__}).",
            where="AUDIO_STORE",
            todo="Try again later; see whether the bucket is there and may be used.",
        ) from error


def _limit(size: int) -> float:
    """Seconds a call may take: never for ever, longer for large files."""
    return _CALL_LIMIT.total_seconds() + size / _SLOWEST_BYTES_PER_SECOND


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_store(settings: Settings) -> AudioStore:
    """The store that AUDIO_STORE names; without it, the folder AUDIO_DIR."""
    address = settings.audio_store
    if address is not None and address.startswith(BUCKET):
        return BucketStore(address, settings.audio_dir)
    return LocalStore(
        Path(address.removeprefix("file://")) if address else settings.audio_dir,
        settings.audio_dir,
    )
