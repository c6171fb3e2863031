"""Clients and an attacker, as many as --users says: locust -f loadtest/locustfile.py --headless --users 20."""

from locust import events

from loadtest.thresholds import judge_all
from loadtest.users import Attacker, Client

__all__ = ["Attacker", "Client"]

events.quitting.add_listener(judge_all)
