"""Asks adaptergate's RegressionGate: paired differences in, accepted or not out. Runs in `.venv-rivals`."""

import json
import sys

from adaptergate.gating.regression_gate import GateConfig, RegressionGate


def accepted(epsilon, d):
    """d: candidate's hit minus baseline's, of each question."""
    scores = {"candidate": [max(0, each) for each in d], "baseline": [max(0, -each) for each in d]}
    decision = RegressionGate(GateConfig(epsilon=epsilon)).evaluate(
        tenant_id="tenant",
        candidate_id="candidate",
        baseline_id="baseline",
        holdout=[{"question_id": str(place), "place": place} for place in range(len(d))],
        scorer=lambda adapter, query: float(scores[adapter][query["place"]]),
    )
    return decision.accepted


print(json.dumps([accepted(**case) for case in json.load(sys.stdin)]))
