"""Offline: black-box attacks with a query budget, what they leave of a defense, and how fast it is."""
