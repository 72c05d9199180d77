output "api_url" {
  description = "Where the API answers; null until an image was given."
  value       = var.domain != null ? one(module.edge[*].url) : one(module.api[*].uri)
}

output "api_service" {
  description = "Cloud Run service; what deploy and rollback act on."
  value       = one(module.api[*].service)
}

output "migration_job" {
  description = "Cloud Run job that migrates the database; null until an image was given."
  value       = one(module.migration[*].job)
}

output "worker_instance_group" {
  description = "Managed instance group of the workers; null for a worker pool."
  value       = one(module.gpu_worker[*].instance_group)
}

output "worker_instance_template" {
  description = "Newest instance template of Terraform."
  value       = one(module.gpu_worker[*].instance_template)
}

output "registry" {
  description = "What image names begin with."
  value       = module.registry.address
}

output "database_instance" {
  description = "Cloud SQL instance, for gcloud sql."
  value       = module.database.instance_name
}

output "audio_bucket" {
  description = "Bucket of uploaded audio."
  value       = module.storage.audio_bucket
}

output "edge_address" {
  description = "Address of the load balancer; null without a domain."
  value       = one(module.edge[*].address)
}

output "name_servers" {
  description = "For the NS record in the parent zone; null without a domain."
  value       = one(module.edge[*].name_servers)
}

output "deployer" {
  description = "Service account that CI becomes."
  value       = module.identity.emails["deployer"]
}

output "workload_identity_provider" {
  description = "For the CI's sign-in step; null without a repository."
  value       = module.identity.workload_identity_provider
}
