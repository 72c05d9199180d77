terraform {
  # Write-only arguments and ephemeral resources keep passwords out of plan and state.
  required_version = ">= 1.11"

  required_providers {
    google = {
      source  = "hashicorp/google"
      version = ">= 7.40, < 9"
    }
    random = {
      source  = "hashicorp/random"
      version = ">= 3.7, < 4"
    }
  }
}

provider "google" {
  project = var.project_id
  region  = var.region

  # The budget API counts quota against a project only when told which.
  billing_project       = var.project_id
  user_project_override = true

  default_labels = {
    app  = "speakfit"
    size = var.size
  }
}
