"""Copies the files of versions to nodes without the run directory, through Ray's object store.

It reads and writes files only: no vLLM, no torch, and no decision about which version is served.
"""
