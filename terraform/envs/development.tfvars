# terraform plan -var-file=envs/development.tfvars -var-file=terraform.tfvars
size        = "development"
environment = "dev"
