"""Selectors: one file each, a callable that turns the kept groups of a prompt into examples for an objective.

A selector computes no loss; see training/objectives.
"""
