"""The monitored resource types the emulator knows, as data.

Labels are those of Google's monitored resource list
(https://cloud.google.com/monitoring/api/resources); user metrics may be written only to some.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from speakfit.errors import InvalidArgument, NotFound


@dataclass(frozen=True, kw_only=True)
class ResourceType:
    """One monitored resource type: its labels beside `project_id`, and who may write to it."""

    type: str
    display_name: str
    labels: tuple[str, ...] = ()
    user_metrics: bool = True

    def descriptor(self, project: str) -> Any:
        """The MonitoredResourceDescriptor message."""
        from google.api import label_pb2, monitored_resource_pb2

        return monitored_resource_pb2.MonitoredResourceDescriptor(
            name=f"projects/{project}/monitoredResourceDescriptors/{self.type}",
            type=self.type,
            display_name=self.display_name,
            labels=[label_pb2.LabelDescriptor(key=key) for key in ("project_id", *self.labels)],
        )


def _type(name: str, display: str, *labels: str, user_metrics: bool = True) -> ResourceType:
    return ResourceType(type=name, display_name=display, labels=labels, user_metrics=user_metrics)


_K8S = ("location", "cluster_name")

RESOURCE_TYPES: dict[str, ResourceType] = {
    resource.type: resource
    for resource in (
        _type("aws_ec2_instance", "Amazon EC2 Instance", "instance_id", "region", "aws_account"),
        _type("cloud_function", "Cloud Function", "function_name", "region", user_metrics=False),
        _type("cloud_run_job", "Cloud Run Job", "job_name", "location", user_metrics=False),
        _type(
            "cloud_run_revision", "Cloud Run Revision",
            "service_name", "revision_name", "location", "configuration_name",
            user_metrics=False,
        ),
        _type(
            "cloudsql_database", "Cloud SQL Database", "database_id", "region", user_metrics=False
        ),
        _type("dataflow_job", "Dataflow Job", "job_name", "region"),
        _type("gae_app", "GAE Application", "module_id", "version_id", "zone", user_metrics=False),
        _type("gae_instance", "GAE Instance", "module_id", "version_id", "instance_id", "location"),
        _type("gce_instance", "VM Instance", "instance_id", "zone"),
        _type("gcs_bucket", "GCS Bucket", "bucket_name", "location", user_metrics=False),
        _type("generic_node", "Generic Node", "location", "namespace", "node_id"),
        _type("generic_task", "Generic Task", "location", "namespace", "job", "task_id"),
        _type(
            "gke_container", "GKE Container (legacy)",
            "cluster_name", "namespace_id", "instance_id", "pod_id", "container_name", "zone",
        ),
        _type("global", "Global"),
        _type(
            "https_lb_rule", "HTTP/S Load Balancing Rule",
            "backend_name", "backend_scope", "backend_scope_type", "backend_target_name",
            "backend_target_type", "backend_type", "forwarding_rule_name", "matched_url_path_rule",
            "region", "target_proxy_name", "url_map_name",
            user_metrics=False,
        ),
        _type("k8s_cluster", "Kubernetes Cluster", *_K8S),
        _type(
            "k8s_container", "Kubernetes Container",
            *_K8S, "namespace_name", "pod_name", "container_name",
        ),
        _type("k8s_node", "Kubernetes Node", *_K8S, "node_name"),
        _type("k8s_pod", "Kubernetes Pod", *_K8S, "namespace_name", "pod_name"),
        _type(
            "prometheus_target", "Prometheus Target",
            "location", "cluster", "namespace", "job", "instance",
        ),
        _type(
            "pubsub_subscription", "Cloud Pub/Sub Subscription",
            "subscription_id", user_metrics=False,
        ),
        _type("pubsub_topic", "Cloud Pub/Sub Topic", "topic_id", user_metrics=False),
        _type(
            "redis_instance", "Cloud Memorystore Redis Instance",
            "region", "instance_id", "node_id", user_metrics=False,
        ),
        _type("uptime_url", "Uptime Check URL", "host", user_metrics=False),
    )
}  # fmt: skip

USER_METRIC_RESOURCES = tuple(sorted(t.type for t in RESOURCE_TYPES.values() if t.user_metrics))
"""What `monitoredResourceTypes` of a user-written metric lists."""

_LOCATION = re.compile(
    r"global|us|eu|asia|local|(aws:)?[a-z]{2,}(-[a-z]+)+-?[0-9]+(-?[a-z])?|[a-z]+[0-9]*"
)
_LOCATION_LABELS = ("location", "zone", "region")


def complete_labels(type_name: str, labels: dict[str, str], *, project: str) -> dict[str, str]:
    """A resource's labels with `project_id`, or Google's complaint about them."""
    resource = RESOURCE_TYPES.get(type_name)
    if resource is None:
        raise InvalidArgument(f"Unrecognized resource type: {type_name}.")
    missing = sorted(set(resource.labels) - labels.keys())
    if missing:
        raise InvalidArgument(
            f"The set of resource labels is incomplete. Missing labels: ({' '.join(missing)})."
        )
    extra = sorted(labels.keys() - set(resource.labels) - {"project_id"})
    if extra:
        raise InvalidArgument(f"Unrecognized resource labels: ({' '.join(extra)}).")
    for key in _LOCATION_LABELS:
        if key in labels and not _LOCATION.fullmatch(labels[key]):
            raise InvalidArgument("Unrecognized region or location.")
    return {"project_id": project, **{key: labels[key] for key in sorted(resource.labels)}}


def resource_type(name: str) -> ResourceType:
    """The type of a `monitoredResourceDescriptors` resource name; NotFound otherwise."""
    resource = RESOURCE_TYPES.get(name.rpartition("/")[2])
    if resource is None:
        raise NotFound(f"Could not find descriptor for monitored resource '{name}'.")
    return resource
