"""The command on the real estate: what it runs, what it says, and how it ends."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from speakfit_ops.infra import protocol
from speakfit_ops.infra.check import checks, resize
from speakfit_ops.infra.estate import ROOT, Size, types_in_use
from speakfit_ops.infra.facts import FACTS
from speakfit_ops.infra.schema import Block, google_schema
from speakfit_ops.infra.terraform import Terraform, find_terraform


def infra(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "speakfit_ops.infra", *arguments],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def terraform() -> Terraform:
    found = find_terraform()
    if found is None:
        pytest.skip("no Terraform for this platform")
    return found


def test_the_plans_are_those_in_review_and_one_that_is_not_fails(
    terraform: Terraform, tmp_path: Path
) -> None:
    shutil.copytree(ROOT, tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*"))
    file = tmp_path / "terraform" / "plans" / "production.yaml"
    file.write_text(
        file.read_text("utf-8").replace("type: REGIONAL", "type: ZONAL"), encoding="utf-8"
    )
    done = infra("check", "--json", "--no-tests", "--dir", str(tmp_path / "terraform"))
    report = json.loads(done.stdout)
    assert done.returncode == 3
    assert [(check["name"], check["passed"]) for check in report["checks"]] == [
        ("fmt", True),
        ("init", True),
        ("validate", True),
        ("plan development", True),
        ("plan production", False),
        ("plan scale", True),
    ]
    assert report["by"] == terraform.source
    # Nothing else differs from what is kept.
    [finding] = report["checks"][4]["findings"]
    changed = [line for line in finding["what"].splitlines() if line[:1] in "+-"]
    assert changed[2:] == ["-    - availability_type: ZONAL", "+    - availability_type: REGIONAL"]


@pytest.mark.slow
def test_the_estate_is_right_and_its_modules_pass_their_own_tests(terraform: Terraform) -> None:
    done = infra("check")
    assert done.returncode == 0, done.stdout
    assert re.search(r"ok    test +\d+\.\d s  19 runs", done.stdout)
    assert done.stdout.count("as in plans/") == len(Size)


def test_growing_shows_what_is_lost(terraform: Terraform) -> None:
    findings, rows = resize(terraform, Size.DEVELOPMENT, Size.PRODUCTION)
    assert findings == []
    by_address = {row["address"]: row for row in rows}
    redis = by_address["module.redis.google_redis_instance.this"]
    assert (redis["action"], redis["because"]) == ("replace", ["tier"])
    database = by_address["module.database.google_sql_database_instance.primary"]
    assert (database["action"], database["because"]) == ("update", ["settings"])


def test_without_terraform_the_files_are_read_and_it_says_so(tmp_path: Path) -> None:
    [clean] = checks(None, list(Size))
    assert clean.name == "read"
    assert clean.findings == ()
    assert "no references followed" in clean.told
    module = tmp_path / "modules" / "redis"
    module.mkdir(parents=True)
    text = (ROOT / "modules" / "redis" / "main.tf").read_text(encoding="utf-8")
    for old, new in (
        ("auth_enabled            = true", "auth_enable             = true"),
        ('"SERVER_AUTHENTICATION"', '"TLS"'),
        ("  memory_size_gb = var.memory_gb\n", ""),
    ):
        assert old in text
        text = text.replace(old, new)
    (module / "main.tf").write_text(text, encoding="utf-8")
    [wrong] = checks(None, [Size.SCALE], source=tmp_path)
    words = "\n".join(finding.what for finding in wrong.findings)
    assert "auth_enable: no such argument or block" in words
    assert "'TLS' is none of ['SERVER_AUTHENTICATION', 'DISABLED']" in words
    assert "memory_size_gb: required and missing" in words


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("check", "--size", "huge"), 64, "'huge' is not one of"),
        (("check", "--dir", "docs"), 1, "There is no estate here"),
        (("check", "--var-file", "none.tfvars"), 1, "The file of variables cannot be read"),
        (("schema", "README.md"), 1, "This is no wheel of cdktn-provider-google"),
        (("nonsense",), 64, "No such command"),
    ],
)
def test_wrong_input_is_told_in_one_message(
    arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = infra(*arguments)
    assert (done.returncode, done.stdout.count("Traceback")) == (code, 0)
    assert says in done.stdout + done.stderr
    assert "to do:" in done.stderr


def test_a_variable_that_is_missing_is_named(terraform: Terraform, tmp_path: Path) -> None:
    """So are a name that nobody declares and a value that is refused, each with its file."""
    (tmp_path / "mine.tfvars").write_text(
        'enviroment = "dev"\nenvironment = "Dev!"\n', encoding="utf-8"
    )
    done = infra(
        "check", "--size", "development", "--no-tests", "--var-file", str(tmp_path / "mine.tfvars")
    )
    assert done.returncode == 3
    assert 'The root module input variable "project_id" is not set' in done.stdout
    assert "No variable is called enviroment: variables.tf has them all." in done.stdout


def test_a_size_that_is_none_is_told_although_each_size_is_checked(
    terraform: Terraform, tmp_path: Path
) -> None:
    sample = (ROOT / "tests" / "sample.tfvars").read_text(encoding="utf-8")
    mine = tmp_path / "mine.tfvars"
    mine.write_text(f'{sample}\nsize = "huge"\n', encoding="utf-8")
    done = infra("check", "--size", "development", "--no-tests", "--var-file", str(mine))
    assert done.returncode == 3
    assert "size must be development, production or scale" in done.stdout
    assert "plan development" in done.stdout


def test_the_messages_are_those_of_the_definition() -> None:
    assert protocol.compiled() == protocol.COMPILED.read_bytes()


def _names(block: Block, above: tuple[str, ...] = ()) -> set[str]:
    found = {".".join((*above, name)) for name in (*block.attributes, *block.blocks)}
    for name, nested in block.blocks.items():
        found |= _names(nested.block, (*above, name))
    return found


def test_schema_and_facts_are_about_the_types_in_use_and_no_others() -> None:
    resources, data_sources = types_in_use()
    schema = google_schema()
    assert set(schema.resources) == resources
    assert set(schema.data_sources) == data_sources
    assert set(FACTS) <= resources
    for name, facts in FACTS.items():
        told = {*facts.replaced, *facts.values, *facts.forms, *facts.ranges, *facts.sensitive}
        for group in (*facts.conflicts, *facts.one_of, *facts.needs):
            told |= set(group)
        assert told - _names(schema.resources[name]) == set(), name
