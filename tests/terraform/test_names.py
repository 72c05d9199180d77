"""What Terraform calls things is what the services, the alerts and the deploy call them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kombu.utils.url import parse_url

from speakfit.metrics import QUEUE_DEPTH
from speakfit.settings import Settings
from tests.terraform.conftest import Applied

ROOT = Path(__file__).resolve().parents[2]


def planned(applied: Applied, resource_type: str) -> list[dict[str, Any]]:
    return [
        change["change"]["after"]
        for change in applied.plan["resource_changes"]
        if change["type"] == resource_type
    ]


def variables(applied: Applied, container: dict[str, Any]) -> set[str]:
    return {entry["name"] for entry in container["env"]}


def script(applied: Applied) -> str:
    [template] = planned(applied, "google_compute_instance_template")
    text = template["metadata"]["startup-script"]
    assert isinstance(text, str)
    return text


def worker_variables(applied: Applied) -> set[str]:
    body = script(applied).split('> "$SECRETS/worker.env"')[0]
    return set(re.findall(r"echo [\"']([A-Z_]+)=", body)) - {"SERVICE_VERSION"}


def test_every_variable_is_a_setting_and_every_needed_one_is_set(applied: Applied) -> None:
    known = {name.upper() for name in Settings.model_fields}
    [service] = planned(applied, "google_cloud_run_v2_service")
    [job] = planned(applied, "google_cloud_run_v2_job")
    api = variables(applied, service["template"][0]["containers"][0])
    migration = variables(applied, job["template"][0]["template"][0]["containers"][0])
    worker = worker_variables(applied)
    assert api - known == set()
    assert worker - known == set()
    # What the entry points ask for with Settings.require, from their own text.
    needed = {
        folder: {
            name.upper()
            for file in (ROOT / "services" / folder).rglob("*.py")
            for name in re.findall(r'require\("(\w+)"\)', file.read_text(encoding="utf-8"))
        }
        for folder in ("api", "worker")
    }
    assert needed["api"] | {"DATABASE_URL", "GOOGLE_CLOUD_PROJECT"} <= api
    # Only the engine that replays results asks for a folder of them; the cloud runs a model.
    worker_needs = needed["worker"] - {"RECORDED_SPEECH_DIR"}
    assert worker_needs | {"DATABASE_URL", "GOOGLE_CLOUD_PROJECT", "WHISPER_MODEL"} <= worker
    assert migration == {"DATABASE_URL"}


def test_the_api_is_asked_where_it_answers(applied: Applied) -> None:
    [service] = planned(applied, "google_cloud_run_v2_service")
    container = service["template"][0]["containers"][0]
    assert container["ports"][0]["container_port"] == Settings.model_fields["port"].default
    routes = (ROOT / "services" / "api" / "readiness.py").read_text(encoding="utf-8")
    for probe in ("startup_probe", "liveness_probe"):
        path = container[probe][0]["http_get"][0]["path"]
        assert f'"{path}"' in routes


def test_the_autoscaler_follows_the_metric_that_the_api_exports(applied: Applied) -> None:
    [autoscaler] = planned(applied, "google_compute_region_autoscaler")
    [metric] = autoscaler["autoscaling_policy"][0]["metric"]
    assert metric["name"] == QUEUE_DEPTH.type
    assert metric["filter"] == 'resource.type = "generic_task"'


def test_the_addresses_are_understood_by_the_clients_that_read_them(applied: Applied) -> None:
    import redis
    from sqlalchemy import make_url

    written = set(applied.estate.secrets)
    [database] = [text for text in written if "psycopg" in text and "replica" not in text][:1]
    url = make_url(database)
    assert url.query["sslmode"] == "verify-ca"
    assert url.password
    assert url.database == "speakfit"
    [broker] = [text for text in written if text.startswith("rediss://")]
    query = parse_qs(urlsplit(broker).query)
    files = {query["ssl_ca_certs"][0], str(url.query["sslrootcert"])}
    parsed = parse_url(broker)
    assert parsed["ssl"]["ssl_check_hostname"] is False
    assert parsed["ssl"]["ssl_ca_certs"] in files
    client = redis.Redis.from_url(broker)
    options = client.connection_pool.connection_kwargs
    assert options["ssl_cert_reqs"] == "required"
    assert options["ssl_check_hostname"] is False
    # Both files are put where the addresses say, in the API and on the machines.
    [service] = planned(applied, "google_cloud_run_v2_service")
    mounts = service["template"][0]["containers"][0]["volume_mounts"]
    assert {f"{mount['mount_path']}/ca.pem" for mount in mounts} == files
    for file in files:
        assert f"/files{Path(file).parent}:{Path(file).parent}:ro" in script(applied)


def test_the_start_up_script_is_one_that_the_shell_reads(applied: Applied) -> None:
    text = script(applied)
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    # Nothing of the template's own language is left.
    assert "${" not in text
    assert "%{" not in text


def test_what_a_deploy_changes_is_there_and_left_alone(applied: Applied) -> None:
    [template] = planned(applied, "google_compute_instance_template")
    assert {"speakfit-image", "speakfit-release"} <= set(template["metadata"])
    text = (ROOT / "terraform" / "modules" / "api" / "main.tf").read_text(encoding="utf-8")
    for argument in ("template[0].containers[0].image", "template[0].revision", "traffic"):
        assert f"      {argument},\n" in text
