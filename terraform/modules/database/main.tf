# PostgreSQL: private, encrypted, backed up, and recoverable to any second of the last days.

variable "name" {
  description = "Begins every name."
  type        = string
}

variable "region" {
  description = "Region of primary and replicas."
  type        = string
}

variable "network_id" {
  description = "Network with private service access."
  type        = string
}

variable "services_range" {
  description = "Name of the range to take an address from."
  type        = string
}

variable "database_version" {
  description = "For example POSTGRES_17."
  type        = string
}

variable "edition" {
  description = "ENTERPRISE or ENTERPRISE_PLUS."
  type        = string
}

variable "tier" {
  description = "Machine, for example db-custom-2-8192."
  type        = string
}

variable "availability_type" {
  description = "ZONAL, or REGIONAL for a standby in another zone."
  type        = string
}

variable "disk_gb" {
  description = "GB to begin with; grows by itself."
  type        = number
}

variable "replicas" {
  description = "Read replicas."
  type        = number
}

variable "retained_backups" {
  description = "Daily backups kept."
  type        = number
}

variable "max_connections" {
  description = "Connections the server takes; the services derive their pools from the same number."
  type        = number
}

variable "password" {
  description = "Password of the application's user; never stored by Terraform."
  type        = string
  sensitive   = true
  ephemeral   = true
}

variable "password_version" {
  description = "A higher number sends the password."
  type        = number
}

variable "deletion_protection" {
  description = "Whether Terraform and Google refuse to delete it."
  type        = bool
}

locals {
  plus = var.edition == "ENTERPRISE_PLUS"
  # vCPU and MiB of a db-custom tier.
  custom = try([for part in regex("^db-custom-([0-9]+)-([0-9]+)$", var.tier) : tonumber(part)], null)

  # Of primary and replicas: PostgreSQL asks a replica to allow no fewer connections.
  flags = {
    # Named, so that what the services are told is what holds. A change restarts the server.
    max_connections = tostring(var.max_connections)
    # Slow statements and waits are logged, what they were about is not: it may be what a user said.
    log_checkpoints            = "on"
    log_connections            = "on"
    log_disconnections         = "on"
    log_lock_waits             = "on"
    log_min_duration_statement = "1000"
    log_min_error_statement    = "error"
    log_parameter_max_length   = "0"
    log_statement              = "ddl"
  }
}

resource "google_sql_database_instance" "primary" {
  # A name of a deleted instance cannot be used again for a week.
  name                = "${var.name}-postgres"
  region              = var.region
  database_version    = var.database_version
  deletion_protection = var.deletion_protection

  settings {
    edition                     = var.edition
    tier                        = var.tier
    availability_type           = var.availability_type
    disk_type                   = "PD_SSD"
    disk_size                   = var.disk_gb
    disk_autoresize             = true
    deletion_protection_enabled = var.deletion_protection

    ip_configuration {
      ipv4_enabled       = false
      private_network    = var.network_id
      allocated_ip_range = var.services_range
      ssl_mode           = "ENCRYPTED_ONLY"
    }

    backup_configuration {
      enabled                        = true
      start_time                     = "08:00"
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = local.plus ? 14 : 7

      backup_retention_settings {
        retained_backups = var.retained_backups
        retention_unit   = "COUNT"
      }
    }

    maintenance_window {
      day          = 7
      hour         = 9
      update_track = "stable"
    }

    insights_config {
      query_insights_enabled  = true
      query_string_length     = 1024
      record_application_tags = true
      # Statements may hold what a user said; who asked is not needed to tune them.
      record_client_address = false
    }

    dynamic "database_flags" {
      for_each = local.flags
      content {
        name  = database_flags.key
        value = database_flags.value
      }
    }
  }

  lifecycle {
    # It grows by itself, and a disk never shrinks: Terraform would replace the instance.
    ignore_changes = [settings[0].disk_size]

    precondition {
      condition     = local.plus == startswith(var.tier, "db-perf-optimized-")
      error_message = "The edition ${var.edition} does not sell ${var.tier}: ENTERPRISE has db-custom-CPUS-MIB, ENTERPRISE_PLUS has db-perf-optimized-N-*. Change database_edition or database_tier."
    }
    precondition {
      condition = local.custom == null ? true : (
        (local.custom[0] == 1 || local.custom[0] % 2 == 0) &&
        local.custom[1] % 256 == 0 &&
        local.custom[1] >= max(3840, ceil(local.custom[0] * 0.9 * 1024)) &&
        local.custom[1] <= local.custom[0] * 6.5 * 1024
      )
      error_message = "Cloud SQL makes no ${var.tier}: vCPU must be 1 or even, memory a multiple of 256 MiB, at least 3,840 MiB, and 0.9 to 6.5 GiB a vCPU."
    }
    precondition {
      condition     = startswith(var.database_version, "POSTGRES_")
      error_message = "${var.database_version} is no PostgreSQL; the services speak nothing else."
    }
  }
}

resource "google_sql_database_instance" "replica" {
  count = var.replicas

  name                 = "${var.name}-postgres-replica-${count.index + 1}"
  region               = var.region
  database_version     = var.database_version
  master_instance_name = google_sql_database_instance.primary.name
  deletion_protection  = var.deletion_protection

  settings {
    # A replica takes Plus as well when it is not named.
    edition                     = var.edition
    tier                        = var.tier
    availability_type           = "ZONAL"
    disk_type                   = "PD_SSD"
    disk_autoresize             = true
    deletion_protection_enabled = var.deletion_protection

    dynamic "database_flags" {
      for_each = local.flags
      content {
        name  = database_flags.key
        value = database_flags.value
      }
    }

    ip_configuration {
      ipv4_enabled       = false
      private_network    = var.network_id
      allocated_ip_range = var.services_range
      ssl_mode           = "ENCRYPTED_ONLY"
    }
  }

  lifecycle {
    ignore_changes = [settings[0].disk_size]
  }
}

resource "google_sql_database" "speakfit" {
  name     = "speakfit"
  instance = google_sql_database_instance.primary.name

  # With users connected a database cannot be dropped; the instance takes it along.
  deletion_policy = "ABANDON"
}

resource "google_sql_user" "speakfit" {
  name     = "speakfit"
  instance = google_sql_database_instance.primary.name

  password_wo         = var.password
  password_wo_version = var.password_version
  deletion_policy     = "ABANDON"
}

output "instance_name" {
  description = "The primary."
  value       = google_sql_database_instance.primary.name
}

output "host" {
  description = "Private address of the primary."
  value       = google_sql_database_instance.primary.private_ip_address
}

output "replica_hosts" {
  description = "Private addresses of the read replicas."
  value       = google_sql_database_instance.replica[*].private_ip_address
}

output "user" {
  description = "The application's user."
  value       = google_sql_user.speakfit.name
}

output "database" {
  description = "The application's database."
  value       = google_sql_database.speakfit.name
}

output "ca" {
  description = "Certificates of the authorities that signed the servers'; public, each instance's own."
  value = join("\n", [
    for instance in concat([google_sql_database_instance.primary], google_sql_database_instance.replica) :
    instance.server_ca_cert[0].cert
  ])
}
