"""The trainer: draws windows, trains on one device or on a Ray Train group, and proposes versions.

Losses and the learner belong in `training`. The gate's verdicts are none of the trainer's business.
"""
