"""What a plan costs a month at list price, part by part, beside what the founding document hoped.

Compute, database and broker come from the plan itself; traffic, storage and telemetry from the
table's assumptions, which it prints. Every resource type is either priced or named as free: one
that nobody thought of is an error, not a zero.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from speakfit.errors import InfraError
from speakfit_ops.infra.plan import Action, Plan, Planned

if TYPE_CHECKING:
    from alerts.policy import Catalog
    from speakfit_ops.infra.estate import Size
    from speakfit_ops.infra.prices import PriceBook, Usage

_HOUR_SECONDS = 3600
_MILLION = 1_000_000
_MEBIBYTE = 2**20


class Part(StrEnum):
    """The founding document's parts, and the one it forgot."""

    API = "api"
    DATABASE = "database"
    REDIS = "redis"
    WORKER = "worker"
    STORAGE_AND_NETWORK = "storage and network"
    OBSERVABILITY = "observability"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One product: so much of it, at so much a unit, is so much a month."""

    part: Part
    what: str
    quantity: float
    price: str
    """Row of the price table."""
    monthly: float


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """A change, and what it saves a month."""

    part: Part
    words: str
    saves: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A size, priced."""

    size: str
    lines: tuple[Line, ...]
    founding: Mapping[str, tuple[float, float]]
    alternatives: tuple[Alternative, ...]

    def of(self, part: Part) -> float:
        """Dollars a month of one part."""
        return sum(line.monthly for line in self.lines if line.part is part)

    @property
    def total(self) -> float:
        """Dollars a month."""
        return sum(line.monthly for line in self.lines)


Pricer = Callable[[Planned, "Bill"], Iterator[Line]]


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What the prices of one size are worked out from."""

    plan: Plan
    book: PriceBook
    usage: Usage

    def line(self, part: Part, what: str, quantity: float, price: str, share: float = 1) -> Line:
        """Quantity times price, times a share for discounts and doubles."""
        return Line(
            part=part,
            what=what,
            quantity=quantity * share,
            price=price,
            monthly=quantity * share * self.book.price(price).price,
        )


def estimate(plan: Plan, book: PriceBook, size: Size, catalog: Catalog) -> Estimate:
    """Price a plan and the alert policies that go with it."""
    bill = Bill(plan=plan, book=book, usage=book.usage[size])
    lines = [*_of_plan(bill), *_of_traffic(bill), *_of_telemetry(bill), *_of_alerts(bill, catalog)]
    return Estimate(
        size=str(size),
        lines=_merged(lines),
        founding=book.founding[size],
        alternatives=tuple(_alternatives(bill, book.founding[size])),
    )


def _merged(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Lines about the same become one; those that cost nothing go."""
    found: dict[tuple[Part, str, str], Line] = {}
    for line in lines:
        key = (line.part, line.what, line.price)
        if key in found:
            line = replace(
                line,
                quantity=line.quantity + found[key].quantity,
                monthly=line.monthly + found[key].monthly,
            )
        if line.monthly > 0:
            found[key] = line
    return tuple(found.values())


def _of_plan(bill: Bill) -> Iterator[Line]:
    for resource in bill.plan.resources:
        if resource.action is Action.DELETE:
            continue
        pricer = PRICED.get(resource.type)
        if pricer is not None:
            yield from pricer(resource, bill)
        elif resource.type not in FREE:
            raise InfraError(
                f"Nobody has said what {resource.type} costs.",
                where=resource.address,
                todo="Price it in speakfit_ops/infra/cost.py, or name it as free there.",
            )


def _block(values: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """The first block at a path; empty where there is none."""
    for name in names:
        found = values.get(name) or [{}]
        values = found[0] if isinstance(found, list) else found
    return values


def _gib(memory: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", memory).groups()  # type: ignore[union-attr]
    return int(number) / (1024 if unit == "Mi" else 1)


def _service(resource: Planned, bill: Bill) -> Iterator[Line]:
    limits = _block(resource.values, "template", "containers", "resources")["limits"]
    count = _block(resource.values, "template", "scaling")["min_instance_count"]
    seconds = count * bill.book.hours * _HOUR_SECONDS
    words = f"Cloud Run, {count} instance(s) always"
    yield bill.line(Part.API, f"{words}, CPU", seconds * float(limits["cpu"]), "run-vcpu-second")
    yield bill.line(
        Part.API, f"{words}, memory", seconds * _gib(limits["memory"]), "run-gib-second"
    )


def _worker_pool(resource: Planned, bill: Bill) -> Iterator[Line]:
    limits = _block(resource.values, "template", "containers", "resources")["limits"]
    count = _block(resource.values, "scaling")["manual_instance_count"]
    hours = count * bill.book.hours
    words = f"worker pool, {count} instance(s)"
    yield bill.line(Part.WORKER, f"{words}, L4", hours, "run-l4-hour")
    seconds = hours * _HOUR_SECONDS
    yield bill.line(Part.WORKER, f"{words}, CPU", seconds * float(limits["cpu"]), "run-vcpu-second")
    yield bill.line(
        Part.WORKER, f"{words}, memory", seconds * _gib(limits["memory"]), "run-gib-second"
    )


def _shape(tier: str) -> tuple[int, float]:
    """vCPU and GB of a db-custom tier."""
    found = re.fullmatch(r"db-custom-(\d+)-(\d+)", tier)
    if found is None:
        raise InfraError(
            f"There is no price for {tier}.",
            where="settings.tier",
            todo="Take a db-custom tier, or price it in speakfit_ops/infra/cost.py.",
        )
    return int(found[1]), int(found[2]) / 1024


def _database(resource: Planned, bill: Bill) -> Iterator[Line]:
    settings = _block(resource.values, "settings")
    cpus, memory = _shape(settings["tier"])
    regional = settings["availability_type"] == "REGIONAL"
    copies = 2 if regional else 1
    replica = bool(resource.values.get("master_instance_name"))
    name = "replica" if replica else "primary with standby" if regional else "primary"
    hours, disk = bill.book.hours * copies, settings.get("disk_size") or _primary_disk(bill)
    words = f"{name}, {settings['tier']}"
    yield bill.line(Part.DATABASE, f"{words}, CPU", cpus * hours, "sql-vcpu-hour")
    yield bill.line(Part.DATABASE, f"{words}, memory", memory * hours, "sql-gb-hour")
    yield bill.line(Part.DATABASE, f"{name}, SSD", disk * copies, "sql-ssd-gb")
    if not replica:
        yield bill.line(Part.DATABASE, f"{name}, backups of one disk", disk, "sql-backup-gb")


def _primary_disk(bill: Bill) -> float:
    """A replica's disk is as big as its primary's."""
    sizes = [
        _block(found.values, "settings").get("disk_size")
        for found in bill.plan.of("google_sql_database_instance")
    ]
    return max(float(size) for size in sizes if size)


def _redis(resource: Planned, bill: Bill) -> Iterator[Line]:
    gigabytes = resource.values["memory_size_gb"]
    tier = "basic" if resource.values["tier"] == "BASIC" else "standard"
    # Capacity tiers: M1 up to 4 GB, M2 up to 10, ...
    if gigabytes > 10:
        raise InfraError(
            f"There is no price for a Redis of {gigabytes} GB.",
            where=resource.address,
            todo="Add its capacity tier to the price table.",
        )
    price = f"redis-{tier}-{'m1' if gigabytes <= 4 else 'm2'}-gb-hour"
    yield bill.line(
        Part.REDIS, f"Redis {tier}, {gigabytes:g} GB", gigabytes * bill.book.hours, price
    )


@dataclass(frozen=True, kw_only=True)
class _Fleet:
    """The workers of a plan: how many hours a month, on which machine."""

    machine: str
    accelerator: str | None
    spot: bool
    hours: float
    always: int
    disk_gb: float


def _fleet(bill: Bill) -> _Fleet | None:
    templates = bill.plan.of("google_compute_instance_template")
    scalers = bill.plan.of("google_compute_region_autoscaler")
    if not templates or not scalers:
        return None
    template, policy = templates[0].values, _block(scalers[0].values, "autoscaling_policy")
    always = policy["min_replicas"]
    hours = always * bill.book.hours
    for schedule in policy.get("scaling_schedules") or ():
        more = max(0, schedule["min_required_replicas"] - always)
        hours += more * schedule["duration_sec"] / 3600 * bill.book.working_days
    accelerator = _block(template, "guest_accelerator")
    return _Fleet(
        machine=template["machine_type"],
        accelerator=accelerator.get("type"),
        spot=_block(template, "scheduling").get("provisioning_model") == "SPOT",
        hours=hours,
        always=always,
        disk_gb=_block(template, "disk")["disk_size_gb"],
    )


def _workers(resource: Planned, bill: Bill) -> Iterator[Line]:
    fleet = _fleet(bill)
    if fleet is None:
        return
    spot = "-spot" if fleet.spot else ""
    # Sustained use is for on-demand N1 machines and their GPUs; G2 has none.
    whole = fleet.always > 0 and not fleet.spot and fleet.machine.startswith("n1-")
    share = 1 - bill.book.sustained_use_discount if whole else 1
    kind = "Spot" if fleet.spot else "on demand"
    words = f"{fleet.hours:,.0f} h {kind}" + (", sustained use" if whole else "")
    yield bill.line(
        Part.WORKER,
        f"{fleet.machine}, {words}",
        fleet.hours,
        f"vm-{fleet.machine}{spot}-hour",
        share,
    )
    if fleet.accelerator:
        price = f"gpu-{fleet.accelerator}{spot}-hour"
        yield bill.line(Part.WORKER, f"{fleet.accelerator}, {words}", fleet.hours, price, share)
    months = fleet.hours / bill.book.hours
    yield bill.line(Part.WORKER, "boot disks", months * fleet.disk_gb, "disk-pd-balanced-gb")


def _repository(resource: Planned, bill: Bill) -> Iterator[Line]:
    yield bill.line(Part.STORAGE_AND_NETWORK, "images", bill.usage.images_gb, "registry-gb")


def _bucket(resource: Planned, bill: Bill) -> Iterator[Line]:
    if str(resource.values["name"]).endswith("-audio"):
        yield bill.line(Part.STORAGE_AND_NETWORK, "audio", bill.usage.audio_gb, "storage-gb")


def _security_policy(resource: Planned, bill: Bill) -> Iterator[Line]:
    part, rules = Part.STORAGE_AND_NETWORK, len(resource.values["rule"])
    yield bill.line(part, "Cloud Armor policy", 1, "armor-policy")
    yield bill.line(part, "Cloud Armor rules", rules, "armor-rule")
    requests = bill.usage.requests_million
    yield bill.line(part, "Cloud Armor requests", requests, "armor-million-requests")


def _zone(resource: Planned, bill: Bill) -> Iterator[Line]:
    yield bill.line(Part.STORAGE_AND_NETWORK, "DNS zone", 1, "dns-zone")


def _secret_version(resource: Planned, bill: Bill) -> Iterator[Line]:
    yield bill.line(Part.STORAGE_AND_NETWORK, "secret versions", 1, "secret-version")


PRICED: Mapping[str, Pricer] = {
    "google_artifact_registry_repository": _repository,
    "google_cloud_run_v2_service": _service,
    "google_cloud_run_v2_worker_pool": _worker_pool,
    "google_compute_region_autoscaler": _workers,
    "google_compute_security_policy": _security_policy,
    "google_dns_managed_zone": _zone,
    "google_redis_instance": _redis,
    "google_secret_manager_secret_version": _secret_version,
    "google_sql_database_instance": _database,
    "google_storage_bucket": _bucket,
}

FREE = frozenset(
    f"google_{name}"
    for name in (
        # Who may do what, and what is switched on.
        "artifact_registry_repository_iam_member", "billing_budget",
        "cloud_run_v2_service_iam_member", "iam_workload_identity_pool",
        "iam_workload_identity_pool_provider", "project_iam_member", "project_service",
        "secret_manager_secret", "secret_manager_secret_iam_member", "service_account",
        "service_account_iam_member", "storage_bucket_iam_member",
        # Parts of what is charged elsewhere: the load balancer by its rules, workers by the scaler.
        "certificate_manager_certificate", "certificate_manager_certificate_map",
        "certificate_manager_certificate_map_entry", "certificate_manager_dns_authorization",
        "compute_backend_bucket", "compute_backend_service", "compute_global_address",
        "compute_global_forwarding_rule", "compute_instance_template",
        "compute_region_instance_group_manager", "compute_region_network_endpoint_group",
        "compute_ssl_policy", "compute_target_http_proxy", "compute_target_https_proxy",
        "compute_url_map", "dns_record_set", "sql_database", "sql_user",
        # The network itself, and a job that runs for seconds at a release.
        "cloud_run_v2_job", "compute_firewall", "compute_network", "compute_subnetwork",
        "service_networking_connection",
    )
)  # fmt: skip


def _of_traffic(bill: Bill) -> Iterator[Line]:
    part, usage = Part.STORAGE_AND_NETWORK, bill.usage
    yield bill.line(part, "to the internet", usage.egress_gb, "egress-gb")
    if bill.plan.of("google_compute_global_forwarding_rule"):
        yield bill.line(part, "forwarding rules", bill.book.hours, "forwarding-rules-hour")
        through = usage.egress_gb + usage.ingress_gb
        yield bill.line(part, "through the load balancer", through, "load-balancer-gib")
    if bill.plan.of("google_compute_backend_bucket"):
        yield bill.line(part, "from the CDN", usage.cdn_gb, "cdn-gb")


def _of_telemetry(bill: Bill) -> Iterator[Line]:
    told, hours = bill.book.telemetry, bill.book.hours
    logs = max(0.0, bill.usage.log_gib - bill.book.free["log_gib"])
    yield bill.line(Part.OBSERVABILITY, "logs beyond the free ones", logs, "log-gib")
    points = hours * _HOUR_SECONDS / told["seconds_between_points"]
    instances = sum(
        _block(found.values, "template", "scaling")["min_instance_count"]
        for found in bill.plan.of("google_cloud_run_v2_service")
    )
    fleet = _fleet(bill)
    worker_months = fleet.hours / hours if fleet else 1
    sent = sum(
        count
        * (
            told[f"{service}_scalars"] * told["scalar_bytes"]
            + told[f"{service}_distributions"] * told["distribution_bytes"]
        )
        for service, count in (("api", instances), ("worker", worker_months))
    )
    mebibytes = max(0.0, points * sent / _MEBIBYTE - bill.book.free["metric_mib"])
    yield bill.line(Part.OBSERVABILITY, "metrics beyond the free ones", mebibytes, "metric-mib")


def _of_alerts(bill: Bill, catalog: Catalog) -> Iterator[Line]:
    told = bill.book.telemetry
    conditions = [condition for policy in catalog.policies for condition in policy.conditions]
    series = sum(
        told["series_of_a_grouped_condition"] if _grouped(condition) else 1
        for condition in conditions
    )
    evaluations = bill.book.hours * _HOUR_SECONDS / told["seconds_between_evaluations"]
    words = f"{len(catalog.policies)} alert policies"
    yield bill.line(Part.OBSERVABILITY, f"{words}, conditions", len(conditions), "alert-condition")
    yield bill.line(
        Part.OBSERVABILITY,
        f"{words}, series they read",
        series * evaluations / _MILLION,
        "alert-million-series",
    )


def _grouped(condition: Any) -> bool:
    aggregation = getattr(condition, "aggregation", None)
    return bool(getattr(aggregation, "group_by", ()))


def _alternatives(bill: Bill, founding: Mapping[str, tuple[float, float]]) -> Iterator[Alternative]:
    """What would come nearer to the founding document's figures, each priced alone."""
    for found in bill.plan.of("google_sql_database_instance"):
        settings = _block(found.values, "settings")
        if found.values.get("master_instance_name"):
            continue
        now = sum(line.monthly for line in _database(found, bill))
        if settings["availability_type"] == "REGIONAL":
            zonal = _with_settings(found, availability_type="ZONAL")
            yield Alternative(
                part=Part.DATABASE,
                words="database in one zone: an outage of it lasts until the zone is back",
                saves=now - sum(line.monthly for line in _database(zonal, bill)),
            )
        if settings["tier"] == "db-custom-2-8192":
            small = _with_settings(found, tier="db-custom-1-3840")
            yield Alternative(
                part=Part.DATABASE,
                words="db-custom-1-3840: half the CPU and memory (database_tier)",
                saves=now - sum(line.monthly for line in _database(small, bill)),
            )
    fleet = _fleet(bill)
    if fleet is None:
        return
    scaler = bill.plan.of("google_compute_region_autoscaler")[0]
    now = sum(line.monthly for line in _workers(scaler, bill))
    spot = _spot_hour(bill, fleet)
    if spot is None:
        return
    if not fleet.spot:
        yield Alternative(
            part=Part.WORKER,
            words="workers on Spot: all may end at once, and chunks wait (worker_spot)",
            saves=now - fleet.hours * spot,
        )
    # Hours that the founding figure pays for, all workers together.
    hours = founding[Part.WORKER][1] / spot
    if hours < fleet.hours:
        yield Alternative(
            part=Part.WORKER,
            words=f"Spot workers for {hours:,.0f} h a month instead of {fleet.hours:,.0f} "
            "(schedule in sizes.tf)",
            saves=now - hours * spot,
        )


def _spot_hour(bill: Bill, fleet: _Fleet) -> float | None:
    """Dollars an hour of one Spot worker with its disk; None where the table has no price."""
    names = [f"vm-{fleet.machine}-spot-hour"]
    if fleet.accelerator:
        names.append(f"gpu-{fleet.accelerator}-spot-hour")
    if not all(name in bill.book.prices for name in names):
        return None
    disk = fleet.disk_gb * bill.book.price("disk-pd-balanced-gb").price / bill.book.hours
    return sum(bill.book.price(name).price for name in names) + disk


def _with_settings(found: Planned, **changed: Any) -> Planned:
    settings = {**_block(found.values, "settings"), **changed}
    return replace(found, values={**found.values, "settings": [settings]})
