# One service account a service, each with the least it needs, and no key of any: machines prove who
# they are by running where they run.

variable "name" {
  description = "Begins every name."
  type        = string
}

variable "project_id" {
  description = "Project that roles are granted in."
  type        = string
}

variable "github_repository" {
  description = "OWNER/NAME whose main branch may deploy; null: none."
  type        = string
}

locals {
  accounts = {
    api      = "SpeakFit API and database migrations"
    worker   = "SpeakFit GPU worker"
    deployer = "CI: pushes images, deploys, applies alerts"
  }

  # What is granted in the whole project. Secrets, buckets, images and services grant their own.
  project_roles = {
    api = [
      "roles/cloudtrace.agent",
      "roles/logging.logWriter",
      # Also creates the descriptors of our metrics.
      "roles/monitoring.metricWriter",
    ]
    worker = [
      "roles/cloudtrace.agent",
      "roles/logging.logWriter",
      "roles/monitoring.metricWriter",
    ]
    deployer = [
      # python -m speakfit_ops.deploy
      "roles/compute.instanceAdmin.v1",
      "roles/run.developer",
      # python -m alerts apply: policies, channels, snoozes, dashboards and metric descriptors; the
      # verdict of a release reads time series.
      "roles/monitoring.alertPolicyEditor",
      "roles/monitoring.dashboardEditor",
      "roles/monitoring.metricWriter",
      "roles/monitoring.notificationChannelEditor",
      "roles/monitoring.snoozeEditor",
      "roles/monitoring.viewer",
    ]
  }

  grants = merge([
    for account, roles in local.project_roles : {
      for role in roles : "${account} ${role}" => { account = account, role = role }
    }
  ]...)
}

resource "google_service_account" "this" {
  for_each = local.accounts

  account_id   = "${var.name}-${each.key}"
  display_name = each.value
}

resource "google_project_iam_member" "this" {
  for_each = local.grants

  project = var.project_id
  role    = each.value.role
  member  = "serviceAccount:${google_service_account.this[each.value.account].email}"
}

# To run something as these two, and as nobody else.
resource "google_service_account_iam_member" "deployer_acts_as" {
  for_each = toset(["api", "worker"])

  service_account_id = google_service_account.this[each.key].name
  role               = "roles/iam.serviceAccountUser"
  member             = "serviceAccount:${google_service_account.this["deployer"].email}"
}

# The API signs upload addresses (signBlob) as itself, since it has no key to sign with.
resource "google_service_account_iam_member" "api_signs" {
  service_account_id = google_service_account.this["api"].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = "serviceAccount:${google_service_account.this["api"].email}"
}

# Workload Identity Federation: a job of one branch of one repository becomes the deployer.

resource "google_iam_workload_identity_pool" "ci" {
  count = var.github_repository == null ? 0 : 1

  workload_identity_pool_id = "${var.name}-ci"
  display_name              = "CI"
}

resource "google_iam_workload_identity_pool_provider" "github" {
  count = var.github_repository == null ? 0 : 1

  workload_identity_pool_id          = google_iam_workload_identity_pool.ci[0].workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  display_name                       = "GitHub Actions"

  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
    "attribute.ref"        = "assertion.ref"
  }
  # Without it every repository of the world could ask.
  attribute_condition = "assertion.repository == '${var.github_repository}' && assertion.ref == 'refs/heads/main'"

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "ci_becomes_deployer" {
  count = var.github_repository == null ? 0 : 1

  service_account_id = google_service_account.this["deployer"].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.ci[0].name}/attribute.repository/${var.github_repository}"
}

output "emails" {
  description = "E-mail of each account, by its short name."
  value       = { for name, account in google_service_account.this : name => account.email }
}

output "workload_identity_provider" {
  description = "For the CI's sign-in step; null without a repository."
  value       = one(google_iam_workload_identity_pool_provider.github[*].name)
}
