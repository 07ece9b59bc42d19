"""Scorers: one file each, a callable that gives every candidate of a prompt's groups a score, from votes or judgements.

A scorer drops nothing and makes no examples; see methods/filters.py and methods/selectors.
"""
