"""The evaluator: runs the gate's weighings and watches, and measures accuracy for the report.

The statistics and the decision belong in `training.gate`.
"""
