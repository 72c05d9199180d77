# terraform plan -var-file=envs/development.tfvars   (terraform.tfvars is read first, by itself)
size        = "development"
environment = "dev"

# No load balancer: the API answers at its run.app address. Give it a domain to rehearse a cut-over.
domain = null
