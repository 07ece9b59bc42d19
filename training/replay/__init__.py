"""What the trainer draws from: backpressure on prompts, and windows of new and replayed examples.

Pure bookkeeping in memory. Nothing here imports torch or Ray, or writes to disk; actors/replay stores the facts.
"""
