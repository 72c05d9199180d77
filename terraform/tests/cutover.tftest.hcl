# Cut-over and back-out: one word and an apply.

mock_provider "google" {
  # Not what a mock makes up: names and types have a form.
  mock_resource "google_certificate_manager_dns_authorization" {
    defaults = {
      dns_resource_record = [{ name = "_acme-challenge.example.", type = "CNAME", data = "made-up.example." }]
    }
  }
}

variables {
  name                = "speakfit-test"
  region              = "us-central1"
  domain              = "platform.speakfit.example"
  service             = "speakfit-test-api"
  assets_bucket       = null
  cdn                 = false
  dns_target          = "previous"
  previous_addresses  = ["203.0.113.10"]
  requests_per_minute = 600
}

run "before_the_cut_over_everything_stands_and_nobody_comes" {
  command = apply

  module {
    source = "./modules/edge"
  }

  assert {
    condition     = google_dns_record_set.api.rrdatas == tolist(["203.0.113.10"])
    error_message = "People must still be led to the server before the migration."
  }
  assert {
    condition     = google_dns_record_set.api.ttl <= 60
    error_message = "A back-out would take longer than a minute to be seen."
  }
  assert {
    condition     = google_certificate_manager_certificate.this.managed[0].domains == tolist(["api.platform.speakfit.example"])
    error_message = "The certificate must be there before people are."
  }
}

run "the_cut_over_changes_the_record" {
  command = apply

  module {
    source = "./modules/edge"
  }

  variables {
    dns_target = "platform"
  }

  assert {
    condition     = google_dns_record_set.api.rrdatas == tolist([google_compute_global_address.this.address])
    error_message = "People must be led to the load balancer."
  }
}

run "so_does_the_back_out" {
  command = apply

  module {
    source = "./modules/edge"
  }

  assert {
    condition     = google_dns_record_set.api.rrdatas == tolist(["203.0.113.10"])
    error_message = "People must be led back."
  }
}

run "nowhere_is_no_target" {
  command = plan

  module {
    source = "./modules/edge"
  }

  variables {
    previous_addresses = []
  }

  expect_failures = [google_dns_record_set.api]
}
