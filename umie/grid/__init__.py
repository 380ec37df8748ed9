"""Ablation grids: plan the cells of a YAML file, run what is missing, report."""
