"""Rules of Google's services about more than one argument, which a schema cannot hold.

Each is a refusal that comes at apply, minutes in; here it comes at validation. They are named by
the facts of the resource type they are about. A rule says nothing about values not known yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from speakfit_ops.infra.overlay import Problem, Step, Unknown, blocks

Config = Mapping[str, Any]

_RESERVED = ("PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION")
_MEMORY = {"1": (128, 4096), "2": (128, 8192), "4": (2048, 16384), "8": (4096, 32768)}
"""MiB by vCPU, https://cloud.google.com/run/docs/configuring/services/memory-limits."""
_UNITS = {"Mi": 1, "Gi": 1024, "M": 0.9537, "G": 953.7}
_LAST_PRIORITY = 2**31 - 1


def _known(*values: Any) -> bool:
    return not any(isinstance(value, Unknown) for value in values)


def sql_instance(config: Config) -> Iterator[Problem]:
    """Edition and tier of Cloud SQL fit; recovery has the backups and days it needs."""
    for number, settings in blocks(config, "settings"):
        path = ("settings", number)
        edition, tier = settings.get("edition"), settings.get("tier")
        plus = edition == "ENTERPRISE_PLUS"
        if isinstance(tier, str) and _known(edition):
            for_plus = tier.startswith("db-perf-optimized-")
            if edition is None and not for_plus:
                yield Problem(
                    summary="The edition must be named",
                    detail=f"From PostgreSQL 16 on it is ENTERPRISE_PLUS, which has no {tier}.",
                    path=(*path, "tier"),
                )
            elif edition is not None and plus != for_plus:
                yield Problem(
                    summary=f"Invalid tier ({tier}) for edition {edition}",
                    detail="ENTERPRISE has db-custom and shared-core tiers, ENTERPRISE_PLUS "
                    "db-perf-optimized ones.",
                    path=(*path, "tier"),
                )
        recovers = False
        for at, backup in blocks(settings, "backup_configuration"):
            inner = (*path, "backup_configuration", at)
            recovery = backup.get("point_in_time_recovery_enabled")
            recovers = recovery is True or not _known(recovery)
            days = backup.get("transaction_log_retention_days")
            most = 7 if _known(edition) and not plus else 35
            if isinstance(days, int) and not 1 <= days <= most:
                yield Problem(
                    summary="expected transaction_log_retention_days to be in the range "
                    f"(1 - {most}), got {days}",
                    path=(*inner, "transaction_log_retention_days"),
                )
            enabled = backup.get("enabled")
            if recovery is True and _known(enabled) and enabled is not True:
                yield Problem(
                    summary="Point-in-time recovery needs backups",
                    path=(*inner, "point_in_time_recovery_enabled"),
                )
        replica = config.get("master_instance_name") is not None
        if settings.get("availability_type") == "REGIONAL" and not recovers and not replica:
            yield Problem(
                summary="REGIONAL needs backups with point-in-time recovery",
                path=(*path, "availability_type"),
            )


def instance_template(config: Config) -> Iterator[Problem]:
    """Which machines carry a GPU, and how machines end."""
    machine = config.get("machine_type")
    accelerators = list(blocks(config, "guest_accelerator"))
    if isinstance(machine, str):
        for number, accelerator in accelerators:
            kind = accelerator.get("type")
            family, words = {
                "nvidia-tesla-t4": ("n1-", "T4, P4, P100 and V100 attach to N1 machines only."),
                "nvidia-l4": ("g2-", "L4 comes with G2 machines only."),
            }.get(str(kind), ("", ""))
            if not machine.startswith(family):
                yield Problem(
                    summary=f"{kind} cannot be attached to {machine}",
                    detail=words,
                    path=("guest_accelerator", number, "type"),
                )
    carried = isinstance(machine, str) and machine.startswith(("g2-", "a2-", "a3-"))
    for number, scheduling in blocks(config, "scheduling"):
        path = ("scheduling", number)
        maintenance, model, preemptible, restart, end = (
            scheduling.get(name)
            for name in (
                "on_host_maintenance",
                "provisioning_model",
                "preemptible",
                "automatic_restart",
                "instance_termination_action",
            )
        )
        if (accelerators or carried) and _known(maintenance) and maintenance != "TERMINATE":
            yield Problem(
                summary="Instances with guest accelerators do not support live migration",
                detail="Set on_host_maintenance to TERMINATE.",
                path=(*path, "on_host_maintenance"),
            )
        spot = model == "SPOT"
        if spot and _known(restart) and restart is not False:
            yield Problem(
                summary="Scheduling must have preemptible be false when AutomaticRestart is true",
                detail="A Spot machine does not restart by itself: set automatic_restart to false.",
                path=(*path, "automatic_restart"),
            )
        if _known(model, preemptible) and spot != (preemptible is True):
            yield Problem(
                summary="preemptible and provisioning_model contradict each other",
                path=(*path, "preemptible"),
            )
        if _known(model, end) and end is not None and not spot:
            yield Problem(
                summary="instance_termination_action is for Spot machines only",
                path=(*path, "instance_termination_action"),
            )


def instance_group(config: Config) -> Iterator[Problem]:
    """A regional group takes a fixed surge of 0, or of at least its number of zones."""
    zones = config.get("distribution_policy_zones")
    if not _known(zones):
        return
    least = len(zones) if isinstance(zones, list) and zones else 3
    for number, policy in blocks(config, "update_policy"):
        surge, away = policy.get("max_surge_fixed"), policy.get("max_unavailable_fixed")
        for name, value in (("max_surge_fixed", surge), ("max_unavailable_fixed", away)):
            if isinstance(value, int) and 0 < value < least:
                yield Problem(
                    summary=f"{name} must be 0 or at least the number of zones, {least}",
                    path=("update_policy", number, name),
                )
        if surge == 0 and away == 0:
            yield Problem(
                summary="max_surge_fixed and max_unavailable_fixed cannot both be 0",
                path=("update_policy", number, "max_surge_fixed"),
            )


def autoscaler(config: Config) -> Iterator[Problem]:
    """The least is not above the most, and a metric says how many workers it is worth."""
    for number, policy in blocks(config, "autoscaling_policy"):
        path = ("autoscaling_policy", number)
        least, most = policy.get("min_replicas"), policy.get("max_replicas")
        if isinstance(least, int) and isinstance(most, int) and least > most:
            yield Problem(
                summary=f"min_replicas ({least}) is more than max_replicas ({most})",
                path=(*path, "min_replicas"),
            )
        for item, metric in blocks(policy, "metric"):
            if not (metric.get("target") or metric.get("single_instance_assignment")):
                yield Problem(
                    summary="A metric needs target or single_instance_assignment",
                    path=(*path, "metric", item),
                )


def security_policy(config: Config) -> Iterator[Problem]:
    """Rules have priorities of their own, and the last one is for everybody else."""
    priorities = [rule.get("priority") for _, rule in blocks(config, "rule")]
    if not priorities or not _known(*priorities):
        return
    if _LAST_PRIORITY not in priorities:
        yield Problem(
            summary=f"A default rule with priority {_LAST_PRIORITY} must be among the rules",
            path=("rule",),
        )
    if len(priorities) != len(set(priorities)):
        yield Problem(summary="Two rules have the same priority", path=("rule",))


def cloud_run(config: Config) -> Iterator[Problem]:
    """CPU and memory go together, Cloud Run's own variables stay its own, mounts have volumes."""
    for path, template in _templates(config):
        volumes = template.get("volumes")
        names = {item.get("name") for _, item in blocks(template, "volumes")}
        for number, container in blocks(template, "containers"):
            at = (*path, "containers", number)
            yield from _variables((*at, "env"), container)
            for _, mount in blocks(container, "volume_mounts"):
                if _known(volumes, *names) and mount.get("name") not in names:
                    yield Problem(
                        summary=f"There is no volume {mount.get('name')} to mount",
                        path=(*at, "volume_mounts"),
                    )
            for item, resources in blocks(container, "resources"):
                limits = resources.get("limits")
                if isinstance(limits, dict):
                    yield from _limits((*at, "resources", item, "limits"), limits)


def _templates(config: Config) -> Iterator[tuple[tuple[Step, ...], dict[str, Any]]]:
    """The template of a service or worker pool, and the one within a job's."""
    for number, template in blocks(config, "template"):
        yield ("template", number), template
        for inner, below in blocks(template, "template"):
            yield ("template", number, "template", inner), below


def _variables(path: tuple[Step, ...], container: Config) -> Iterator[Problem]:
    names = [item.get("name") for _, item in blocks(container, "env")]
    for name in names:
        if name in _RESERVED:
            yield Problem(
                summary=f"The environment variable {name} is reserved",
                detail="Cloud Run sets it itself.",
                path=path,
            )
    if _known(*names) and len(names) != len(set(names)):
        yield Problem(summary="An environment variable is set twice", path=path)


def _limits(path: tuple[Step, ...], limits: Config) -> Iterator[Problem]:
    cpu, memory = limits.get("cpu"), limits.get("memory")
    if not isinstance(cpu, str) or not isinstance(memory, str):
        return
    what = f"Cloud Run has no instance of {cpu} CPU and {memory}"
    found = re.fullmatch(r"(\d+)(Mi|Gi|M|G)", memory)
    if found is None or not re.fullmatch(r"[1-8]|\d+m|0?\.\d+", cpu):
        yield Problem(
            summary=what,
            detail="Write whole CPUs such as 1, 2, 4 or 8, and memory such as 512Mi or 2Gi.",
            path=path,
        )
        return
    mebibytes = int(found[1]) * _UNITS[found[2]]
    least, most = _MEMORY.get(cpu, (128, 32768))
    if not least <= mebibytes <= most:
        yield Problem(
            summary=what, detail=f"With {cpu} CPU memory is {least} to {most} MiB.", path=path
        )
    if limits.get("nvidia.com/gpu") and (cpu not in ("4", "6", "8") or mebibytes < 16384):
        yield Problem(summary="A GPU needs at least 4 CPU and 16Gi", path=path)
