"""Measurements: `python -m benchmarks` is what `make bench` runs; the others are run as `python -m benchmarks.NAME`."""
