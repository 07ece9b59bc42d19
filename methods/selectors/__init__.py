"""Selectors: one file each, a callable that turns one scored group into examples for an objective.

A selector computes no loss; see training/objectives.
"""
