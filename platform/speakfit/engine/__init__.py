"""Cloud Monitoring's alerting semantics, pure: no I/O and no clock of its own."""
