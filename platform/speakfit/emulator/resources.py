"""The monitored resource types the emulator knows, as data.

Names and labels are those of Google's list of 2026-04-10
(https://cloud.google.com/monitoring/api/resources); user metrics may be written only to some.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
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

_OTHER_NAMES = """
    anthos_l4lb api app_script_function assistant_action assistant_action_project
    audited_resource autoscaler aws_alb_load_balancer aws_cloudfront_distribution
    aws_elasticache_cluster aws_lambda_function aws_rds_database aws_s3_bucket aws_sqs_queue
    bigquery_biengine_model bigquery_dataset bigquery_dts_config bigquery_project
    bigtable_backup bigtable_cluster bigtable_materialized_view bigtable_table build
    cloud_composer_environment cloud_composer_workflow cloud_composer_workload
    cloud_dataproc_batch cloud_dataproc_cluster cloud_dataproc_job cloud_dataproc_session
    cloud_dlp_project cloud_osconfig_patch_job cloud_run_worker_pool cloud_scheduler_job
    cloud_tasks_queue cloudml_job cloudml_model_version cloudsql_instance_database consumed_api
    consumed_mcp_api consumer_quota csr_repository dataflow_worker datastore_request
    dell_emc_cloud_onefs_cluster deprecated_resource dns_managed_zone dns_policy dns_query
    dns_resource_record_set dns_response_policy dns_response_policy_rule filestore_instance
    firebase_auth firebase_domain firebase_namespace firestore_instance gateway_scope
    gce_backend_service gce_disk gce_forwarding_rule gce_network gce_network_endpoint_group
    gce_network_region gce_node_group gce_node_template gce_resource_policy gce_router
    gce_service_attachment gce_subnetwork gce_zone_network_health google_service_gce_client
    healthcare_pipeline_job http_external_regional_lb_rule iam_service_account
    identitytoolkit_project identitytoolkit_tenant instance_group interconnect
    interconnect_attachment internal_http_lb_rule internal_tcp_lb_rule internal_udp_lb_rule
    istio_canonical_service istio_control_plane k8s_control_plane_component k8s_entity
    k8s_node_pool k8s_scale k8s_service knative_broker knative_revision knative_trigger
    l4_proxy_rule l7_lb_rule load_balancer_backend logging_bucket logging_exclusion logging_sink
    memcache_node mesh metric microsoft_ad_domain nat_gateway netapp_cloud_volume
    network_security_policy processor_version produced_api producer_quota pubsub_snapshot
    pubsublite_reservation pubsublite_subscription_partition pubsublite_topic_partition
    recommender recommender_insight_type servicedirectory_namespace servicedirectory_service
    spanner_instance storage_transfer_job tcp_lb_rule tcp_ssl_proxy_rule threat_detector
    tpu_worker transfer_service_agent udp_lb_rule vpc_access_connector vpn_gateway vpn_tunnel
    wire_endpoint
    """
_RETIRED_NAMES = """
    aws_dynamodb_table aws_ebs_volume aws_elb_load_balancer aws_emr_cluster aws_kinesis_stream
    aws_redshift_cluster aws_ses aws_sns_topic cloudiot_device cloudiot_device_registry
    """
"""Types that older copies of the list have; policies on them may still exist."""

_OTHER_TYPES = frozenset((*_OTHER_NAMES.split(), *_RETIRED_NAMES.split()))
"""Types without a service name that policies may filter on; their labels are not kept here."""

_SERVICE_TYPE = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+/[A-Z][A-Za-z0-9_]*")


class _PolicyResources(Collection[str]):
    """The resource types that a policy's filter may name.

    Types of a service bear its name (`redis.googleapis.com/Cluster`); there are too many of them
    to list, so their form decides.
    """

    def __contains__(self, name: object) -> bool:
        return (
            name in RESOURCE_TYPES
            or name in _OTHER_TYPES
            or (isinstance(name, str) and _SERVICE_TYPE.fullmatch(name) is not None)
        )

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*RESOURCE_TYPES, *_OTHER_TYPES}))

    def __len__(self) -> int:
        return len({*RESOURCE_TYPES, *_OTHER_TYPES})


POLICY_RESOURCES: Collection[str] = _PolicyResources()

_LOCATION = re.compile(
    r"global|us|eu|asia|local|(aws:)?[a-z]{2,}(-[a-z]+)+-?[0-9]+(-?[a-z])?|[a-z]+[0-9]*"
)
_LOCATION_LABELS = ("location", "zone", "region")


def complete_labels(
    type_name: str, labels: dict[str, str], *, project: str, service: bool = False
) -> dict[str, str]:
    """A resource's labels with `project_id`, or Google's complaint about them.

    Services may write to types whose labels are not known here.
    """
    resource = RESOURCE_TYPES.get(type_name)
    if resource is None and service and type_name in POLICY_RESOURCES:
        return {"project_id": project, **dict(sorted(labels.items()))}
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
