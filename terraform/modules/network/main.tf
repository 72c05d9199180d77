# One private network: nothing in it has a public address.

variable "name" {
  description = "Begins every name."
  type        = string
}

variable "region" {
  description = "Region of the subnetwork."
  type        = string
}

variable "worker_service_account" {
  description = "E-mail of the workers' service account, which the firewall knows them by."
  type        = string
}

resource "google_compute_network" "this" {
  name                    = "${var.name}-network"
  auto_create_subnetworks = false
  routing_mode            = "REGIONAL"
}

resource "google_compute_subnetwork" "this" {
  name          = "${var.name}-${var.region}"
  network       = google_compute_network.this.id
  region        = var.region
  ip_cidr_range = "10.10.0.0/20"

  # Workers reach Artifact Registry, Secret Manager and Monitoring without an address of their own.
  private_ip_google_access = true

  log_config {
    aggregation_interval = "INTERVAL_10_MIN"
    flow_sampling        = 0.1
    metadata             = "EXCLUDE_ALL_METADATA"
  }
}

# Private service access: Cloud SQL and Memorystore live in Google's network, peered with ours.

resource "google_compute_global_address" "services" {
  name          = "${var.name}-services"
  network       = google_compute_network.this.id
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  address       = "10.20.0.0"
  prefix_length = 20
}

resource "google_service_networking_connection" "services" {
  network                 = google_compute_network.this.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.services.name]
}

# A VPC refuses whatever comes in unless a rule lets it. This is the only rule: people's SSH to
# workers, through Identity-Aware Proxy, whose addresses these are.

resource "google_compute_firewall" "iap_ssh" {
  name      = "${var.name}-iap-ssh"
  network   = google_compute_network.this.id
  direction = "INGRESS"

  source_ranges           = ["35.235.240.0/20"]
  target_service_accounts = [var.worker_service_account]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }

  log_config {
    metadata = "INCLUDE_ALL_METADATA"
  }
}

output "network_id" {
  description = "The network. Known only once the peering exists, so that who uses it waits for that."
  value       = google_compute_network.this.id
  depends_on  = [google_service_networking_connection.services]
}

output "subnetwork_id" {
  description = "The subnetwork of API and workers."
  value       = google_compute_subnetwork.this.id
}

output "services_range" {
  description = "Name of the range that Cloud SQL and Memorystore take addresses from."
  value       = google_compute_global_address.services.name
}
