"""Facts about the resource types in use that Google's schema does not tell.

Read in the provider's source and definitions (GoogleCloudPlatform/magic-modules, hashicorp/
terraform-provider-google: ForceNew and immutable, ConflictsWith, RequiredWith, ExactlyOneOf,
validation functions) and, for values that only the service judges, in Google's documentation. They
are facts, kept by hand, and only for what the estate uses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from speakfit_ops.infra import rules
from speakfit_ops.infra.overlay import Facts, Form

_SECONDS = Form(pattern=r"\d+(\.\d{1,9})?s", words='seconds that end in s, such as "300s"')
_NAME = Form(
    pattern=r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
    words="1 to 63 lower-case letters, digits and hyphens, beginning with a letter",
)
_DNS_NAME = Form(pattern=r".+\.", words="a full name that ends in a dot")
_MEMBER = Form(
    pattern=r"(allUsers|allAuthenticatedUsers|(user|serviceAccount|group|domain):.+"
    r"|principal(Set)?://.+)",
    words="a member with its kind, such as serviceAccount:NAME@PROJECT.iam.gserviceaccount.com",
)
_ROLE = Form(
    pattern=r"(projects/[^/]+/|organizations/[^/]+/)?roles/[A-Za-z0-9_.]+",
    words="a role such as roles/run.invoker",
)
_DAY_TIME = Form(pattern=r"([01]\d|2[0-3]):[0-5]\d", words='a time of the day such as "08:00"')


def _named(*replaced: str, **more: Any) -> Facts:
    """A resource of Compute Engine: its name has a form, and another name is another resource."""
    forms = {"name": _NAME, **more.pop("forms", {})}
    return Facts(replaced=frozenset({"name", "project", *replaced}), forms=forms, **more)


def _member(*replaced: str) -> Facts:
    """Who has a role on something: all of it is its identity."""
    return Facts(
        replaced=frozenset({"member", "role", *replaced}), forms={"member": _MEMBER, "role": _ROLE}
    )


FACTS: Mapping[str, Facts] = {
    "google_artifact_registry_repository": Facts(
        replaced=frozenset({"repository_id", "location", "format", "kms_key_name", "project"}),
        values={"format": ("DOCKER", "MAVEN", "NPM", "PYTHON", "APT", "YUM", "GO", "GENERIC")},
        forms={
            "repository_id": _NAME,
            "cleanup_policies.condition.older_than": _SECONDS,
            "cleanup_policies.condition.newer_than": _SECONDS,
        },
    ),
    "google_artifact_registry_repository_iam_member": _member("repository", "location"),
    "google_billing_budget": Facts(
        replaced=frozenset({"billing_account", "amount.specified_amount.currency_code"}),
        ranges={"threshold_rules.threshold_percent": (0, 10)},
    ),
    "google_certificate_manager_certificate": Facts(
        replaced=frozenset({"name", "location", "scope", "managed", "project"}),
        one_of=(("managed", "self_managed"),),
        sensitive=frozenset({"self_managed.private_key_pem", "self_managed.pem_private_key"}),
    ),
    "google_certificate_manager_certificate_map": Facts(replaced=frozenset({"name", "project"})),
    "google_certificate_manager_certificate_map_entry": Facts(
        replaced=frozenset({"name", "map", "hostname", "matcher", "project"}),
        one_of=(("hostname", "matcher"),),
    ),
    "google_certificate_manager_dns_authorization": Facts(
        replaced=frozenset({"name", "domain", "location", "type", "project"}),
        made_up={
            "dns_resource_record": [
                {"name": "_acme-challenge.example.", "type": "CNAME", "data": "made-up.example."}
            ]
        },
    ),
    "google_cloud_run_v2_job": Facts(
        replaced=frozenset({"name", "location", "project"}),
        forms={"name": _NAME, "template.template.timeout": _SECONDS},
        rules=(rules.cloud_run,),
    ),
    "google_cloud_run_v2_service": Facts(
        replaced=frozenset({"name", "location", "project"}),
        forms={"name": _NAME, "template.timeout": _SECONDS},
        ranges={
            "template.max_instance_request_concurrency": (1, 1000),
            "template.containers.startup_probe.timeout_seconds": (1, 3600),
            "template.containers.liveness_probe.timeout_seconds": (1, 3600),
            "template.containers.startup_probe.period_seconds": (1, 240),
            "template.containers.liveness_probe.period_seconds": (1, 3600),
            "template.containers.ports.container_port": (1, 65535),
        },
        conflicts=(
            ("template.vpc_access.connector", "template.vpc_access.network_interfaces"),
            ("template.containers.env.value", "template.containers.env.value_source"),
        ),
        rules=(rules.cloud_run,),
    ),
    "google_cloud_run_v2_service_iam_member": _member("name", "location", "project"),
    "google_cloud_run_v2_worker_pool": Facts(
        replaced=frozenset({"name", "location", "project"}),
        forms={"name": _NAME},
        values={"template.node_selector.accelerator": ("nvidia-l4", "nvidia-rtx-pro-6000")},
        rules=(rules.cloud_run,),
    ),
    "google_compute_backend_bucket": _named(
        ranges={
            "cdn_policy.max_ttl": (0, 31_622_400),
            "cdn_policy.default_ttl": (0, 31_622_400),
            "cdn_policy.client_ttl": (0, 31_622_400),
            "cdn_policy.serve_while_stale": (0, 604_800),
        }
    ),
    "google_compute_backend_service": _named("load_balancing_scheme"),
    "google_compute_firewall": _named(
        "network",
        "direction",
        one_of=(("allow", "deny"),),
        conflicts=(("target_tags", "target_service_accounts"),),
        values={
            "direction": ("INGRESS", "EGRESS"),
            "log_config.metadata": ("INCLUDE_ALL_METADATA", "EXCLUDE_ALL_METADATA"),
        },
        ranges={"priority": (0, 65535)},
    ),
    "google_compute_global_address": _named(
        "address",
        "address_type",
        "ip_version",
        "network",
        "prefix_length",
        "purpose",
        values={"purpose": ("VPC_PEERING", "PRIVATE_SERVICE_CONNECT")},
        ranges={"prefix_length": (8, 29)},
    ),
    "google_compute_global_forwarding_rule": _named(
        "ip_address",
        "ip_protocol",
        "load_balancing_scheme",
        "port_range",
        "network",
        forms={"port_range": Form(pattern=r"\d+(-\d+)?", words='a port or a range, such as "443"')},
    ),
    "google_compute_instance_template": Facts(
        # All but its labels; what differs is a new template.
        replaced=frozenset(
            {
                "name", "name_prefix", "machine_type", "tags", "disk", "guest_accelerator",
                "network_interface", "scheduling", "service_account", "shielded_instance_config",
                "metadata", "metadata_startup_script", "can_ip_forward", "description", "region",
                "min_cpu_platform", "project",
            }
        ),
        conflicts=(("name", "name_prefix"),),
        values={
            "scheduling.provisioning_model": ("STANDARD", "SPOT", "FLEX_START"),
            "scheduling.on_host_maintenance": ("MIGRATE", "TERMINATE"),
            "scheduling.instance_termination_action": ("STOP", "DELETE"),
            "disk.disk_type": ("pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced"),
        },
        forms={"name": _NAME},
        rules=(rules.instance_template,),
    ),
    "google_compute_network": _named(
        "auto_create_subnetworks", values={"routing_mode": ("REGIONAL", "GLOBAL")}
    ),
    "google_compute_region_autoscaler": _named(
        "region",
        ranges={"autoscaling_policy.scaling_schedules.duration_sec": (300, 2**31)},
        rules=(rules.autoscaler,),
    ),
    "google_compute_region_instance_group_manager": _named(
        "base_instance_name",
        "region",
        "distribution_policy_zones",
        values={
            "update_policy.type": ("PROACTIVE", "OPPORTUNISTIC"),
            "update_policy.minimal_action": ("REPLACE", "RESTART", "REFRESH", "NONE"),
            "update_policy.replacement_method": ("SUBSTITUTE", "RECREATE"),
            "update_policy.instance_redistribution_type": ("PROACTIVE", "NONE"),
            "distribution_policy_target_shape": ("EVEN", "BALANCED", "ANY", "ANY_SINGLE_ZONE"),
        },
        conflicts=(
            ("update_policy.max_surge_fixed", "update_policy.max_surge_percent"),
            ("update_policy.max_unavailable_fixed", "update_policy.max_unavailable_percent"),
        ),
        rules=(rules.instance_group,),
    ),
    "google_compute_region_network_endpoint_group": _named(
        "cloud_run", "network_endpoint_type", "region", "network", "subnetwork"
    ),
    "google_compute_security_policy": _named(
        "type",
        values={
            "type": ("CLOUD_ARMOR", "CLOUD_ARMOR_EDGE", "CLOUD_ARMOR_INTERNAL_SERVICE"),
            "rule.action": (
                "allow", "deny(403)", "deny(404)", "deny(502)", "rate_based_ban", "redirect",
                "throttle",
            ),
            "rule.match.versioned_expr": ("SRC_IPS_V1",),
            "rule.rate_limit_options.exceed_action": (
                "deny(403)", "deny(404)", "deny(429)", "deny(502)", "redirect",
            ),
            "rule.rate_limit_options.enforce_on_key": (
                "ALL", "IP", "HTTP_HEADER", "XFF_IP", "HTTP_COOKIE", "HTTP_PATH", "SNI",
                "REGION_CODE",
            ),
        },
        ranges={"rule.rate_limit_options.rate_limit_threshold.count": (1, 1_000_000)},
        rules=(rules.security_policy,),
    ),
    "google_compute_ssl_policy": _named(
        values={
            "min_tls_version": ("TLS_1_0", "TLS_1_1", "TLS_1_2", "TLS_1_3"),
            "profile": ("COMPATIBLE", "MODERN", "RESTRICTED", "FIPS_202205", "CUSTOM"),
        }
    ),
    "google_compute_subnetwork": _named(
        "network",
        "region",
        "purpose",
        forms={
            "ip_cidr_range": Form(
                pattern=r"\d{1,3}(\.\d{1,3}){3}/([89]|[12]\d)",
                words="an IPv4 range of /8 to /29, such as 10.10.0.0/20",
            )
        },
        ranges={"log_config.flow_sampling": (0, 1)},
    ),
    "google_compute_target_http_proxy": _named(),
    "google_compute_target_https_proxy": _named(
        conflicts=(("certificate_manager_certificates", "ssl_certificates"),)
    ),
    "google_compute_url_map": _named(
        conflicts=(("default_service", "default_url_redirect"),),
    ),
    "google_dns_managed_zone": Facts(
        replaced=frozenset({"name", "dns_name", "visibility", "project"}),
        forms={"dns_name": _DNS_NAME},
    ),
    "google_dns_record_set": Facts(
        replaced=frozenset({"name", "managed_zone", "type", "project"}),
        one_of=(("rrdatas", "routing_policy"),),
        values={
            "type": (
                "A", "AAAA", "CAA", "CNAME", "HTTPS", "MX", "NAPTR", "NS", "PTR", "SOA", "SPF",
                "SRV", "SVCB", "TXT",
            )
        },
        forms={"name": _DNS_NAME},
        ranges={"ttl": (0, 2**31 - 1)},
    ),
    "google_iam_workload_identity_pool": Facts(
        replaced=frozenset({"workload_identity_pool_id", "project"}),
        forms={
            "workload_identity_pool_id": Form(
                pattern=r"(?!gcp-)[0-9a-z-]{4,32}",
                words="4 to 32 lower-case letters, digits and hyphens, not beginning with gcp-",
            )
        },
    ),
    "google_iam_workload_identity_pool_provider": Facts(
        replaced=frozenset(
            {"workload_identity_pool_id", "workload_identity_pool_provider_id", "project"}
        ),
        one_of=(("aws", "oidc", "saml", "x509"),),
        forms={
            "workload_identity_pool_provider_id": Form(
                pattern=r"(?!gcp-)[0-9a-z-]{4,32}",
                words="4 to 32 lower-case letters, digits and hyphens, not beginning with gcp-",
            ),
            "oidc.issuer_uri": Form(pattern=r"https://.+", words="an https:// address"),
        },
    ),
    "google_project_iam_member": _member("project"),
    "google_project_service": Facts(
        replaced=frozenset({"service", "project"}),
        forms={
            "service": Form(
                pattern=r"(?!containerregistry\.)[a-z0-9.-]+\.(googleapis\.com|goog)",
                words="a service that exists, such as run.googleapis.com "
                "(Container Registry was shut down on 2025-03-18)",
            )
        },
    ),
    "google_redis_instance": Facts(
        replaced=frozenset(
            {
                "name", "region", "tier", "authorized_network", "connect_mode", "location_id",
                "alternative_location_id", "reserved_ip_range", "transit_encryption_mode",
                "customer_managed_key", "project",
            }
        ),
        forms={
            "name": Form(
                pattern=r"[a-z][a-z0-9-]{0,39}[a-z0-9]",
                words="2 to 41 lower-case letters, digits and hyphens, beginning with a letter",
            ),
            "redis_version": Form(
                pattern=r"REDIS_\d+_(\d+|X)", words="a version such as REDIS_7_2"
            ),
        },
        values={
            "maintenance_policy.weekly_maintenance_window.day": (
                "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY",
            )
        },
        ranges={
            "memory_size_gb": (1, 300),
            "maintenance_policy.weekly_maintenance_window.start_time.hours": (0, 23),
            "maintenance_policy.weekly_maintenance_window.start_time.minutes": (0, 59),
        },
        sensitive=frozenset({"auth_string"}),
    ),
    "google_secret_manager_secret": Facts(
        replaced=frozenset({"secret_id", "replication", "project"}),
        forms={
            "secret_id": Form(
                pattern=r"[A-Za-z0-9_-]{1,255}", words="letters, digits, hyphens, underscores"
            )
        },
        one_of=(("replication.auto", "replication.user_managed"),),
        conflicts=(("expire_time", "ttl"),),
    ),
    "google_secret_manager_secret_iam_member": _member("secret_id", "project"),
    "google_secret_manager_secret_version": Facts(
        replaced=frozenset({"secret", "secret_data", "secret_data_wo_version", "project"}),
        one_of=(("secret_data", "secret_data_wo"),),
        needs=(("secret_data_wo", "secret_data_wo_version"),),
        values={"deletion_policy": ("DELETE", "DISABLE", "ABANDON")},
        sensitive=frozenset({"secret_data"}),
    ),
    "google_service_account": Facts(
        replaced=frozenset({"account_id", "project"}),
        forms={
            "account_id": Form(
                pattern=r"[a-z][a-z0-9-]{4,28}[a-z0-9]",
                words="6 to 30 lower-case letters, digits and hyphens, beginning with a letter",
            )
        },
    ),
    "google_service_account_iam_member": _member("service_account_id"),
    "google_service_networking_connection": Facts(replaced=frozenset({"network", "service"})),
    "google_sql_database": Facts(replaced=frozenset({"name", "instance", "project"})),
    "google_sql_database_instance": Facts(
        replaced=frozenset(
            {
                "name", "region", "encryption_key_name", "master_instance_name", "project",
                "settings.collation",
            }
        ),
        values={
            "settings.edition": ("ENTERPRISE", "ENTERPRISE_PLUS"),
            "settings.availability_type": ("REGIONAL", "ZONAL"),
            "settings.disk_type": ("PD_SSD", "PD_HDD", "HYPERDISK_BALANCED"),
            "settings.activation_policy": ("ALWAYS", "NEVER", "ON_DEMAND"),
            "settings.connector_enforcement": ("NOT_REQUIRED", "REQUIRED"),
            "settings.ip_configuration.ssl_mode": (
                "ALLOW_UNENCRYPTED_AND_ENCRYPTED", "ENCRYPTED_ONLY",
                "TRUSTED_CLIENT_CERTIFICATE_REQUIRED",
            ),
            "settings.maintenance_window.update_track": ("canary", "stable", "week5"),
            "settings.backup_configuration.backup_retention_settings.retention_unit": ("COUNT",),
        },
        forms={
            "settings.backup_configuration.start_time": _DAY_TIME,
            "database_version": Form(
                pattern=r"(POSTGRES_\d+(_\d)?|MYSQL_\w+|SQLSERVER_\w+)",
                words="a version such as POSTGRES_17",
            ),
        },
        ranges={
            "settings.disk_size": (10, 65536),
            "settings.maintenance_window.day": (1, 7),
            "settings.maintenance_window.hour": (0, 23),
            "settings.insights_config.query_string_length": (256, 4500),
            "settings.backup_configuration.backup_retention_settings.retained_backups": (1, 365),
        },
        sensitive=frozenset({"root_password", "replica_configuration.password"}),
        rules=(rules.sql_instance,),
    ),
    "google_sql_user": Facts(
        replaced=frozenset({"name", "host", "instance", "project"}),
        conflicts=(("password", "password_wo"),),
        needs=(("password_wo_version", "password_wo"),),
        sensitive=frozenset({"password"}),
    ),
    "google_storage_bucket": Facts(
        replaced=frozenset({"name", "location", "project", "hierarchical_namespace"}),
        values={
            "public_access_prevention": ("inherited", "enforced"),
            "storage_class": ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"),
            "lifecycle_rule.action.type": (
                "Delete", "SetStorageClass", "AbortIncompleteMultipartUpload",
            ),
            "lifecycle_rule.condition.with_state": ("LIVE", "ARCHIVED", "ANY"),
        },
        forms={
            "name": Form(
                pattern=r"(?!goog)[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]",
                words="3 to 63 lower-case letters, digits, hyphens, underscores and dots",
            )
        },
    ),
    "google_storage_bucket_iam_member": _member("bucket"),
}  # fmt: skip
"""By resource type; a test holds that every path is one of the schema."""
