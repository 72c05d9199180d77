"""The closed graph: metric, policy, scenario, runbook, panel and drill, and what is missing."""
