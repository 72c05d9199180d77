"""Proofs of the pure engine."""
