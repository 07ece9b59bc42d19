"""The versions actor: decides which version is served, explored and champion, with one port per caller.

`lineage` holds the rules, without Ray, waiting or clock. Loading weights belongs in `serve`.
"""
