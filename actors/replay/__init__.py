"""The buffer: leases, outcomes, votes and windows, with one port per caller over a shared state.

The replay algorithm belongs in `training.replay`. Nothing here calls the policy.
"""
