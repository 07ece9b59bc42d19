"""Benchmarks and drills, one question per file; `./run bench` lists them. Files with a leading underscore are shared.

Only tests import this package. A benchmark prints one JSON object as its last line.
"""
