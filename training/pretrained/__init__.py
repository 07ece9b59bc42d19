"""Pretrained models from a package index: which there are, fetching and converting them, and the cache of the results.

Only what turns a package into a model folder lives here. Ratchet's own versions are in training/versions.
"""
