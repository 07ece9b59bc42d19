"""The `ratchet` command: one module per group of commands, and the checks before a start.

Commands parse arguments and print. Decisions and file formats belong in the packages that they call.
"""
