"""Microbenchmarks of the fusion: shapes, operations, peers and limits, measured in turn in one run."""
