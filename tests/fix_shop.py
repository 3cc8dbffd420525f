"""Fixtures of the practice shop."""
