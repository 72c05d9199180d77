# One secret, who may read it and, where Terraform knows it, its value. The value is write-only: it
# is in neither plan nor state. Without one the secret stays empty until somebody fills it.

variable "name" {
  description = "Its name in Secret Manager."
  type        = string
}

variable "value" {
  description = "Its value; null leaves it to people."
  type        = string
  default     = null
  sensitive   = true
  ephemeral   = true
}

variable "value_version" {
  description = "Another text makes a new version out of `value`; null makes none."
  type        = string
  default     = null
}

variable "readers" {
  description = "Service accounts that may read it, by a name that is known before they exist."
  type        = map(string)
}

resource "google_secret_manager_secret" "this" {
  secret_id = var.name

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_version" "this" {
  count = var.value_version == null ? 0 : 1

  secret                 = google_secret_manager_secret.this.id
  secret_data_wo         = var.value
  secret_data_wo_version = var.value_version

  lifecycle {
    # Who reads `latest` always finds one.
    create_before_destroy = true
  }
}

resource "google_secret_manager_secret_iam_member" "reader" {
  for_each = var.readers

  secret_id = google_secret_manager_secret.this.id
  role      = "roles/secretmanager.secretAccessor"
  member    = "serviceAccount:${each.value}"
}

output "id" {
  description = "Its name, known once it has its value and its readers."
  value       = google_secret_manager_secret.this.secret_id
  depends_on  = [google_secret_manager_secret_version.this, google_secret_manager_secret_iam_member.reader]
}
