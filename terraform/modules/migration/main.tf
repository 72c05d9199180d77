# The job that brings the database's tables to those of a release, before the release serves.

variable "name" {
  description = "Begins every name."
  type        = string
}

variable "region" {
  description = "Region of the job."
  type        = string
}

variable "image" {
  description = "First image, by digest: the API's."
  type        = string
}

variable "service_account" {
  description = "E-mail of the account it runs as."
  type        = string
}

variable "network_id" {
  description = "Network to reach private addresses in."
  type        = string
}

variable "subnetwork_id" {
  description = "Subnetwork its addresses come from."
  type        = string
}

variable "database_secret" {
  description = "Secret that holds DATABASE_URL."
  type        = string
}

variable "tls_folder" {
  description = "Folder that DATABASE_URL finds the server's authority in."
  type        = string
}

variable "tls_secret" {
  description = "Secret that holds it."
  type        = string
}

locals {
  volume = basename(var.tls_folder)
}

resource "google_cloud_run_v2_job" "this" {
  name                = "${var.name}-migrate"
  location            = var.region
  deletion_protection = false

  template {
    template {
      service_account = var.service_account
      timeout         = "1800s"
      max_retries     = 0

      vpc_access {
        egress = "PRIVATE_RANGES_ONLY"
        network_interfaces {
          network    = var.network_id
          subnetwork = var.subnetwork_id
        }
      }

      containers {
        name    = "migrate"
        image   = var.image
        command = ["python", "-m", "speakfit.database", "upgrade"]

        resources {
          limits = {
            cpu    = "1"
            memory = "512Mi"
          }
        }

        env {
          name = "DATABASE_URL"
          value_source {
            secret_key_ref {
              secret  = var.database_secret
              version = "latest"
            }
          }
        }

        volume_mounts {
          name       = local.volume
          mount_path = var.tls_folder
        }
      }

      volumes {
        name = local.volume
        secret {
          secret       = var.tls_secret
          default_mode = 292 # 0444
          items {
            version = "latest"
            path    = "ca.pem"
          }
        }
      }
    }
  }

  lifecycle {
    ignore_changes = [
      annotations,
      client,
      client_version,
      labels,
      template[0].annotations,
      template[0].labels,
      template[0].template[0].containers[0].image,
    ]
  }
}

output "job" {
  description = "Name of the job."
  value       = google_cloud_run_v2_job.this.name
}
