# The API on Cloud Run.

variable "name" {
  description = "Begins every name."
  type        = string
}

variable "region" {
  description = "Region of the service."
  type        = string
}

variable "image" {
  description = "First image, by digest."
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

variable "min_instances" {
  description = "Instances that always run."
  type        = number

  validation {
    condition     = var.min_instances >= 1
    error_message = "At least one API instance must always run: it exports the queue's depth and the workers' heartbeats, which two alerts are made of."
  }
}

variable "max_instances" {
  description = "Most instances."
  type        = number
}

variable "cpu" {
  description = "vCPU of an instance, as Cloud Run writes it."
  type        = string
}

variable "memory" {
  description = "Memory of an instance, for example 1Gi."
  type        = string
}

variable "environment" {
  description = "Environment variables and their values; no secrets."
  type        = map(string)
}

variable "secret_environment" {
  description = "Environment variables and the secrets that hold their values."
  type        = map(string)
}

variable "secret_files" {
  description = "Folders, and the secret that each holds as ca.pem."
  type        = map(string)
}

variable "public" {
  description = "Whether its own address answers the internet; else only the load balancer does."
  type        = bool
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete it."
  type        = bool
}

locals {
  port = 8080
  # A volume's name, from the folder it is mounted at.
  volumes = { for folder, secret in var.secret_files : basename(folder) => { folder = folder, secret = secret } }
}

resource "google_cloud_run_v2_service" "this" {
  name                = "${var.name}-api"
  location            = var.region
  ingress             = var.public ? "INGRESS_TRAFFIC_ALL" : "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
  deletion_protection = var.deletion_protection

  template {
    service_account                  = var.service_account
    timeout                          = "300s"
    max_instance_request_concurrency = 40

    scaling {
      min_instance_count = var.min_instances
      max_instance_count = var.max_instances
    }

    vpc_access {
      # The internet (ElevenLabs, Google's sign-in keys) is reached directly, so no NAT is needed.
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = var.network_id
        subnetwork = var.subnetwork_id
      }
    }

    containers {
      name  = "api"
      image = var.image

      ports {
        container_port = local.port
      }

      resources {
        limits = {
          cpu    = var.cpu
          memory = var.memory
        }
        # Metrics are exported between requests too: without CPU then, queue-depth and
        # worker-down would see nothing and telemetry-silent would page.
        cpu_idle          = false
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = var.environment
        content {
          name  = env.key
          value = env.value
        }
      }

      dynamic "env" {
        for_each = var.secret_environment
        content {
          name = env.key
          value_source {
            secret_key_ref {
              secret  = env.value
              version = "latest"
            }
          }
        }
      }

      dynamic "volume_mounts" {
        for_each = local.volumes
        content {
          name       = volume_mounts.key
          mount_path = volume_mounts.value.folder
        }
      }

      # Ready means that database and broker answer. A revision that never gets there gets no
      # traffic.
      startup_probe {
        period_seconds    = 5
        timeout_seconds   = 4
        failure_threshold = 24
        http_get {
          path = "/readyz"
          port = local.port
        }
      }

      # Alive means that the process serves. It does not ask the database: restarting the API
      # would not mend that.
      liveness_probe {
        period_seconds    = 10
        timeout_seconds   = 4
        failure_threshold = 3
        http_get {
          path = "/healthz"
          port = local.port
        }
      }
    }

    dynamic "volumes" {
      for_each = local.volumes
      content {
        name = volumes.key
        secret {
          secret       = volumes.value.secret
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
    # python -m speakfit_ops.deploy makes revisions and moves traffic; Terraform makes the service.
    ignore_changes = [
      annotations,
      client,
      client_version,
      labels,
      template[0].annotations,
      template[0].containers[0].image,
      template[0].labels,
      template[0].revision,
      traffic,
    ]

    precondition {
      condition     = var.max_instances >= var.min_instances
      error_message = "max_instances (${var.max_instances}) is less than min_instances (${var.min_instances})."
    }
  }
}

# Callers show keys or tokens to the API itself; Google's IAM is not what keeps strangers out.
resource "google_cloud_run_v2_service_iam_member" "anyone" {
  name     = google_cloud_run_v2_service.this.name
  location = google_cloud_run_v2_service.this.location
  role     = "roles/run.invoker"
  member   = "allUsers"
}

output "service" {
  description = "Name of the service."
  value       = google_cloud_run_v2_service.this.name
}

output "uri" {
  description = "Its own address."
  value       = google_cloud_run_v2_service.this.uri
}
