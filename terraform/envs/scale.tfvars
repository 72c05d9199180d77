# terraform plan -var-file=envs/scale.tfvars -var-file=terraform.tfvars
size        = "scale"
environment = "prod"
