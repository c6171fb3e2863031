"""Tensors in, tensors out: purifiers, the pool, defenses, classifiers and bundles."""
