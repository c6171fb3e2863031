"""Networks as they answer queries on a GPU: launched in one go, and the pool as one network for each architecture."""
