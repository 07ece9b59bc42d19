"""For all tests: a busy machine is no reason for a law to fail."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
