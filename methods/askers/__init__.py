"""Askers: one file each, a callable that writes prompts to explore next, from a prompt and its judged groups."""
