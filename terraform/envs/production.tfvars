# terraform plan -var-file=envs/production.tfvars -var-file=terraform.tfvars
size        = "production"
environment = "prod"
