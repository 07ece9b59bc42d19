"""Reads a run directory for people: report, trace, timeline, export, events as sentences.

These modules read the store only. They start no actor and write nothing into the store.
"""
