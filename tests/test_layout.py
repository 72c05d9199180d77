"""Guards the layout: each rule here was learnt from a crash (docs/decisions.md, "Layout")."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ("platform", "alerts", "dashboards", "loadtest", "services", "tests", "scripts")


def python_files() -> list[Path]:
    return [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]


def test_platform_is_a_folder_and_never_a_module() -> None:
    # platform/__init__.py would shadow the standard library's platform: python -m, pytest,
    # uvicorn, celery and locust all crash then.
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert [path.name for path in (ROOT / "platform").glob("*.py")] == []


def test_the_standard_librarys_platform_is_what_everyone_imports() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.python_version())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count(".") == 2


def test_no_module_bears_the_name_of_a_standard_library_module() -> None:
    # Locust and `python FILE` put the file's own folder first on the path.
    allowed = {"__init__", "__main__"}
    wrong = [
        str(path.relative_to(ROOT))
        for path in python_files()
        if path.stem in sys.stdlib_module_names - allowed
    ]
    assert wrong == []


def test_every_test_folder_is_a_package_and_none_is_called_platform() -> None:
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert [str(f) for f in folders if not (f / "__init__.py").exists()] == []
    assert not [f for f in folders if f.name == "platform"]


@pytest.mark.parametrize(
    "module",
    [
        "alerts",
        "loadtest",
        "services.api",
        "services.migrate",
        "services.worker",
        "speakfit.emulator",
        "speakfit_ops.infra",
    ],
)
def test_every_command_answers_help_from_the_root(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout or "usage" in done.stdout


def test_the_lock_covers_every_declared_dependency() -> None:
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"]]
    for extra in ("local", "load", "deploy", "dev", "infra"):
        declared += project["optional-dependencies"][extra]
    locked = set(
        re.findall(r"(?m)^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text("utf-8"))
    )
    names = {re.split(r"[\[<>=!~ ;]", item, maxsplit=1)[0].lower() for item in declared}
    assert names - locked == set(), "run `make lock`"


def test_what_locust_loads_knows_no_grpc() -> None:
    # Under gevent a silent gRPC peer stalls every greenlet: the gate reads telemetry elsewhere.
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, loadtest.locustfile; print([m for m in sys.modules if 'grpc' in m])",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
