"""For all tests: hypothesis has no deadline, so property tests do not fail on a busy machine. CI may skip nothing."""

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

LONG = "RATCHET_LONG=1 runs it"
"""Ends the reason of the only skips that CI permits. Any other means that a tool or a privilege is missing there."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    return _failed_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    return _failed_in_ci((yield))


def _failed_in_ci(report: Any) -> Any:
    """A test that was skipped (not one that was expected to fail) counts as failed where RATCHET_CI is set."""
    if "RATCHET_CI" in os.environ and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.endswith(LONG):
            report.outcome, report.longrepr = "failed", f"CI must run this test, but cannot: {reason}"
    return report
