"""Runs and grids of runs, from a YAML file to results."""
