# Mails the billing account's administrators as the month's money is used up. It stops nothing.

variable "name" {
  description = "Its name."
  type        = string
}

variable "project_id" {
  description = "Project whose costs count."
  type        = string
}

variable "billing_account" {
  description = "Such as 012345-6789AB-CDEF01."
  type        = string
}

variable "monthly_budget" {
  description = "US dollars."
  type        = number

  validation {
    condition     = var.monthly_budget > 0 && floor(var.monthly_budget) == var.monthly_budget
    error_message = "monthly_budget must be whole US dollars."
  }
}

resource "google_billing_budget" "this" {
  billing_account = var.billing_account
  display_name    = var.name

  budget_filter {
    projects        = ["projects/${var.project_id}"]
    calendar_period = "MONTH"
  }

  amount {
    specified_amount {
      currency_code = "USD"
      units         = tostring(var.monthly_budget)
    }
  }

  threshold_rules {
    threshold_percent = 0.5
  }
  threshold_rules {
    threshold_percent = 0.9
  }
  threshold_rules {
    threshold_percent = 1
    spend_basis       = "FORECASTED_SPEND"
  }
  threshold_rules {
    threshold_percent = 1
  }
}
