# The whole estate in each size, and input that it refuses. Nothing is made: the provider is mocked.
# random is not, since ephemeral resources cannot be; it makes passwords and no more.

mock_provider "google" {}

variables {
  project_id   = "speakfit-example"
  environment  = "prod"
  size         = "production"
  api_image    = "us-central1-docker.pkg.dev/speakfit-example/speakfit/api@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
  worker_image = "us-central1-docker.pkg.dev/speakfit-example/speakfit/gpu-worker@sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
}

run "development_has_no_load_balancer_without_a_domain" {
  command = plan

  variables {
    size        = "development"
    environment = "dev"
  }

  assert {
    condition     = output.api_service == "speakfit-dev-api"
    error_message = "The service is not named after its environment."
  }
  assert {
    condition     = output.edge_address == null && output.name_servers == null
    error_message = "A load balancer costs money that development does not have."
  }
}

run "production_with_a_domain" {
  command = plan

  variables {
    domain = "platform.speakfit.example"
  }

  assert {
    condition     = output.api_url == "https://api.platform.speakfit.example"
    error_message = "The API is not at its domain."
  }
}

run "scale_keeps_the_names_of_production" {
  command = plan

  variables {
    size = "scale"
  }

  assert {
    condition     = output.database_instance == "speakfit-prod-postgres"
    error_message = "Growing must not make another database."
  }
}

run "without_images_everything_else_is_made" {
  command = plan

  variables {
    api_image    = null
    worker_image = null
    domain       = "platform.speakfit.example"
  }

  assert {
    condition     = output.api_service == null && output.worker_instance_group == null
    error_message = "Nothing can run before its image was pushed."
  }
  assert {
    condition     = output.registry == "us-central1-docker.pkg.dev/speakfit-example/speakfit-prod"
    error_message = "There is nowhere to push the images to."
  }
}

run "the_first_release_migrates_before_it_serves" {
  command = plan

  variables {
    serve  = false
    domain = "platform.speakfit.example"
  }

  assert {
    condition     = output.migration_job == "speakfit-prod-migrate" && output.api_service == null
    error_message = "The job must be there before the API is."
  }
}

run "input_that_is_wrong_is_refused" {
  command = plan

  variables {
    size             = "huge"
    project_id       = "Speakfit"
    api_image        = "us-central1-docker.pkg.dev/speakfit-example/speakfit/api:latest"
    region           = "us-central1-a"
    dns_target       = "elsewhere"
    attached_secrets = { OPENAI_KEY = "openai" }
  }

  expect_failures = [
    var.size,
    var.project_id,
    var.api_image,
    var.region,
    var.dns_target,
    var.attached_secrets,
  ]
}
