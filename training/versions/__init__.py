"""Versions on disk: publish, load and export.

Only files of versions live here. Training is in training/learner, and the lineage of versions in actors/versions.
"""
