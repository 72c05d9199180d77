"""Operations on one machine: the stack, the demo, the runbook server."""
