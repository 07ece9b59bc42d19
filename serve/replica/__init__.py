"""The Ray Serve deployment of the policy, its gateway HAProxy, its reconciliation loop, and the client of its handle.

It combines the engine with the HTTP app. It imports no actor: it calls them through the protocols in ports.py.
"""
