"""Implementations of others, measured beside ours."""
