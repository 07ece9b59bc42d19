"""Training: replay and backpressure, the learner and its objectives, versions on disk, and the gate.

No actors live here, and nothing imports Ray. training/gate and training/replay do not import torch either.
"""
