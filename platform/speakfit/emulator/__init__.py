"""Cloud Monitoring and PagerDuty on loopback: the real protocols over the engine."""
