"""Measurements, each run as `python -m benchmarks.NAME`; `load` is what `make bench` runs."""
