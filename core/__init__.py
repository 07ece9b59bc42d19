"""Messages, settings, the store and the protocols that every other package shares.

Imports no other package of Ratchet, and no Ray, torch or vLLM.
"""
