# All that differs between the three sizes, in one place. The founding document's figures are kept
# where Google sells them; docs/infrastructure.md tells where not, and what each costs.

locals {
  sizes = {
    # One of everything, on Spot, in working hours. It loses its queue when Redis is maintained.
    development = {
      api = {
        min_instances = 1
        max_instances = 2
        cpu           = "1"
        memory        = "1Gi"
      }
      database = {
        tier              = "db-custom-2-8192"
        availability_type = "ZONAL"
        disk_gb           = 20
        max_connections   = 400
        replicas          = 0
        retained_backups  = 7
      }
      redis = {
        tier      = "BASIC"
        memory_gb = 1
      }
      worker = {
        accelerator  = "nvidia-tesla-t4"
        machine_type = "n1-standard-4"
        spot         = true
        min_replicas = 0
        max_replicas = 1
        # Weekdays from 9, for nine hours: 198 hours a month instead of 730.
        schedule = {
          cron      = "0 9 * * MON-FRI"
          hours     = 9
          replicas  = 1
          time_zone = "America/Chicago"
        }
      }
      cdn                 = false
      deletion_protection = false
      monthly_budget      = 300
    }

    production = {
      api = {
        min_instances = 2
        max_instances = 3
        cpu           = "1"
        memory        = "1Gi"
      }
      database = {
        tier              = "db-custom-4-16384"
        availability_type = "REGIONAL"
        disk_gb           = 100
        max_connections   = 500
        replicas          = 0
        retained_backups  = 30
      }
      redis = {
        tier      = "STANDARD_HA"
        memory_gb = 4
      }
      worker = {
        accelerator  = "nvidia-tesla-t4"
        machine_type = "n1-standard-4"
        spot         = false
        min_replicas = 2
        max_replicas = 4
        schedule     = null
      }
      cdn                 = false
      deletion_protection = true
      monthly_budget      = 1500
    }

    # Ten thousand daily users and more.
    scale = {
      api = {
        min_instances = 5
        max_instances = 10
        cpu           = "1"
        memory        = "1Gi"
      }
      database = {
        tier              = "db-custom-4-16384"
        availability_type = "REGIONAL"
        disk_gb           = 250
        max_connections   = 500
        replicas          = 1
        retained_backups  = 30
      }
      # Not Redis Cluster: Celery's transport speaks to one endpoint.
      redis = {
        tier      = "STANDARD_HA"
        memory_gb = 5
      }
      worker = {
        accelerator  = "nvidia-tesla-t4"
        machine_type = "n1-standard-4"
        spot         = false
        min_replicas = 5
        max_replicas = 12
        schedule     = null
      }
      cdn                 = true
      deletion_protection = true
      monthly_budget      = 3500
    }
  }

  size                = local.sizes[var.size]
  deletion_protection = coalesce(var.deletion_protection, local.size.deletion_protection)
}
