"""Imported by the server that the processes of networks are forked from, and nowhere else.

A stop that goes to all processes of a service is the gateway's affair. Without this server, what becomes of the others
could no longer be told.
"""

import signal

from service import network_processes  # noqa: F401 - so that those that are forked have it

for stop in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(stop, signal.SIG_IGN)
