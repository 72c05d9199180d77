"""What deploy and credentials call by name is what Terraform makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hcl2
import pytest

from speakfit_ops.credentials.inventory import SECRETS
from speakfit_ops.credentials.rotation import USER
from speakfit_ops.deploy.estate import Estate
from speakfit_ops.deploy.workers import IMAGE_KEY, RELEASE_KEY

TERRAFORM = Path(__file__).resolve().parents[2] / "terraform"
ESTATE = Estate(project="p", region="r", environment="prod")

pytestmark = pytest.mark.skipif(
    not (TERRAFORM / "main.tf").exists(), reason="the estate is not written down yet"
)


def plain(value: Any) -> Any:
    """Without the quotation marks that the parser leaves around texts."""
    if isinstance(value, str):
        return value.strip('"')
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {plain(key): plain(one) for key, one in value.items()}
    return value


def blocks(path: str, kind: str) -> list[tuple[list[str], dict[str, Any]]]:
    """The blocks of a file: their labels and what is in them."""

    def inside(labels: list[str], value: Any) -> list[tuple[list[str], dict[str, Any]]]:
        if len(labels) < {"resource": 2, "module": 1}[kind]:
            return [one for key, under in value.items() for one in inside([*labels, key], under)]
        return [(labels, value)]

    with (TERRAFORM / path).open() as file:
        return [one for block in plain(hcl2.load(file)).get(kind, []) for one in inside([], block)]


def resource(path: str, kind: str) -> dict[str, Any]:
    return next(body for labels, body in blocks(path, "resource") if labels[0] == kind)


def test_every_secret_is_made_by_terraform_for_those_who_read_it() -> None:
    text = (TERRAFORM / "main.tf").read_text()
    made = {}
    for labels, body in blocks("main.tf", "module"):
        if body["source"] != "./modules/secret":
            continue
        both = body["readers"] == "${local.runtime_readers}"
        if labels == ["people_secret"]:
            people = text.partition("filled_by_people = toset([")[2].partition("])")[0]
            for name in people.replace('"', "").split(","):
                made[name.strip()] = (("api",), True, False)
        else:
            name = body["name"].removeprefix("${local.name}-")
            made[name] = (
                ("api", "worker") if both else tuple(body["readers"]),
                False,
                "count" in body,
            )
    assert made == {one.name: (one.readers, one.by_people, one.optional) for one in SECRETS}


def test_every_resource_is_called_as_terraform_calls_it() -> None:
    def name(path: str, kind: str, key: str = "name") -> str:
        return str(resource(path, kind)[key]).replace("${var.name}", ESTATE.prefix)

    assert name("modules/api/main.tf", "google_cloud_run_v2_service") == ESTATE.service
    job = name("modules/migration/main.tf", "google_cloud_run_v2_job")
    assert ESTATE.job_name.endswith(f"/{job}")
    workers = "modules/gpu-worker/main.tf"
    assert name(workers, "google_compute_region_instance_group_manager") == ESTATE.workers
    prefix = name(workers, "google_compute_instance_template", "name_prefix")
    assert prefix == f"{ESTATE.workers}-"
    assert {IMAGE_KEY, RELEASE_KEY} <= set(
        resource(workers, "google_compute_instance_template")["metadata"]
    )
    database = "modules/database/main.tf"
    assert name(database, "google_sql_database_instance") == ESTATE.database
    assert name(database, "google_sql_user") == USER
    account = name("modules/identity/main.tf", "google_service_account", "account_id")
    assert ESTATE.account("api").startswith(account.replace("${each.key}", "api") + "@")


def test_what_a_release_changes_terraform_leaves_alone() -> None:
    service = resource("modules/api/main.tf", "google_cloud_run_v2_service")
    left = str(service["lifecycle"])
    for one in ("annotations", "traffic", "template[0].revision", "containers[0].image"):
        assert one in left, one
    assert "/readyz" in str(service["template"]), "what proves a revision behind a balancer"
    group = resource("modules/gpu-worker/main.tf", "google_compute_region_instance_group_manager")
    assert "version" in str(group["lifecycle"])
