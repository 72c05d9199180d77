"""What each image installs: the packages its service can reach, from the one lock.

`make lock` writes `docker/IMAGE/requirements.in` with this, and resolves it under the constraints
of requirements.lock. So an image carries neither the emulator's nor the tools' packages, and
nobody keeps a second list by hand.
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("speakfit", "services")
"""What is copied into images; nothing else of ours may be reached from there."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image and the modules that run in it."""

    folder: str
    modules: tuple[str, ...]
    by_name: tuple[str, ...]
    """Distributions that no import names, because a library loads them by their name."""

    @property
    def requirements(self) -> Path:
        """The list that is resolved."""
        return ROOT / "docker" / self.folder / "requirements.in"

    @property
    def lock(self) -> Path:
        """The versions and hashes that are installed."""
        return self.requirements.with_suffix(".lock")


IMAGES = (
    # The API's image also migrates the database.
    Image(
        folder="api",
        modules=("services.api", "speakfit.database"),
        by_name=("gcsfs", "hiredis", "httptools", "psycopg", "uvloop"),
    ),
    Image(folder="gpu-worker", modules=("services.worker",), by_name=("gcsfs", "psycopg")),
)


def requirements(image: Image) -> list[str]:
    """What an image needs, as pyproject.toml asks for it, sorted."""
    declared = _declared()
    names = {_distribution(module) for module in _external(_reachable(image.modules))}
    names |= set(image.by_name)
    return sorted(declared.get(name, name) for name in names if name)


def _reachable(modules: Iterable[str]) -> Iterator[str]:
    """Our modules that these can import, at once or later, and their packages."""
    import grimp

    graph = grimp.build_graph(*_PACKAGES)
    found: set[str] = set()
    for module in modules:
        for one in {module, *graph.find_descendants(module)}:
            found |= {one, *graph.find_upstream_modules(one)}
    # Alembic finds the migrations in their folder.
    found |= graph.find_descendants("speakfit.migrations")
    yield from sorted(found)


def _external(modules: Iterable[str]) -> set[str]:
    """The dotted names that modules import from outside, types only left out."""
    found: set[str] = set()
    for module in modules:
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        found |= set(_imports(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))))
    return {
        name for name in found if name.split(".")[0] not in (*_PACKAGES, *sys.stdlib_module_names)
    }


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # What is imported may be a module of its own in a namespace that many share.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        yield from _imports(node)


def _distribution(name: str) -> str:
    """The distribution that a dotted name comes from."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            spec = importlib.util.find_spec(".".join(parts[:end]))
        except (ImportError, AttributeError, ValueError):
            continue
        if spec is not None and spec.origin is not None and spec.origin != "namespace":
            return _owners()[Path(spec.origin)]
    raise LookupError(f"{name} belongs to no installed distribution")


_owned: dict[Path, str] = {}


def _owners() -> Mapping[Path, str]:
    """The distribution of each installed Python file."""
    if not _owned:
        for distribution in importlib.metadata.distributions():
            name = canonical(distribution.metadata["Name"])
            for file in distribution.files or ():
                if file.suffix in (".py", ".so"):
                    _owned[Path(str(distribution.locate_file(file)))] = name
    return _owned


def canonical(name: str) -> str:
    """A distribution's name as every tool spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _declared() -> dict[str, str]:
    """What pyproject.toml asks for, by the distribution's name."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    lines = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    return {canonical(re.split(r"[\[<>=!~ ;]", line, maxsplit=1)[0]): line for line in lines}


def main() -> None:
    """Write the lists; `make lock` resolves them."""
    for image in IMAGES:
        image.requirements.write_text(
            f"# What docker/{image.folder} needs; written by `make lock`, not by hand.\n"
            + "\n".join(requirements(image))
            + "\n",
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
