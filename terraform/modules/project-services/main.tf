# The APIs that the estate and `python -m alerts apply` use.

locals {
  services = toset([
    "artifactregistry",
    "billingbudgets",
    "certificatemanager",
    "cloudresourcemanager",
    "cloudtrace",
    "compute",
    "dns",
    "iam",
    "iamcredentials",
    "logging",
    "monitoring",
    "redis",
    "run",
    "secretmanager",
    "servicenetworking",
    "sqladmin",
    "storage",
    "sts",
  ])
}

resource "google_project_service" "this" {
  for_each = local.services

  service = "${each.key}.googleapis.com"

  # Somebody else in the project may use it too.
  disable_on_destroy = false
}
