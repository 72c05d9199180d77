"""Faults for the local stack: on the links between its parts, on its processes, on its disk."""
