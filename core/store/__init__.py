"""The durable state of a run: one SQLite file with its schema, writer, readers, typed facts and retention rules.

No actor lives here: actors/storage owns the writer and decides when to delete.
"""
