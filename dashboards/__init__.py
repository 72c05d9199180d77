"""Dashboards as code: boards of panels, whose thresholds and words come from `alerts`."""
