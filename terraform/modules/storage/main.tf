# Audio that people uploaded; and, with a CDN, the public files of the web application.

variable "name" {
  description = "Begins every name."
  type        = string
}

variable "project_id" {
  description = "Makes the buckets' names unique in the world."
  type        = string
}

variable "region" {
  description = "Region of the buckets."
  type        = string
}

variable "audio_writers" {
  description = "Service accounts that store and delete audio, by name."
  type        = map(string)
}

variable "audio_readers" {
  description = "Service accounts that read audio, by name."
  type        = map(string)
}

variable "cdn" {
  description = "Whether there is a bucket for public files."
  type        = bool
}

resource "google_storage_bucket" "audio" {
  name                        = "${var.project_id}-${var.name}-audio"
  location                    = upper(var.region)
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  # What a user deletes is gone for good after a week, and a mistake is not.
  soft_delete_policy {
    retention_duration_seconds = 604800
  }

  # Parts of uploads that never ended.
  lifecycle_rule {
    condition {
      age = 1
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }
  lifecycle_rule {
    condition {
      age                   = 90
      matches_storage_class = ["STANDARD"]
    }
    action {
      type          = "SetStorageClass"
      storage_class = "NEARLINE"
    }
  }
}

resource "google_storage_bucket_iam_member" "audio_writer" {
  for_each = var.audio_writers

  bucket = google_storage_bucket.audio.name
  role   = "roles/storage.objectUser"
  member = "serviceAccount:${each.value}"
}

resource "google_storage_bucket_iam_member" "audio_reader" {
  for_each = var.audio_readers

  bucket = google_storage_bucket.audio.name
  role   = "roles/storage.objectViewer"
  member = "serviceAccount:${each.value}"
}

# Public on purpose: what every visitor's browser loads. Nothing of a user is ever put here.
resource "google_storage_bucket" "assets" {
  count = var.cdn ? 1 : 0

  name                        = "${var.project_id}-${var.name}-assets"
  location                    = upper(var.region)
  uniform_bucket_level_access = true
  public_access_prevention    = "inherited"

  versioning {
    enabled = true
  }

  lifecycle_rule {
    condition {
      days_since_noncurrent_time = 30
      with_state                 = "ARCHIVED"
    }
    action {
      type = "Delete"
    }
  }
}

# Reading a file whose name is known, not listing what there is.
resource "google_storage_bucket_iam_member" "assets_public" {
  count = var.cdn ? 1 : 0

  bucket = google_storage_bucket.assets[0].name
  role   = "roles/storage.legacyObjectReader"
  member = "allUsers"
}

output "audio_bucket" {
  description = "Bucket of uploaded audio."
  value       = google_storage_bucket.audio.name
}

output "assets_bucket" {
  description = "Bucket of public files; null without a CDN."
  value       = one(google_storage_bucket.assets[*].name)
}
