# The database in both editions, and pairs that Cloud SQL does not sell.

mock_provider "google" {}

variables {
  name                = "speakfit-test"
  region              = "us-central1"
  network_id          = "projects/p/global/networks/n"
  services_range      = "range"
  database_version    = "POSTGRES_17"
  edition             = "ENTERPRISE"
  tier                = "db-custom-2-8192"
  availability_type   = "REGIONAL"
  disk_gb             = 20
  replicas            = 1
  retained_backups    = 7
  max_connections     = 400
  password            = "not-a-password"
  password_version    = 1
  deletion_protection = true
}

run "nobody_outside_reaches_it" {
  command = plan

  module {
    source = "./modules/database"
  }

  assert {
    condition = alltrue([
      for instance in concat([google_sql_database_instance.primary], google_sql_database_instance.replica) :
      instance.settings[0].ip_configuration[0].ipv4_enabled == false &&
      instance.settings[0].ip_configuration[0].ssl_mode == "ENCRYPTED_ONLY"
    ])
    error_message = "Primary and replica must be private and encrypted."
  }
  assert {
    condition     = google_sql_database_instance.primary.settings[0].backup_configuration[0].point_in_time_recovery_enabled
    error_message = "A dropped table must be recoverable."
  }
  assert {
    condition     = google_sql_database_instance.primary.deletion_protection && google_sql_database_instance.primary.settings[0].deletion_protection_enabled
    error_message = "Both protections are needed: one stops Terraform, the other the console."
  }
  assert {
    condition     = google_sql_user.speakfit.password == null
    error_message = "The password would be in the state."
  }
  assert {
    condition     = google_sql_database_instance.replica[0].settings[0].edition == "ENTERPRISE"
    error_message = "A replica without an edition would be ENTERPRISE_PLUS."
  }
}

run "plus_has_longer_recovery" {
  command = plan

  module {
    source = "./modules/database"
  }

  variables {
    edition = "ENTERPRISE_PLUS"
    tier    = "db-perf-optimized-N-2"
  }

  assert {
    condition     = google_sql_database_instance.primary.settings[0].backup_configuration[0].transaction_log_retention_days == 14
    error_message = "ENTERPRISE_PLUS keeps logs for 14 days."
  }
}

run "a_tier_of_the_other_edition_is_refused" {
  command = plan

  module {
    source = "./modules/database"
  }

  variables {
    tier = "db-perf-optimized-N-2"
  }

  expect_failures = [google_sql_database_instance.primary]
}

run "an_odd_machine_is_refused" {
  command = plan

  module {
    source = "./modules/database"
  }

  variables {
    tier = "db-custom-3-8192"
  }

  expect_failures = [google_sql_database_instance.primary]
}
