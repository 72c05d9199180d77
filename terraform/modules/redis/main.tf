# Celery's broker: private, TLS, AUTH. What is in it can be lost: Postgres knows what is to be done.

variable "name" {
  description = "Begins every name."
  type        = string
}

variable "region" {
  description = "Region of the instance."
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

variable "tier" {
  description = "BASIC, or STANDARD_HA for a replica in another zone. A change makes a new instance."
  type        = string
}

variable "memory_gb" {
  description = "GB."
  type        = number
}

variable "deletion_protection" {
  description = "Whether Terraform refuses to delete it, which a change of tier needs."
  type        = bool
}

resource "google_redis_instance" "this" {
  name           = "${var.name}-redis"
  region         = var.region
  tier           = var.tier
  memory_size_gb = var.memory_gb
  redis_version  = "REDIS_7_2"

  # Unset, the provider protects it for good.
  deletion_protection = var.deletion_protection

  authorized_network      = var.network_id
  connect_mode            = "PRIVATE_SERVICE_ACCESS"
  reserved_ip_range       = var.services_range
  auth_enabled            = true
  transit_encryption_mode = "SERVER_AUTHENTICATION"

  redis_configs = {
    # A full broker refuses a new message, which the outbox keeps; it never forgets an old one.
    maxmemory-policy = "noeviction"
  }

  maintenance_policy {
    weekly_maintenance_window {
      day = "SUNDAY"
      start_time {
        hours   = 9
        minutes = 0
        seconds = 0
        nanos   = 0
      }
    }
  }
}

output "host" {
  description = "Private address."
  value       = google_redis_instance.this.host
}

output "port" {
  description = "Port, of TLS."
  value       = google_redis_instance.this.port
}

output "auth_string" {
  description = "Password. Google makes it and the provider keeps it in the state: docs/infrastructure.md, Secrets."
  value       = google_redis_instance.this.auth_string
  sensitive   = true
}

output "ca" {
  description = "Certificate of the authority that signed the server's; public, and the instance's own."
  value       = google_redis_instance.this.server_ca_certs[0].cert
}
