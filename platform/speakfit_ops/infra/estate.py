"""The estate of `terraform/` in a folder of its own, with Terraform and stand-in providers."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from speakfit.errors import InfraError
from speakfit_ops.infra.plan import Plan, kept_plan
from speakfit_ops.infra.provider import Provider, attached
from speakfit_ops.infra.schema import google_schema, random_schema
from speakfit_ops.infra.terraform import Done, Terraform

ROOT = Path(__file__).resolve().parents[3] / "terraform"
PLANS = Path("plans")
"""What each size would make, kept for review."""
SAMPLE = Path("tests/sample.tfvars")
"""Stands in for what only a real project has: its id, images, domain."""


class Size(StrEnum):
    """How big the estate is; terraform/sizes.tf says what each means."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"
    SCALE = "scale"


@dataclass(frozen=True, kw_only=True)
class Estate:
    """A copy of the estate that Terraform can run in; nothing of it is Google's."""

    folder: Path
    terraform: Terraform
    environment: Mapping[str, str]
    providers: Sequence[Provider]
    own: Path | None = None
    """Somebody's own values, in place of the sample's."""

    def run(self, *arguments: str) -> Done:
        """One Terraform command."""
        return self.terraform.run(self.folder, *arguments, environment=self.environment)

    def init(self) -> Done:
        """`terraform init`: finds the modules; the providers are there already."""
        return self.run("init", "-backend=false", "-json")

    def plan(self, size: Size, *arguments: str, as_named: bool = False) -> Done:
        """`terraform plan` of one size into the file `SIZE.plan`.

        `as_named`: of the size that somebody's own values name instead, where they name one.
        """
        return self.run(
            "plan",
            "-json",
            f"-out={size}.plan",
            *(one for one in self.var_files(size) if not (as_named and one == f"-var=size={size}")),
            *arguments,
        )

    def var_files(self, size: Size) -> list[str]:
        """The options that fill in what a project has and choose a size; own values win."""
        chosen = f"-var-file=envs/{size}.tfvars"
        if self.own is None:
            return [f"-var-file={SAMPLE}", chosen]
        return [chosen, f"-var-file=../own/{self.own.name}", f"-var=size={size}"]

    def shown(self, size: Size) -> dict[str, Any]:
        """The plan of a size as JSON."""
        done = self.run("show", "-json", f"{size}.plan")
        if done.code != 0:
            raise InfraError("The plan cannot be read.", where=str(size), todo=done.text.strip())
        document: dict[str, Any] = done.document()
        return document

    @property
    def secrets(self) -> list[str]:
        """Every secret value that went through the providers until now."""
        return [value for provider in self.providers for value in provider.secrets]


@contextmanager
def estate(
    terraform: Terraform, source: Path = ROOT, var_file: Path | None = None
) -> Iterator[Estate]:
    """The estate of a folder, copied; `var_file` takes the place of the sample's values.

    Raises InfraError when the folder holds no estate.
    """
    if not (source / "main.tf").is_file():
        raise InfraError(
            "There is no estate here.",
            where=str(source),
            todo="Run it in a checkout, or name the folder of main.tf with --dir.",
        )
    providers = [Provider(schema=google_schema()), Provider(schema=random_schema())]
    with tempfile.TemporaryDirectory(prefix="speakfit-estate-") as temporary:
        folder = Path(temporary) / "terraform"
        shutil.copytree(
            source,
            folder,
            # Neither a state nor somebody's own values, nor a backend that would be asked.
            ignore=shutil.ignore_patterns(
                ".terraform*", "*.tfstate*", "terraform.tfvars", "*.auto.tfvars", "backend.tf"
            ),
        )
        if var_file is not None:
            try:
                (folder.parent / "own").mkdir()
                shutil.copyfile(var_file, folder.parent / "own" / var_file.name)
            except OSError as error:
                raise InfraError(
                    f"The file of variables cannot be read: {error.strerror}.",
                    where=str(var_file),
                    todo="Name an existing .tfvars file.",
                ) from error
        with attached(providers) as environment:
            yield Estate(
                folder=folder,
                terraform=terraform,
                # Nobody's own configuration of Terraform may lead it elsewhere.
                environment={**environment, "TF_CLI_CONFIG_FILE": "/dev/null"},
                providers=providers,
                own=var_file,
            )


def types_in_use(source: Path = ROOT) -> tuple[set[str], set[str]]:
    """Google's resource types and data sources that the estate's files name."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in source.rglob("*.tf"))
    return (
        set(re.findall(r'(?m)^resource "(google_\w+)"', text)),
        set(re.findall(r'(?m)^data "(google_\w+)"', text)),
    )


def kept(size: Size, source: Path = ROOT) -> Plan:
    """The plan of a size that is kept for review; needs no Terraform."""
    import yaml

    file = source / PLANS / f"{size}.yaml"
    try:
        return kept_plan(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise InfraError(
            f"The kept plan cannot be read: {error}",
            where=str(file),
            todo="Write it anew: python -m speakfit_ops.infra check --write-plans",
        ) from error
