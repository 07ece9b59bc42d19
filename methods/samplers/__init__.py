"""Samplers: one file each, a callable that draws groups of candidates for one prompt from a policy.

A sampler judges nothing; see methods/scorers.
"""
