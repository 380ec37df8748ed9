"""Implementations by other libraries, timed next to ours."""
