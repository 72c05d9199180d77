# Where images are kept.

variable "name" {
  description = "Begins every name."
  type        = string
}

variable "region" {
  description = "Region of the images, that of who pulls them."
  type        = string
}

variable "project_id" {
  description = "Project, for the address."
  type        = string
}

variable "readers" {
  description = "Service accounts that may pull, by name."
  type        = map(string)
}

variable "writers" {
  description = "Service accounts that may push, by name."
  type        = map(string)
}

resource "google_artifact_registry_repository" "this" {
  repository_id = var.name
  location      = var.region
  format        = "DOCKER"
  description   = "Images of API and worker."

  docker_config {
    # A tag says what was pushed, for good; deployments go by digest.
    immutable_tags = true
  }

  cleanup_policies {
    id     = "keep-the-last-twenty"
    action = "KEEP"
    most_recent_versions {
      keep_count = 20
    }
  }
  cleanup_policies {
    id     = "delete-after-ninety-days"
    action = "DELETE"
    condition {
      older_than = "7776000s"
    }
  }
}

resource "google_artifact_registry_repository_iam_member" "reader" {
  for_each = var.readers

  repository = google_artifact_registry_repository.this.name
  location   = google_artifact_registry_repository.this.location
  role       = "roles/artifactregistry.reader"
  member     = "serviceAccount:${each.value}"
}

resource "google_artifact_registry_repository_iam_member" "writer" {
  for_each = var.writers

  repository = google_artifact_registry_repository.this.name
  location   = google_artifact_registry_repository.this.location
  role       = "roles/artifactregistry.writer"
  member     = "serviceAccount:${each.value}"
}

output "address" {
  description = "What image names begin with."
  value       = "${var.region}-docker.pkg.dev/${var.project_id}/${google_artifact_registry_repository.this.repository_id}"
}
