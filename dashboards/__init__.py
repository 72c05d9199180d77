"""Dashboards as code, with thresholds taken from `alerts`; nothing is here yet."""
