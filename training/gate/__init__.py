"""The gate: statistics, guards and the weighing that decide whether a candidate version is promoted.

Pure Python and NumPy. Nothing here imports torch, Ray or vLLM, reads a clock or writes to disk.
"""
