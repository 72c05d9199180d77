"""The gcloud commands that runbooks use and the options each of them has.

As far as we use them. A command or option that is not here fails the check, until somebody has
looked it up in Google's reference (cloud.google.com/sdk/gcloud/reference) and written it down.
"""

from __future__ import annotations

from collections.abc import Mapping

_EVERYWHERE = frozenset({"--project", "--format", "--quiet", "--filter", "--limit", "--sort-by"})


def _with(*options: str) -> frozenset[str]:
    return _EVERYWHERE | {f"--{option}" for option in options}


COMMANDS: Mapping[str, frozenset[str]] = {
    "config set": _with(),
    "compute accelerator-types list": _with("zones"),
    "compute instance-groups managed describe": _with("region", "zone"),
    "compute instance-groups managed list-errors": _with("region", "zone"),
    "compute instance-groups managed list-instances": _with("region", "zone"),
    "compute instance-groups managed recreate-instances": _with("region", "zone", "instances"),
    "compute instance-groups managed rolling-action restart": _with(
        "region", "zone", "max-unavailable"
    ),
    "compute instance-groups managed rolling-action start-update": _with(
        "region", "zone", "version", "max-surge", "max-unavailable", "type"
    ),
    "compute instance-groups managed update-autoscaling": _with(
        "region", "zone", "min-num-replicas", "max-num-replicas", "mode"
    ),
    "compute instance-templates list": _with(),
    "compute instances create": _with(
        "zone", "machine-type", "subnet", "no-address", "service-account", "scopes",
        "image-family", "image-project",
    ),
    "compute instances delete": _with("zone", "delete-disks", "keep-disks"),
    "compute instances list": _with("zones"),
    "compute operations list": _with("regions", "zones"),
    "compute regions describe": _with(),
    "compute ssh": _with("zone", "tunnel-through-iap", "command"),
    "logging read": _with("freshness", "order"),
    "projects add-iam-policy-binding": _with("member", "role", "condition"),
    "projects get-iam-policy": _with("flatten"),
    "redis instances describe": _with("region"),
    "redis instances failover": _with("region", "async", "data-protection-mode"),
    "run deploy": _with("region", "image", "no-traffic", "tag"),
    "run jobs execute": _with("region", "wait", "async", "args"),
    "run revisions list": _with("region", "service"),
    "run services describe": _with("region"),
    "run services update": _with(
        "region", "min-instances", "max-instances", "no-cpu-throttling", "update-labels"
    ),
    "run services update-traffic": _with("region", "to-revisions", "to-tags", "to-latest"),
    "secrets versions access": _with("secret"),
    "secrets versions disable": _with("secret"),
    "secrets versions enable": _with("secret"),
    "secrets versions list": _with(),
    "sql backups create": _with("instance", "async", "description"),
    "sql backups list": _with("instance"),
    "sql instances clone": _with("point-in-time", "async", "backup-id"),
    "sql instances describe": _with(),
    "sql instances failover": _with("async"),
    "sql instances list": _with(),
    "sql instances restart": _with("async"),
    "sql operations list": _with("instance"),
}  # fmt: skip
