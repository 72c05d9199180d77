"""The deployable processes: the API and the worker."""
