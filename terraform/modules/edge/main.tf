# The way in: one address, a certificate that is ready before DNS leads here, Cloud Armor, and the
# DNS record that cut-over and back-out turn.

variable "name" {
  description = "Begins every name."
  type        = string
}

variable "region" {
  description = "Region of the API."
  type        = string
}

variable "domain" {
  description = "Zone; the API is api.DOMAIN."
  type        = string
}

variable "service" {
  description = "Cloud Run service of the API."
  type        = string
}

variable "assets_bucket" {
  description = "Bucket to serve /assets/ from, through the CDN; null: none."
  type        = string
}

variable "cdn" {
  description = "Whether assets_bucket is given (its name may not be known yet)."
  type        = bool
}

variable "dns_target" {
  description = "previous or platform."
  type        = string
}

variable "previous_addresses" {
  description = "Where api.DOMAIN leads for dns_target = previous."
  type        = list(string)
}

variable "requests_per_minute" {
  description = "Of one address, before 429."
  type        = number
}

locals {
  host = "api.${var.domain}"
  # Seconds. Long after the migration it may be longer; during it, a back-out is this slow.
  ttl = 60
}

resource "google_compute_global_address" "this" {
  name = "${var.name}-edge"
}

# DNS. The zone's name servers (output) go into the parent zone once.

resource "google_dns_managed_zone" "this" {
  name        = "${var.name}-zone"
  dns_name    = "${var.domain}."
  description = "SpeakFit platform"

  dnssec_config {
    state = "on"
  }

  cloud_logging_config {
    enable_logging = true
  }
}

resource "google_dns_record_set" "api" {
  managed_zone = google_dns_managed_zone.this.name
  name         = "${local.host}."
  type         = "A"
  ttl          = local.ttl
  rrdatas      = var.dns_target == "platform" ? [google_compute_global_address.this.address] : var.previous_addresses

  lifecycle {
    precondition {
      condition     = var.dns_target == "platform" || length(var.previous_addresses) > 0
      error_message = "dns_target is previous, and previous_addresses is empty: ${local.host} would lead nowhere."
    }
  }
}

# The certificate is authorized by a DNS record of its own, so it is active before the cut-over.

resource "google_certificate_manager_dns_authorization" "this" {
  name   = "${var.name}-api"
  domain = local.host
}

resource "google_dns_record_set" "authorization" {
  managed_zone = google_dns_managed_zone.this.name
  name         = google_certificate_manager_dns_authorization.this.dns_resource_record[0].name
  type         = google_certificate_manager_dns_authorization.this.dns_resource_record[0].type
  ttl          = 300
  rrdatas      = [google_certificate_manager_dns_authorization.this.dns_resource_record[0].data]
}

resource "google_certificate_manager_certificate" "this" {
  name = "${var.name}-api"

  managed {
    domains            = [local.host]
    dns_authorizations = [google_certificate_manager_dns_authorization.this.id]
  }
}

resource "google_certificate_manager_certificate_map" "this" {
  name = "${var.name}-edge"
}

resource "google_certificate_manager_certificate_map_entry" "api" {
  name         = "${var.name}-api"
  map          = google_certificate_manager_certificate_map.this.name
  certificates = [google_certificate_manager_certificate.this.id]
  hostname     = local.host
}

# The API behind it.

resource "google_compute_region_network_endpoint_group" "api" {
  name                  = "${var.name}-api"
  region                = var.region
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = var.service
  }
}

resource "google_compute_security_policy" "this" {
  name        = "${var.name}-edge"
  description = "Rate limit by address, and Google's rules against injection in preview."

  adaptive_protection_config {
    layer_7_ddos_defense_config {
      enable = true
    }
  }

  rule {
    action      = "deny(403)"
    priority    = 1000
    description = "Injection, by Google's rules. In preview: read the log before it refuses anybody."
    preview     = true
    match {
      expr {
        expression = "evaluatePreconfiguredWaf('sqli-v33-stable', {'sensitivity': 1}) || evaluatePreconfiguredWaf('rce-v33-stable', {'sensitivity': 1})"
      }
    }
  }

  rule {
    action      = "throttle"
    priority    = 2000
    description = "Too many requests from one address."
    match {
      versioned_expr = "SRC_IPS_V1"
      config {
        src_ip_ranges = ["*"]
      }
    }
    rate_limit_options {
      conform_action = "allow"
      exceed_action  = "deny(429)"
      enforce_on_key = "IP"
      rate_limit_threshold {
        count        = var.requests_per_minute
        interval_sec = 60
      }
    }
  }

  # The rule that every policy ends with.
  rule {
    action      = "allow"
    priority    = 2147483647
    description = "Everybody else."
    match {
      versioned_expr = "SRC_IPS_V1"
      config {
        src_ip_ranges = ["*"]
      }
    }
  }
}

resource "google_compute_backend_service" "api" {
  name                  = "${var.name}-api"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  protocol              = "HTTPS"
  security_policy       = google_compute_security_policy.this.id

  backend {
    group = google_compute_region_network_endpoint_group.api.id
  }

  log_config {
    enable      = true
    sample_rate = 0.1
  }
}

resource "google_compute_backend_bucket" "assets" {
  count = var.cdn ? 1 : 0

  name             = "${var.name}-assets"
  bucket_name      = var.assets_bucket
  enable_cdn       = true
  compression_mode = "AUTOMATIC"

  cdn_policy {
    cache_mode        = "CACHE_ALL_STATIC"
    default_ttl       = 3600
    client_ttl        = 3600
    max_ttl           = 86400
    negative_caching  = true
    serve_while_stale = 86400
  }
}

resource "google_compute_url_map" "this" {
  name            = "${var.name}-edge"
  default_service = google_compute_backend_service.api.id

  dynamic "host_rule" {
    for_each = google_compute_backend_bucket.assets
    content {
      hosts        = [local.host]
      path_matcher = "assets"
    }
  }

  dynamic "path_matcher" {
    for_each = google_compute_backend_bucket.assets
    content {
      name            = "assets"
      default_service = google_compute_backend_service.api.id
      path_rule {
        paths   = ["/assets/*"]
        service = path_matcher.value.id
      }
    }
  }
}

resource "google_compute_ssl_policy" "this" {
  name            = "${var.name}-edge"
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"
}

resource "google_compute_target_https_proxy" "this" {
  name            = "${var.name}-edge"
  url_map         = google_compute_url_map.this.id
  certificate_map = "//certificatemanager.googleapis.com/${google_certificate_manager_certificate_map.this.id}"
  ssl_policy      = google_compute_ssl_policy.this.id
}

resource "google_compute_global_forwarding_rule" "https" {
  name                  = "${var.name}-https"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.this.id
  port_range            = "443"
  target                = google_compute_target_https_proxy.this.id
}

# http:// answers with https://.

resource "google_compute_url_map" "to_https" {
  name = "${var.name}-to-https"

  default_url_redirect {
    https_redirect         = true
    strip_query            = false
    redirect_response_code = "MOVED_PERMANENTLY_DEFAULT"
  }
}

resource "google_compute_target_http_proxy" "to_https" {
  name    = "${var.name}-to-https"
  url_map = google_compute_url_map.to_https.id
}

resource "google_compute_global_forwarding_rule" "http" {
  name                  = "${var.name}-http"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  ip_address            = google_compute_global_address.this.id
  port_range            = "80"
  target                = google_compute_target_http_proxy.to_https.id
}

output "address" {
  description = "The load balancer's address."
  value       = google_compute_global_address.this.address
}

output "url" {
  description = "Where the API answers once DNS leads here."
  value       = "https://${local.host}"
}

output "name_servers" {
  description = "For the parent zone's NS record."
  value       = google_dns_managed_zone.this.name_servers
}
