"""The service: HTTP in front, the engine behind."""
