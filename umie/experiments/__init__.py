"""From a YAML file to results: runs and grids of runs."""
