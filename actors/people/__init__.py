"""The actors behind the HTTP routes for people: feedback, admin commands, and the status page's data.

HTTP itself belongs in `serve.http`; votes are counted in `actors.replay`.
"""
