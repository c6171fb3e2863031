"""Measurements against a real server process; run by `make bench` or one by one."""
