"""Tuners: one file each, an object that measures judged groups, and decides by the means over a window."""
