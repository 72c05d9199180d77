# terraform plan -var-file=envs/production.tfvars   (terraform.tfvars is read first, by itself)
size        = "production"
environment = "prod"
