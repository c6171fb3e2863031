"""Networks as they answer queries: prepared once for their device and precision."""
