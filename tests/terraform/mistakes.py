"""Mistakes that people make in Terraform, each sown into the real estate, and who catches it.

`says` is part of what the reader is told. One test sows many at once, a slow one each alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """What catches a mistake."""

    VALIDATE = "validate"
    PLAN = "plan"
    INVARIANT = "invariant"


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """One edit of one file."""

    name: str
    file: str
    old: str
    new: str
    says: str
    stage: Stage


API = "modules/api/main.tf"
DATABASE = "modules/database/main.tf"
EDGE = "modules/edge/main.tf"
IDENTITY = "modules/identity/main.tf"
NETWORK = "modules/network/main.tf"
REDIS = "modules/redis/main.tf"
REGISTRY = "modules/registry/main.tf"
SAMPLE = "tests/sample.tfvars"
SECRET = "modules/secret/main.tf"
SERVICES = "modules/project-services/main.tf"
STORAGE = "modules/storage/main.tf"
WORKER = "modules/gpu-worker/main.tf"
# Lines of the sample that a variable can take the place of, so that several are wrong at once.
FIRST = (
    "# Stands in for what only a real project has, so that a plan can be made anywhere. "
    "Checked plans and\n"
)
SECOND = "# prices use it, applies never do: names here lead nowhere.\n"
GITHUB = 'github_repository = "speakfit/platform"\n'
BILLING = 'billing_account   = "012345-6789AB-CDEF01"\n'


def _validate(name: str, file: str, old: str, new: str, says: str) -> Mistake:
    return Mistake(name=name, file=file, old=old, new=new, says=says, stage=Stage.VALIDATE)


def _plan(name: str, file: str, old: str, new: str, says: str) -> Mistake:
    return Mistake(name=name, file=file, old=old, new=new, says=says, stage=Stage.PLAN)


def _variable(name: str, old: str, line: str, says: str) -> Mistake:
    return _plan(name, SAMPLE, old, f"{line}\n", says)


def _invariant(name: str, file: str, old: str, new: str, says: str) -> Mistake:
    return Mistake(name=name, file=file, old=old, new=new, says=says, stage=Stage.INVARIANT)


MISTAKES: tuple[Mistake, ...] = (
    # The schema: names, types, what must be there.
    _validate(
        "an argument that does not exist",
        REDIS,
        "auth_enabled            = true",
        "auth_enable             = true",
        'An argument named "auth_enable" is not expected here',
    ),
    _validate(
        "an argument of another type",
        DATABASE,
        'disk_type                   = "PD_SSD"\n    disk_size                   = var.disk_gb',
        'disk_type                   = "PD_SSD"\n    disk_size                   = ["20"]',
        'Inappropriate value for attribute "disk_size": number required',
    ),
    _validate(
        "a required argument that is missing",
        REGISTRY,
        '  format        = "DOCKER"\n',
        "",
        'The argument "format" is required',
    ),
    _validate(
        "a required block that is missing",
        SECRET,
        "  replication {\n    auto {}\n  }\n",
        "",
        "At least 1 \"replication\" blocks are required",
    ),
    _validate(
        "a block that does not exist",
        NETWORK,
        '  log_config {\n    aggregation_interval = "INTERVAL_10_MIN"',
        '  logging {\n    aggregation_interval = "INTERVAL_10_MIN"',
        'Blocks of type "logging" are not expected here',
    ),
    _validate(
        "a block too many",
        DATABASE,
        "    maintenance_window {",
        "    maintenance_window {\n      day = 1\n    }\n    maintenance_window {",
        'No more than 1 "maintenance_window" blocks are allowed',
    ),
    _validate(
        "what only Google decides",
        EDGE,
        'resource "google_compute_global_address" "this" {\n',
        'resource "google_compute_global_address" "this" {\n  self_link = "here"\n',
        'Can\'t configure a value for "self_link"',
    ),
    _validate(
        "a block written as an argument",
        STORAGE,
        "  versioning {\n    enabled = true\n  }",
        "  versioning = true",
        'An argument named "versioning" is not expected here',
    ),
    _validate(
        "a resource type that does not exist",
        IDENTITY,
        'resource "google_service_account" "this"',
        'resource "google_service_acount" "this"',
        "google_service_acount",
    ),
    _validate(
        "a reference to nothing",
        NETWORK,
        "value       = google_compute_subnetwork.this.id",
        "value       = google_compute_subnetwork.main.id",
        'A managed resource "google_compute_subnetwork" "main" has not been declared',
    ),
    _validate(
        "an attribute that a resource does not have",
        REDIS,
        "value       = google_redis_instance.this.port",
        "value       = google_redis_instance.this.ports",
        'This object has no argument, nested block, '
        'or exported attribute named "ports"',
    ),
    _validate(
        "a variable nobody declared",
        DATABASE,
        "tier                        = var.tier\n    availability_type           = var.avail",
        "tier                        = var.teir\n    availability_type           = var.avail",
        "An input variable with the name \"teir\" has not been declared",
    ),
    _validate(
        "a module's variable left out",
        "main.tf",
        "  requests_per_minute = var.requests_per_minute\n",
        "",
        'The argument "requests_per_minute" is required',
    ),
    _validate(
        "a module's variable that it does not have",
        "main.tf",
        "module \"budget\" {\n  source = \"./modules/budget\"\n",
        "module \"budget\" {\n  source = \"./modules/budget\"\n  currency = \"USD\"\n",
        'An argument named "currency" is not expected here',
    ),
    # Values.
    _validate(
        "a value that the schema does not list",
        NETWORK,
        '"INTERVAL_10_MIN"',
        '"INTERVAL_10_MINUTES"',
        "expected aggregation_interval to be one of",
    ),
    _validate(
        "an unencrypted mode misspelt",
        REDIS,
        '"SERVER_AUTHENTICATION"',
        '"TLS"',
        "expected transit_encryption_mode to be one of",
    ),
    _validate(
        "a value that only the overlay lists",
        DATABASE,
        'ssl_mode           = "ENCRYPTED_ONLY"\n    }\n\n    backup',
        'ssl_mode           = "REQUIRED"\n    }\n\n    backup',
        "expected ssl_mode to be one of",
    ),
    _validate(
        "minutes where seconds are meant",
        API,
        '"300s"',
        '"5m"',
        'invalid value for timeout: "5m"',
    ),
    _validate(
        "a time of the day that is none",
        DATABASE,
        '"08:00"',
        '"8am"',
        'invalid value for start_time: "8am"',
    ),
    _validate(
        "a range that is none",
        NETWORK,
        'ip_cidr_range = "10.10.0.0/20"',
        'ip_cidr_range = "10.10.0.0"',
        'invalid value for ip_cidr_range: "10.10.0.0"',
    ),
    _validate(
        "a zone's name without its dot",
        EDGE,
        'dns_name    = "${var.domain}."',
        'dns_name    = "platform.example"',
        'invalid value for dns_name: "platform.example"',
    ),
    _validate(
        "a member without its kind",
        API,
        'member   = "allUsers"',
        'member   = "everybody"',
        'invalid value for member: "everybody"',
    ),
    _validate(
        "a share over one",
        NETWORK,
        "flow_sampling        = 0.1",
        "flow_sampling        = 10",
        "expected flow_sampling to be in the range (0 - 1)",
    ),
    _validate(
        "an hour that no day has",
        REDIS,
        "hours   = 9",
        "hours   = 24",
        "expected hours to be in the range (0 - 23)",
    ),
    # Arguments that do not go together.
    _validate(
        "two ways to name a template",
        WORKER,
        '  name_prefix  = "${var.name}-gpu-worker-"',
        '  name         = "speakfit-worker"\n  name_prefix  = "${var.name}-gpu-worker-"',
        '"name": conflicts with name_prefix',
    ),
    _validate(
        "a secret's value without its version",
        SECRET,
        "  secret_data_wo_version = var.value_version\n",
        "",
        "all of `secret_data_wo,secret_data_wo_version` must be specified",
    ),
    _validate(
        "a firewall that neither allows nor denies",
        NETWORK,
        '  allow {\n    protocol = "tcp"\n    ports    = ["22"]\n  }\n',
        "",
        "one of `allow,deny` must be specified",
    ),
    _validate(
        "a connector and direct egress at once",
        API,
        '      egress = "PRIVATE_RANGES_ONLY"\n      network_interfaces {\n        network',
        '      connector = "old"\n      egress = "PRIVATE_RANGES_ONLY"\n'
        "      network_interfaces {\n        network",
        '"connector": conflicts with network_interfaces',
    ),
    _plan(
        "no surge and nothing unavailable",
        WORKER,
        "max_surge_fixed       = length(var.zones)",
        "max_surge_fixed       = 0",
        "cannot both be 0",
    ),
    _validate(
        "a metric without a target",
        WORKER,
        "      single_instance_assignment = var.chunks_per_worker * var.queue_reporters\n",
        "",
        "A metric needs target or single_instance_assignment",
    ),
    _plan(
        "a worker with a GPU that should move to another host",
        WORKER,
        'on_host_maintenance         = "TERMINATE"',
        'on_host_maintenance         = "MIGRATE"',
        "do not support live migration",
    ),
    _plan(
        "a port that Cloud Run sets itself",
        API,
        "      dynamic \"volume_mounts\" {\n        for_each = local.volumes\n        content {\n"
        "          name       = volume_mounts.key\n          mount_path = "
        "volume_mounts.value.folder\n        }\n      }\n\n      # Ready",
        '      env {\n        name  = "PORT"\n        value = "8080"\n      }\n\n      # Ready',
        "The environment variable PORT is reserved",
    ),
    _validate(
        "rules without one for everybody else",
        EDGE,
        "priority    = 2147483647",
        "priority    = 3000",
        "A default rule with priority 2147483647",
    ),
    _validate(
        "days of recovery that the edition does not sell",
        DATABASE,
        "transaction_log_retention_days = local.plus ? 14 : 7\n",
        "transaction_log_retention_days = 60\n",
        "expected transaction_log_retention_days to be in the range",
    ),
    # Known only when a size and its variables are there.
    _plan(
        "a service that was shut down",
        SERVICES,
        '"artifactregistry",',
        '"containerregistry",',
        "Container Registry was shut down",
    ),
    _plan(
        "memory that Cloud Run does not give with one CPU",
        "sizes.tf",
        'memory        = "1Gi"\n      }\n      database = {\n        tier              = '
        '"db-custom-4-16384"\n        availability_type = "REGIONAL"\n        '
        "disk_gb           = 100",
        'memory        = "8Gi"\n      }\n      database = {\n        tier              = '
        '"db-custom-4-16384"\n        availability_type = "REGIONAL"\n        '
        "disk_gb           = 100",
        "Cloud Run has no instance of 1 CPU and 8Gi",
    ),
    _variable("a zone for a region", BILLING, 'region = "us-central1-a"',
              "region must be a region"),
    _variable("a project's number", 'project_id        = "speakfit-example"\n',
              'project_id = "123456789012"', "project_id must be a project's ID"),
    _variable("a DNS target nobody knows", GITHUB, 'dns_target = "new"',
              "dns_target must be previous or platform"),
    _variable("a domain with a dot at its end", 'domain            = "platform.speakfit.example"\n',
              'domain = "platform.speakfit.example."', "domain must be a host name"),
    _variable("an image by its tag",
              'api_image         = "us-central1-docker.pkg.dev/speakfit-example/speakfit/api@'
              'sha256:' + "a" * 64 + '"\n',
              'api_image = "us-docker.pkg.dev/p/r/api:latest"', "api_image must end in @sha256:"),
    _variable("a secret nobody has", SECOND, 'attached_secrets = { OPENAI_KEY = "openai" }',
              "attached_secrets knows the secrets"),
    _variable("a tier of the other edition", FIRST, 'database_tier = "db-perf-optimized-N-2"',
              "The edition ENTERPRISE does not sell db-perf-optimized-N-2"),
    _variable("a tier that nobody makes", FIRST, 'database_tier = "db-custom-3-8192"',
              "Cloud SQL makes no db-custom-3-8192"),
    _variable("a plus edition with a custom tier", FIRST, 'database_edition = "ENTERPRISE_PLUS"',
              "The edition ENTERPRISE_PLUS does not sell db-custom-4-16384"),
    _variable("a T4 on the wrong machine", SECOND, 'worker_machine_type = "n2-standard-4"',
              "a T4 attaches to n1 machines only"),
    _variable("a GPU that nobody planned for", SECOND, 'worker_accelerator = "nvidia-tesla-p4"',
              "The worker is made for nvidia-tesla-t4 or nvidia-l4"),
    _variable("a T4 in a worker pool", SECOND, 'gpu_backend = "worker_pool"',
              "A worker pool has L4 GPUs"),
    _variable("a domain that leads nowhere", GITHUB, 'dns_target = "previous"',
              "previous_addresses is empty"),
    _plan("a standby without recovery", DATABASE, "point_in_time_recovery_enabled = true",
          "point_in_time_recovery_enabled = false", "REGIONAL needs backups"),
    # What Google would let pass.
    _invariant("a public database", DATABASE,
               "ipv4_enabled       = false\n      private_network    = var.network_id\n"
               "      allocated_ip_range = var.services_range\n      ssl_mode           = "
               '"ENCRYPTED_ONLY"\n    }\n\n    backup',
               "ipv4_enabled       = true\n      private_network    = var.network_id\n"
               "      allocated_ip_range = var.services_range\n      ssl_mode           = "
               '"ALLOW_UNENCRYPTED_AND_ENCRYPTED"\n    }\n\n    backup',
               "The database has a public address"),
    _invariant("an open firewall", NETWORK, '["35.235.240.0/20"]', '["0.0.0.0/0"]',
               "The firewall lets everybody in"),
    _invariant("every port open", NETWORK, '    protocol = "tcp"\n    ports    = ["22"]\n',
               '    protocol = "all"\n', "The firewall opens every port"),
    _invariant("workers with a public address", WORKER,
               "    subnetwork = var.subnetwork_id\n  }\n\n  scheduling",
               "    subnetwork = var.subnetwork_id\n    access_config {}\n  }\n\n  scheduling",
               "Workers have a public address"),
    _invariant("a secret in the state", SECRET,
               "  secret_data_wo         = var.value\n"
               "  secret_data_wo_version = var.value_version\n",
               '  secret_data            = "hunter2hunter2"\n',
               "secret_data would be in the state"),
    _invariant("a key in an environment variable", "main.tf",
               "    SPEAKFIT_LOCATION    = var.region\n",
               "    SPEAKFIT_LOCATION    = var.region\n"
               '    ELEVENLABS_API_KEY   = "sk_0123456789"\n',
               "ELEVENLABS_API_KEY is written down"),
    _invariant("a password in an address", "main.tf",
               "    AUDIO_DIR            = \"/tmp/audio\"\n",
               "    AUDIO_DIR            = \"/tmp/audio\"\n"
               '    CACHE_URL            = "redis://:hunter2@10.0.0.1/0"\n',
               "holds an address with a password"),
    _invariant("Redis without a password", REDIS, "auth_enabled            = true",
               "auth_enabled            = false", "Redis asks for no password"),
    _invariant("an API that sleeps between requests", API, "cpu_idle          = false",
               "cpu_idle          = true", "no metric is exported"),
    _invariant("a service account that may edit all", IDENTITY,
               '      "roles/run.developer",', '      "roles/editor",',
               "roles/editor is more than anything here needs"),
    _invariant("a service that may give its access on", STORAGE,
               '  role   = "roles/storage.objectViewer"\n  member = "serviceAccount:${each.value}"',
               '  role   = "roles/storage.admin"\n  member = "serviceAccount:${each.value}"',
               "roles/storage.admin is more than anything here needs"),
    _invariant("ranges that overlap", NETWORK, '"10.20.0.0"', '"10.10.0.0"',
               "The range 10.10.0.0/20 overlaps 10.10.0.0/20"),
    _invariant("a range that begins in its middle", NETWORK, '"10.10.0.0/20"', '"10.10.0.1/20"',
               "10.10.0.1/20 is no range"),
    _invariant("a probe that proves nothing", API, '"/readyz"', '"/healthz/"',
               "A revision could serve without its database"),
    _invariant("audio for everybody", STORAGE,
               '  role   = "roles/storage.objectViewer"\n  member = "serviceAccount:${each.value}"',
               '  role   = "roles/storage.objectViewer"\n  member = "allUsers"',
               "allUsers has roles/storage.objectViewer"),
    _invariant("any repository may deploy", IDENTITY,
               "  attribute_condition = \"assertion.repository == '${var.github_repository}' && "
               "assertion.ref == 'refs/heads/main'\"",
               "  attribute_condition = \"assertion.sub != ''\"",
               "Every repository, or every branch"),
)  # fmt: skip
