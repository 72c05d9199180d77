# The estate: what is made, and how the parts know each other. How big: sizes.tf.

locals {
  name = "speakfit-${var.environment}"

  serves = var.serve && var.api_image != null

  # Where the containers find the certificates that Postgres and Redis are known by.
  database_tls = "/etc/speakfit/database-tls"
  redis_tls    = "/etc/speakfit/redis-tls"

  service_accounts = module.identity.emails
  runtime_readers = {
    api    = local.service_accounts["api"]
    worker = local.service_accounts["worker"]
  }

  # The variables that speakfit.settings reads; a test holds that it does. PORT is Cloud Run's.
  environment = {
    GOOGLE_CLOUD_PROJECT = var.project_id
    SPEAKFIT_LOCATION    = var.region
    AUDIO_STORE          = "gs://${module.storage.audio_bucket}/audio"
    AUDIO_DIR            = "/tmp/audio"

    # From these each process derives its pool, so that all together never ask for more than there
    # is. In a rollout both releases run.
    DATABASE_MAX_CONNECTIONS = tostring(local.size.database.max_connections)
    API_REPLICAS             = tostring(2 * local.size.api.max_instances)
    WORKER_REPLICAS          = tostring(local.size.worker.max_replicas)
  }
  worker_environment = merge(local.environment, {
    WHISPER_MODEL        = "/opt/speakfit/model"
    WHISPER_DEVICE       = "cuda"
    WHISPER_COMPUTE_TYPE = "float16"
  })
  secret_environment = {
    DATABASE_URL = module.database_url.id
    REDIS_URL    = module.redis_url.id
  }
  # Lists are read from the replica.
  api_secret_environment = merge(local.secret_environment, {
    for replica in module.database_replica_url : "DATABASE_REPLICA_URL" => replica.id
    }, {
    for variable, secret in var.attached_secrets : variable => module.people_secret[secret].id
  })
  secret_files = {
    (local.database_tls) = module.database_ca.id
    (local.redis_tls)    = module.redis_ca.id
  }

  # The password is another at every run and sent when this number changes. It changes with the
  # replicas too: an address made later than the others would hold a password nobody set.
  password_version = var.database_password_version * 10 + local.size.database.replicas

  # Secrets that people fill.
  filled_by_people = toset(["elevenlabs-api-key", "google-oauth-client-id", "google-oauth-client-secret"])

  # A number, as a text: that is what providers 7 and 8 both take. It changes with the tier, whose
  # change makes another Redis with another address.
  redis_version = tostring(var.redis_url_version * 2 + (local.size.redis.tier == "STANDARD_HA" ? 1 : 0))
}

module "project_services" {
  source = "./modules/project-services"
}

module "identity" {
  source = "./modules/identity"

  name              = local.name
  project_id        = var.project_id
  github_repository = var.github_repository

  depends_on = [module.project_services]
}

module "network" {
  source = "./modules/network"

  name                   = local.name
  region                 = var.region
  worker_service_account = local.service_accounts["worker"]

  depends_on = [module.project_services]
}

module "registry" {
  source = "./modules/registry"

  name       = local.name
  region     = var.region
  project_id = var.project_id
  readers    = local.runtime_readers
  writers    = { deployer = local.service_accounts["deployer"] }

  depends_on = [module.project_services]
}

module "storage" {
  source = "./modules/storage"

  name          = local.name
  project_id    = var.project_id
  region        = var.region
  audio_writers = { api = local.service_accounts["api"] }
  audio_readers = { worker = local.service_accounts["worker"] }
  cdn           = local.size.cdn

  depends_on = [module.project_services]
}

# Made anew at every run and sent only when its version is raised; never in plan or state. Letters
# and digits only, since it stands in an address.
ephemeral "random_password" "database" {
  length  = 40
  special = false
}

module "database" {
  source = "./modules/database"

  name                = local.name
  region              = var.region
  network_id          = module.network.network_id
  services_range      = module.network.services_range
  database_version    = var.database_version
  edition             = var.database_edition
  tier                = coalesce(var.database_tier, local.size.database.tier)
  availability_type   = local.size.database.availability_type
  disk_gb             = local.size.database.disk_gb
  replicas            = local.size.database.replicas
  retained_backups    = local.size.database.retained_backups
  max_connections     = local.size.database.max_connections
  password            = ephemeral.random_password.database.result
  password_version    = local.password_version
  deletion_protection = local.deletion_protection
}

module "redis" {
  source = "./modules/redis"

  name                = local.name
  region              = var.region
  network_id          = module.network.network_id
  services_range      = module.network.services_range
  tier                = local.size.redis.tier
  memory_gb           = local.size.redis.memory_gb
  deletion_protection = local.deletion_protection
}

# Addresses with passwords in them are secrets as a whole.

module "database_url" {
  source = "./modules/secret"

  name          = "${local.name}-database-url"
  value         = "postgresql+psycopg://${module.database.user}:${ephemeral.random_password.database.result}@${module.database.host}:5432/${module.database.database}?sslmode=verify-ca&sslrootcert=${local.database_tls}/ca.pem"
  value_version = tostring(local.password_version)
  readers       = local.runtime_readers

  depends_on = [module.project_services]
}

module "database_replica_url" {
  source = "./modules/secret"
  count  = min(local.size.database.replicas, 1)

  name          = "${local.name}-database-replica-url"
  value         = "postgresql+psycopg://${module.database.user}:${ephemeral.random_password.database.result}@${module.database.replica_hosts[0]}:5432/${module.database.database}?sslmode=verify-ca&sslrootcert=${local.database_tls}/ca.pem"
  value_version = tostring(local.password_version)
  readers       = { api = local.service_accounts["api"] }

  depends_on = [module.project_services]
}

module "redis_url" {
  source = "./modules/secret"

  name = "${local.name}-redis-url"
  # Memorystore's certificate names an address, not a host; its authority signs for this instance
  # alone, so the chain says who it is.
  value         = "rediss://:${module.redis.auth_string}@${module.redis.host}:${module.redis.port}/0?ssl_cert_reqs=required&ssl_check_hostname=false&ssl_ca_certs=${local.redis_tls}/ca.pem"
  value_version = local.redis_version
  readers       = local.runtime_readers

  depends_on = [module.project_services]
}

module "database_ca" {
  source = "./modules/secret"

  name          = "${local.name}-database-ca"
  value         = module.database.ca
  value_version = tostring(1 + local.size.database.replicas)
  readers       = local.runtime_readers

  depends_on = [module.project_services]
}

module "redis_ca" {
  source = "./modules/secret"

  name          = "${local.name}-redis-ca"
  value         = module.redis.ca
  value_version = local.redis_version
  readers       = local.runtime_readers

  depends_on = [module.project_services]
}

# Empty until somebody fills them: python -m speakfit_ops.credentials set NAME.
module "people_secret" {
  source   = "./modules/secret"
  for_each = local.filled_by_people

  name    = "${local.name}-${each.key}"
  readers = { api = local.service_accounts["api"] }

  depends_on = [module.project_services]
}

module "migration" {
  source = "./modules/migration"
  count  = var.api_image == null ? 0 : 1

  name            = local.name
  region          = var.region
  image           = var.api_image
  service_account = local.service_accounts["api"]
  network_id      = module.network.network_id
  subnetwork_id   = module.network.subnetwork_id
  database_secret = module.database_url.id
  tls_folder      = local.database_tls
  tls_secret      = module.database_ca.id
}

module "api" {
  source = "./modules/api"
  count  = local.serves ? 1 : 0

  name                = local.name
  region              = var.region
  image               = var.api_image
  service_account     = local.service_accounts["api"]
  network_id          = module.network.network_id
  subnetwork_id       = module.network.subnetwork_id
  min_instances       = local.size.api.min_instances
  max_instances       = local.size.api.max_instances
  cpu                 = local.size.api.cpu
  memory              = local.size.api.memory
  environment         = local.environment
  secret_environment  = local.api_secret_environment
  secret_files        = local.secret_files
  public              = var.domain == null
  deletion_protection = local.deletion_protection
}

module "gpu_worker" {
  source = "./modules/gpu-worker"
  count  = var.worker_image == null ? 0 : 1

  name               = local.name
  project_id         = var.project_id
  region             = var.region
  zones              = var.worker_zones
  backend            = var.gpu_backend
  image              = var.worker_image
  service_account    = local.service_accounts["worker"]
  network_id         = module.network.network_id
  subnetwork_id      = module.network.subnetwork_id
  accelerator        = coalesce(var.worker_accelerator, local.size.worker.accelerator)
  machine_type       = coalesce(var.worker_machine_type, local.size.worker.machine_type)
  spot               = coalesce(var.worker_spot, local.size.worker.spot)
  min_replicas       = local.size.worker.min_replicas
  max_replicas       = local.size.worker.max_replicas
  schedule           = local.size.worker.schedule
  queue_metric       = "workload.googleapis.com/speakfit.queue.depth"
  queue_reporters    = local.size.api.min_instances
  environment        = local.worker_environment
  secret_environment = local.secret_environment
  secret_files       = local.secret_files
}

module "edge" {
  source = "./modules/edge"
  count  = var.domain != null && local.serves ? 1 : 0

  name                = local.name
  region              = var.region
  domain              = var.domain
  service             = module.api[0].service
  assets_bucket       = module.storage.assets_bucket
  cdn                 = local.size.cdn
  dns_target          = var.dns_target
  previous_addresses  = var.previous_addresses
  requests_per_minute = var.requests_per_minute
}

module "budget" {
  source = "./modules/budget"
  count  = var.billing_account == null ? 0 : 1

  name            = local.name
  project_id      = var.project_id
  billing_account = var.billing_account
  monthly_budget  = coalesce(var.monthly_budget, local.size.monthly_budget)

  depends_on = [module.project_services]
}
