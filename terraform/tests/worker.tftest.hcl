# The GPU worker on machines and in a worker pool.

mock_provider "google" {}

variables {
  name               = "speakfit-test"
  project_id         = "speakfit-example"
  region             = "us-central1"
  zones              = ["us-central1-a", "us-central1-b"]
  backend            = "instance_group"
  image              = "r/p/gpu-worker@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
  service_account    = "worker@speakfit-example.iam.gserviceaccount.com"
  network_id         = "projects/p/global/networks/n"
  subnetwork_id      = "projects/p/regions/r/subnetworks/s"
  accelerator        = "nvidia-tesla-t4"
  machine_type       = "n1-standard-4"
  spot               = true
  min_replicas       = 1
  max_replicas       = 3
  schedule           = null
  queue_metric       = "workload.googleapis.com/speakfit.queue.depth"
  queue_reporters    = 2
  environment        = { WHISPER_DEVICE = "cuda" }
  secret_environment = { DATABASE_URL = "speakfit-test-database-url" }
  secret_files       = { "/etc/speakfit/database-tls" = "speakfit-test-database-ca" }
}

run "a_spot_machine_ends_without_a_trace" {
  command = plan

  module {
    source = "./modules/gpu-worker"
  }

  assert {
    condition = (
      google_compute_instance_template.this[0].scheduling[0].provisioning_model == "SPOT" &&
      google_compute_instance_template.this[0].scheduling[0].instance_termination_action == "DELETE" &&
      google_compute_instance_template.this[0].scheduling[0].automatic_restart == false
    )
    error_message = "A Spot machine must be Spot, deleted when it is taken, and not restarted."
  }
  assert {
    condition     = length(google_compute_instance_template.this[0].network_interface[0].access_config) == 0
    error_message = "A worker needs no public address."
  }
  assert {
    condition     = google_compute_region_instance_group_manager.this[0].update_policy[0].max_surge_fixed == 2
    error_message = "A regional group surges by its zones."
  }
  assert {
    condition     = google_compute_region_autoscaler.this[0].autoscaling_policy[0].metric[0].single_instance_assignment == 40
    error_message = "The depth is reported by each API instance and added up."
  }
  assert {
    condition     = strcontains(google_compute_instance_template.this[0].metadata["startup-script"], "cos-extensions install gpu")
    error_message = "The driver would not be installed."
  }
  assert {
    condition     = length(google_cloud_run_v2_worker_pool.this) == 0
    error_message = "One backend at a time."
  }
}

run "an_l4_comes_with_its_machine" {
  command = plan

  module {
    source = "./modules/gpu-worker"
  }

  variables {
    accelerator  = "nvidia-l4"
    machine_type = "g2-standard-4"
  }

  assert {
    condition     = length(google_compute_instance_template.this[0].guest_accelerator) == 0
    error_message = "A g2 machine has its L4 already."
  }
}

run "a_worker_pool_has_no_machines" {
  command = plan

  module {
    source = "./modules/gpu-worker"
  }

  variables {
    backend     = "worker_pool"
    accelerator = "nvidia-l4"
    spot        = false
  }

  assert {
    condition     = length(google_compute_instance_template.this) == 0 && google_cloud_run_v2_worker_pool.this[0].scaling[0].manual_instance_count == 1
    error_message = "The pool takes the place of the machines."
  }
}

run "a_t4_on_another_machine_is_refused" {
  command = plan

  module {
    source = "./modules/gpu-worker"
  }

  variables {
    machine_type = "n2-standard-4"
  }

  expect_failures = [google_compute_instance_template.this]
}

run "a_t4_in_a_worker_pool_is_refused" {
  command = plan

  module {
    source = "./modules/gpu-worker"
  }

  variables {
    backend = "worker_pool"
    spot    = false
  }

  expect_failures = [google_cloud_run_v2_worker_pool.this]
}
