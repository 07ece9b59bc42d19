"""For all tests: hypothesis has no deadline, so property tests do not fail on a busy machine."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
