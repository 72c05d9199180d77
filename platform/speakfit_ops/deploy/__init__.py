"""Releases: a new revision without traffic, looked at, given traffic in steps, taken back."""
