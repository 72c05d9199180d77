# What transcribes: machines with a T4 or an L4 that scale with the queue (instance_group), or
# Cloud Run's worker pool with an L4 and no machines to look after (worker_pool).

variable "name" {
  description = "Begins every name."
  type        = string
}

variable "project_id" {
  description = "Project of secrets and images."
  type        = string
}

variable "region" {
  description = "Region of the workers."
  type        = string
}

variable "zones" {
  description = "Zones that have the accelerator."
  type        = list(string)
}

variable "backend" {
  description = "instance_group or worker_pool."
  type        = string
}

variable "image" {
  description = "First image, by digest."
  type        = string
}

variable "service_account" {
  description = "E-mail of the account the workers run as."
  type        = string
}

variable "network_id" {
  description = "Network to reach private addresses in."
  type        = string
}

variable "subnetwork_id" {
  description = "Subnetwork of the machines."
  type        = string
}

variable "accelerator" {
  description = "nvidia-tesla-t4 or nvidia-l4."
  type        = string
}

variable "machine_type" {
  description = "Machine that carries the accelerator."
  type        = string
}

variable "spot" {
  description = "Whether the machines are Spot."
  type        = bool
}

variable "min_replicas" {
  description = "Workers that always run."
  type        = number
}

variable "max_replicas" {
  description = "Most workers."
  type        = number
}

variable "schedule" {
  description = "When more than min_replicas run whatever the queue says; null: never."
  type = object({
    cron      = string
    hours     = number
    replicas  = number
    time_zone = string
  })
}

variable "queue_metric" {
  description = "Metric of the queue's depth, in chunks."
  type        = string
}

variable "queue_reporters" {
  description = "How many API instances report the same depth: the autoscaler adds their series up."
  type        = number
}

variable "chunks_per_worker" {
  description = "Waiting chunks that one worker is worth."
  type        = number
  default     = 20
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

locals {
  machines = var.backend == "instance_group" ? 1 : 0
  pools    = var.backend == "worker_pool" ? 1 : 0

  volumes = { for folder, secret in var.secret_files : basename(folder) => { folder = folder, secret = secret } }

  l4 = var.accelerator == "nvidia-l4"

  startup_script = templatefile("${path.module}/startup.sh.tftpl", {
    project_id         = var.project_id
    registry_host      = "${var.region}-docker.pkg.dev"
    environment        = var.environment
    secret_environment = var.secret_environment
    secret_files       = var.secret_files
  })
}

resource "google_compute_instance_template" "this" {
  count = local.machines

  # Nothing of a template can be changed: a new one is made, and the group moves over.
  name_prefix  = "${var.name}-gpu-worker-"
  machine_type = var.machine_type
  tags         = ["gpu-worker"]

  # Container-Optimized OS: signed drivers, nothing else to patch.
  disk {
    source_image = "projects/cos-cloud/global/images/family/cos-121-lts"
    boot         = true
    auto_delete  = true
    disk_type    = "pd-balanced"
    disk_size_gb = 50
  }

  # g2 machines bring their L4 along.
  dynamic "guest_accelerator" {
    for_each = local.l4 ? [] : [var.accelerator]
    content {
      type  = guest_accelerator.value
      count = 1
    }
  }

  # No access_config: no public address.
  network_interface {
    subnetwork = var.subnetwork_id
  }

  scheduling {
    # A machine with a GPU cannot move to another host.
    on_host_maintenance         = "TERMINATE"
    automatic_restart           = !var.spot
    preemptible                 = var.spot
    provisioning_model          = var.spot ? "SPOT" : "STANDARD"
    instance_termination_action = var.spot ? "DELETE" : null
  }

  service_account {
    email = var.service_account
    # What it may do is IAM's business.
    scopes = ["https://www.googleapis.com/auth/cloud-platform"]
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  metadata = {
    startup-script            = local.startup_script
    enable-oslogin            = "TRUE"
    block-project-ssh-keys    = "TRUE"
    google-logging-enabled    = "true"
    google-monitoring-enabled = "false"
    # A deploy copies the template and changes these two.
    speakfit-image   = var.image
    speakfit-release = ""
  }

  lifecycle {
    create_before_destroy = true

    precondition {
      condition     = contains(["nvidia-tesla-t4", "nvidia-l4"], var.accelerator)
      error_message = "The worker is made for nvidia-tesla-t4 or nvidia-l4, not ${var.accelerator}."
    }
    precondition {
      condition     = local.l4 ? startswith(var.machine_type, "g2-") : startswith(var.machine_type, "n1-")
      error_message = "${var.accelerator} does not fit ${var.machine_type}: a T4 attaches to n1 machines only, an L4 comes with g2 machines only. Change worker_machine_type."
    }
  }
}

resource "google_compute_region_instance_group_manager" "this" {
  count = local.machines

  name               = "${var.name}-gpu-worker"
  base_instance_name = "${var.name}-gpu-worker"
  region             = var.region

  distribution_policy_zones        = var.zones
  distribution_policy_target_shape = "ANY"

  version {
    instance_template = google_compute_instance_template.this[0].id
  }

  update_policy {
    type                         = "PROACTIVE"
    minimal_action               = "REPLACE"
    replacement_method           = "SUBSTITUTE"
    instance_redistribution_type = "NONE"
    # New workers before old ones go; a regional group takes no less than its zones.
    max_surge_fixed       = length(var.zones)
    max_unavailable_fixed = 0
  }

  lifecycle {
    # python -m speakfit_ops.deploy rolls out templates; it begins from the newest one of here.
    ignore_changes = [version]
  }
}

resource "google_compute_region_autoscaler" "this" {
  count = local.machines

  name   = "${var.name}-gpu-worker"
  region = var.region
  target = google_compute_region_instance_group_manager.this[0].id

  autoscaling_policy {
    min_replicas = var.min_replicas
    max_replicas = var.max_replicas
    # Driver, image and model take minutes.
    cooldown_period = 300

    metric {
      name   = var.queue_metric
      filter = "resource.type = \"generic_task\""
      # Every API instance reports the whole depth and the autoscaler adds them up.
      single_instance_assignment = var.chunks_per_worker * var.queue_reporters
    }

    scale_in_control {
      time_window_sec = 600
      max_scaled_in_replicas {
        fixed = 1
      }
    }

    dynamic "scaling_schedules" {
      for_each = var.schedule == null ? [] : [var.schedule]
      content {
        name                  = "working-hours"
        description           = "Workers while people work"
        schedule              = scaling_schedules.value.cron
        duration_sec          = scaling_schedules.value.hours * 3600
        min_required_replicas = scaling_schedules.value.replicas
        time_zone             = scaling_schedules.value.time_zone
      }
    }
  }

  lifecycle {
    precondition {
      condition     = var.max_replicas >= var.min_replicas && (var.schedule == null ? true : var.max_replicas >= var.schedule.replicas)
      error_message = "max_replicas (${var.max_replicas}) is less than the workers that must run."
    }
  }
}

# The serverless alternative. It has no autoscaler of its own for a queue: min_replicas run.
resource "google_cloud_run_v2_worker_pool" "this" {
  count = local.pools

  name                = "${var.name}-gpu-worker"
  location            = var.region
  deletion_protection = false

  scaling {
    manual_instance_count = max(var.min_replicas, 1)
  }

  template {
    service_account               = var.service_account
    gpu_zonal_redundancy_disabled = true

    node_selector {
      accelerator = var.accelerator
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = var.network_id
        subnetwork = var.subnetwork_id
      }
    }

    containers {
      name  = "worker"
      image = var.image

      resources {
        limits = {
          cpu              = "4"
          memory           = "16Gi"
          "nvidia.com/gpu" = "1"
        }
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
    ignore_changes = [
      annotations,
      client,
      client_version,
      labels,
      template[0].annotations,
      template[0].containers[0].image,
      template[0].labels,
      template[0].revision,
    ]

    precondition {
      condition     = local.l4
      error_message = "A worker pool has L4 GPUs, no ${var.accelerator}: set worker_accelerator to nvidia-l4, or gpu_backend to instance_group."
    }
    precondition {
      condition     = !var.spot
      error_message = "A worker pool has no Spot instances: set worker_spot to false."
    }
  }
}

output "instance_group" {
  description = "Name of the managed instance group; null for a worker pool."
  value       = one(google_compute_region_instance_group_manager.this[*].name)
}

output "instance_template" {
  description = "The newest template of Terraform, which the next deploy copies; null for a worker pool."
  value       = one(google_compute_instance_template.this[*].name)
}
