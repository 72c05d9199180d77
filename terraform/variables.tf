variable "project_id" {
  description = "Google Cloud project that everything is made in. It must exist and have billing."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project_id))
    error_message = "project_id must be a project's ID, not its name or number: 6 to 30 lower-case letters, digits and hyphens, beginning with a letter."
  }
}

variable "size" {
  description = "How big: development, production or scale (10,000 daily users). See sizes.tf."
  type        = string

  validation {
    condition     = contains(["development", "production", "scale"], var.size)
    error_message = "size must be development, production or scale."
  }
}

variable "environment" {
  description = "Which of your environments this is, for example dev or prod: every name begins with speakfit-ENVIRONMENT. Keep it when the size changes, else everything is made anew."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9]{1,10}$", var.environment))
    error_message = "environment must be 2 to 11 lower-case letters and digits, beginning with a letter."
  }
}

variable "region" {
  description = "Region of everything that is not global. T4 and L4 are not in every one: `gcloud compute accelerator-types list`."
  type        = string
  default     = "us-central1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region must be a region such as us-central1, not a zone."
  }
}

variable "worker_zones" {
  description = "Zones of the region that have the worker's GPU."
  type        = list(string)
  default     = ["us-central1-a", "us-central1-b", "us-central1-f"]

  validation {
    condition     = length(var.worker_zones) > 0 && length(var.worker_zones) == length(distinct(var.worker_zones))
    error_message = "worker_zones must name at least one zone, and none twice."
  }
}

# Images. Null until the first were pushed: everything but what runs them is made then.

variable "api_image" {
  description = "API image for the first deployment, by digest. Later ones are python -m speakfit_ops.deploy's business."
  type        = string
  default     = null

  validation {
    condition     = var.api_image == null || can(regex("@sha256:[0-9a-f]{64}$", var.api_image))
    error_message = "api_image must end in @sha256: and 64 hex digits: a tag can be moved, a digest cannot."
  }
}

variable "worker_image" {
  description = "Worker image for the first deployment, by digest."
  type        = string
  default     = null

  validation {
    condition     = var.worker_image == null || can(regex("@sha256:[0-9a-f]{64}$", var.worker_image))
    error_message = "worker_image must end in @sha256: and 64 hex digits: a tag can be moved, a digest cannot."
  }
}

variable "serve" {
  description = "False makes the migration job and not yet the API, which is ready only once the database has its tables. For the first release."
  type        = bool
  default     = true
}

# The GPU worker.

variable "gpu_backend" {
  description = "instance_group (Compute Engine, T4 or L4, Spot possible) or worker_pool (Cloud Run, L4, no machines to look after)."
  type        = string
  default     = "instance_group"

  validation {
    condition     = contains(["instance_group", "worker_pool"], var.gpu_backend)
    error_message = "gpu_backend must be instance_group or worker_pool."
  }
}

variable "worker_accelerator" {
  description = "nvidia-tesla-t4 or nvidia-l4; null takes the size's."
  type        = string
  default     = null
}

variable "worker_machine_type" {
  description = "Machine that carries the accelerator: n1-* for a T4, g2-* for an L4; null takes the size's."
  type        = string
  default     = null
}

variable "worker_spot" {
  description = "Whether workers are Spot machines, which cost about a third and may end at any time; null takes the size's."
  type        = bool
  default     = null
}

# Database.

variable "database_version" {
  description = "PostgreSQL as Cloud SQL names it. Only upwards."
  type        = string
  default     = "POSTGRES_17"
}

variable "database_edition" {
  description = "ENTERPRISE or ENTERPRISE_PLUS. Named always: from PostgreSQL 16 on Cloud SQL takes Plus otherwise, which refuses db-custom tiers."
  type        = string
  default     = "ENTERPRISE"
}

variable "database_tier" {
  description = "Machine of the database, for example db-custom-2-8192 (2 vCPU, 8,192 MiB); null takes the size's."
  type        = string
  default     = null
}

variable "database_password_version" {
  description = "Raise by one to give the database a new password at the next apply; then roll out API and worker."
  type        = number
  default     = 1
}

variable "redis_url_version" {
  description = "Raise by one after Redis was replaced or its AUTH string changed, so that the address with it is written again."
  type        = number
  default     = 1
}

# The way in.

variable "domain" {
  description = "Zone that this Terraform owns, for example platform.speakfit.app; the API is api.DOMAIN. Null: no load balancer, the API answers at its run.app address."
  type        = string
  default     = null

  validation {
    condition     = var.domain == null || can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.domain))
    error_message = "domain must be a host name without a dot at its end, for example platform.speakfit.app."
  }
}

variable "dns_target" {
  description = "Where api.DOMAIN leads: previous (the server before the migration) or platform. Cut-over and back-out are this one word and an apply."
  type        = string
  default     = "platform"

  validation {
    condition     = contains(["previous", "platform"], var.dns_target)
    error_message = "dns_target must be previous or platform."
  }
}

variable "previous_addresses" {
  description = "IPv4 addresses of the server before the migration; needed while dns_target may be previous."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.previous_addresses : can(cidrhost("${address}/32", 0))])
    error_message = "previous_addresses must be IPv4 addresses."
  }
}

variable "requests_per_minute" {
  description = "Requests a minute that one address may make before Cloud Armor answers 429."
  type        = number
  default     = 600
}

# Secrets that people fill: python -m speakfit_ops.credentials set NAME.

variable "attached_secrets" {
  description = "Environment variables of the API and the secret, filled by people, that holds the value of each, for example { ID_TOKEN_AUDIENCE = \"google-oauth-client-id\" }. Name a secret only once it has a value: a revision with an empty one never becomes ready."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in values(var.attached_secrets) : contains(["elevenlabs-api-key", "google-oauth-client-id", "google-oauth-client-secret"], name)])
    error_message = "attached_secrets knows the secrets elevenlabs-api-key, google-oauth-client-id and google-oauth-client-secret."
  }
  validation {
    condition     = alltrue([for name in keys(var.attached_secrets) : can(regex("^[A-Z][A-Z0-9_]*$", name))])
    error_message = "attached_secrets names environment variables: capital letters, digits and underscores."
  }
}

# People, machines and money.

variable "github_repository" {
  description = "OWNER/NAME whose main branch may deploy, through Workload Identity Federation and without a key; null: none."
  type        = string
  default     = null

  validation {
    condition     = var.github_repository == null || can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "github_repository must be OWNER/NAME."
  }
}

variable "billing_account" {
  description = "Billing account for the budget alert, such as 012345-6789AB-CDEF01; null: no budget."
  type        = string
  default     = null

  validation {
    condition     = var.billing_account == null || can(regex("^[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}$", var.billing_account))
    error_message = "billing_account must look like 012345-6789AB-CDEF01."
  }
}

variable "monthly_budget" {
  description = "US dollars a month at which the budget is used up; null takes the size's."
  type        = number
  default     = null
}

variable "deletion_protection" {
  description = "Whether database and services refuse to be destroyed; null takes the size's. Destroying takes two applies: this one false first."
  type        = bool
  default     = null
}
