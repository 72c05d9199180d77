"""What must hold in every plan of any size: nobody is let in, nothing secret is written down.

Google would accept all of it, so neither schema nor overlay refuses it. Each rule is pure: a plan
in, what is wrong out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from speakfit_ops.infra.plan import Action, Plan, Planned

Rule = Callable[[Plan], Iterator[tuple[Planned, str]]]

_EVERYWHERE = {"0.0.0.0/0", "::/0", "*"}
_PRIMITIVE = {"roles/owner", "roles/editor", "roles/viewer"}
_PUBLIC = {"allUsers", "allAuthenticatedUsers"}
_PUBLIC_ON_PURPOSE = {
    # The API checks keys and tokens itself; the CDN's files are what every browser loads.
    ("google_cloud_run_v2_service_iam_member", "roles/run.invoker"),
    ("google_storage_bucket_iam_member", "roles/storage.legacyObjectReader"),
}
_SECRET_NAME = re.compile(r"(?i)(password|passwd|secret|token|credential|api_?key|private_?key)")
_SECRET_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s:@]*:[^/\s@]+@")
_NOT_SECRET = re.compile(r"(?i)(_version|_id|_names?|_path|_file)$")


def broken(plan: Plan) -> list[tuple[str, str]]:
    """Address and sentence of each thing that may not be."""
    return [
        (resource.address, words)
        for rule in RULES
        for resource, words in rule(plan)
        if resource.action is not Action.DELETE
    ]


def _blocks(values: Mapping[str, Any], *names: str) -> Iterator[Mapping[str, Any]]:
    """The blocks at a path of names."""
    if not names:
        yield values
        return
    for item in values.get(names[0]) or ():
        if isinstance(item, dict):
            yield from _blocks(item, *names[1:])


def _no_public_database(plan: Plan) -> Iterator[tuple[Planned, str]]:
    for found in plan.of("google_sql_database_instance"):
        for network in _blocks(found.values, "settings", "ip_configuration"):
            if network.get("ipv4_enabled") is not False:
                yield found, "The database has a public address: set ipv4_enabled to false."
            if network.get("ssl_mode") not in (
                "ENCRYPTED_ONLY",
                "TRUSTED_CLIENT_CERTIFICATE_REQUIRED",
            ):
                yield found, "The database takes connections without TLS: set ssl_mode."
            if network.get("authorized_networks"):
                yield found, "The database lets networks in from outside."


def _recoverable_database(plan: Plan) -> Iterator[tuple[Planned, str]]:
    for found in plan.of("google_sql_database_instance"):
        if found.values.get("master_instance_name"):
            continue
        backups = list(_blocks(found.values, "settings", "backup_configuration"))
        if not any(
            backup.get("enabled") and backup.get("point_in_time_recovery_enabled")
            for backup in backups
        ):
            yield found, "The database has no backups with point-in-time recovery."


def _closed_redis(plan: Plan) -> Iterator[tuple[Planned, str]]:
    for found in plan.of("google_redis_instance"):
        if not found.values.get("auth_enabled"):
            yield found, "Redis asks for no password: set auth_enabled."
        if found.values.get("transit_encryption_mode") != "SERVER_AUTHENTICATION":
            yield found, "Redis speaks without TLS: set transit_encryption_mode."


def _closed_firewall(plan: Plan) -> Iterator[tuple[Planned, str]]:
    for found in plan.of("google_compute_firewall"):
        if found.values.get("allow") and _EVERYWHERE & set(found.values.get("source_ranges") or ()):
            yield found, "The firewall lets everybody in."
        for allow in found.values.get("allow") or ():
            if allow.get("protocol") == "all" or not allow.get("ports"):
                yield found, "The firewall opens every port."


def _no_public_machines(plan: Plan) -> Iterator[tuple[Planned, str]]:
    for found in plan.of("google_compute_instance_template"):
        for interface in _blocks(found.values, "network_interface"):
            if interface.get("access_config") or interface.get("ipv6_access_config"):
                yield found, "Workers have a public address: remove access_config."
        shielded = list(_blocks(found.values, "shielded_instance_config"))
        if not any(one.get("enable_secure_boot") for one in shielded):
            yield found, "Workers boot whatever is there: set enable_secure_boot."


def _ranges_of_their_own(plan: Plan) -> Iterator[tuple[Planned, str]]:
    """Google refuses such ranges at apply, after the network was made."""
    taken: list[IPv4Network | IPv6Network] = []
    for found, text in [
        *((one, one.values.get("ip_cidr_range")) for one in plan.of("google_compute_subnetwork")),
        *(
            (one, f"{one.values.get('address')}/{one.values.get('prefix_length')}")
            for one in plan.of("google_compute_global_address")
            if one.values.get("purpose") == "VPC_PEERING" and one.values.get("address")
        ),
    ]:
        try:
            network = ip_network(str(text))
        except ValueError:
            yield found, f"{text} is no range: its address must be the first one in it."
            continue
        for other in taken:
            if network.overlaps(other):
                yield found, f"The range {network} overlaps {other}."
        taken.append(network)


def _least_privilege(plan: Plan) -> Iterator[tuple[Planned, str]]:
    for found in plan.resources:
        role, member = found.values.get("role"), found.values.get("member")
        # Admin of a whole kind of thing; nothing here has to give access on.
        if role in _PRIMITIVE or str(role).endswith((".admin", "Admin")):
            yield found, f"{role} is more than anything here needs."
        if member in _PUBLIC and (found.type, role) not in _PUBLIC_ON_PURPOSE:
            yield found, f"{member} has {role}."
        if found.type == "google_service_account_key":
            yield found, "A service account's key can be stolen; nothing here needs one."
    for found in plan.of("google_compute_instance_template"):
        if not found.values.get("service_account"):
            yield found, "Workers would run as Compute Engine's own account, which may edit all."
    for found in plan.of("google_iam_workload_identity_pool_provider"):
        condition = found.values.get("attribute_condition") or ""
        if "assertion.repository" not in condition or "assertion.ref" not in condition:
            yield found, "Every repository, or every branch, could become the deployer."


def _closed_buckets(plan: Plan) -> Iterator[tuple[Planned, str]]:
    public = {
        str(found.values.get("bucket"))
        for found in plan.of("google_storage_bucket_iam_member")
        if found.values.get("member") in _PUBLIC
    }
    for found in plan.of("google_storage_bucket"):
        if not found.values.get("uniform_bucket_level_access"):
            yield found, "Objects of the bucket have access lists of their own."
        name = str(found.values.get("name"))
        if name not in public and found.values.get("public_access_prevention") != "enforced":
            yield found, "The bucket can be made public: set public_access_prevention."
        if name in public and "audio" in name:
            yield found, "What people said would be public."


def _always_there(plan: Plan) -> Iterator[tuple[Planned, str]]:
    for found in plan.of("google_cloud_run_v2_service"):
        for scaling in _blocks(found.values, "template", "scaling"):
            if not scaling.get("min_instance_count"):
                yield found, "Without an instance nobody exports the queue's depth: min_instances."
        for resources in _blocks(found.values, "template", "containers", "resources"):
            if resources.get("cpu_idle") is not False:
                yield found, "Without CPU between requests no metric is exported: cpu_idle."
        for container in _blocks(found.values, "template", "containers"):
            if not container.get("startup_probe") or not container.get("liveness_probe"):
                yield found, "The API is not asked whether it is ready and alive."
        for probe in _blocks(found.values, "template", "containers", "startup_probe", "http_get"):
            if probe.get("path") != "/readyz":
                yield found, "A revision could serve without its database: probe /readyz."


def _by_digest(plan: Plan) -> Iterator[tuple[Planned, str]]:
    for kind in ("service", "job", "worker_pool"):
        for found in plan.of(f"google_cloud_run_v2_{kind}"):
            inner = ("template",) if kind == "job" else ()
            for container in _blocks(found.values, "template", *inner, "containers"):
                if "@sha256:" not in str(container.get("image")):
                    yield found, "The image is not named by its digest."
    for found in plan.of("google_compute_instance_template"):
        image = (found.values.get("metadata") or {}).get("speakfit-image", "")
        if "@sha256:" not in image:
            yield found, "The image is not named by its digest."


def _nothing_secret(plan: Plan) -> Iterator[tuple[Planned, str]]:
    """No argument, variable, label or script of any resource holds what should be a secret."""
    for found in plan.resources:
        for path, text in _texts(found.values):
            last = path[-1] if path else ""
            named = path[-2] if last == "value" and len(path) > 1 else last
            if _SECRET_ADDRESS.search(text):
                yield found, f"{'.'.join(path)} holds an address with a password."
            elif last in ("secret_data", "password", "root_password", "private_key"):
                yield found, f"{last} would be in the state: use {last}_wo."
            elif (
                path[0] in ("template", "metadata")
                and _SECRET_NAME.search(named)
                and not _NOT_SECRET.search(named)
                and last == "value"
            ):
                yield found, f"{named} is written down; put it into Secret Manager."


def _texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each text within a value; one of a list of name and value goes by its name."""
    if isinstance(value, str):
        if value:
            yield path, value
    elif isinstance(value, dict):
        name = value.get("name")
        for key, item in value.items():
            above = (*path, name) if key == "value" and isinstance(name, str) else path
            yield from _texts(item, (*above, key))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, path)


RULES: tuple[Rule, ...] = (
    _no_public_database,
    _recoverable_database,
    _closed_redis,
    _closed_firewall,
    _no_public_machines,
    _ranges_of_their_own,
    _least_privilege,
    _closed_buckets,
    _always_there,
    _by_digest,
    _nothing_secret,
)
