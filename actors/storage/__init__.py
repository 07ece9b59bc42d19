"""The run directory and its one durable writer: the store, backup and restore, the lock.

Tables and record formats belong in `core.store`. Other actors write through `StorePort` only.
"""
