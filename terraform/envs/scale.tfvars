# terraform plan -var-file=envs/scale.tfvars   (terraform.tfvars is read first, by itself)
size        = "scale"
environment = "prod"
