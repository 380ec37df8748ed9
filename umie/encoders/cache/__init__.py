"""Encoder features on disk."""
