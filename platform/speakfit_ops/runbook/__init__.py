"""Runbooks: listed, shown, checked, walked through step by step, and served as pages."""
