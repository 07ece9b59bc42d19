"""The service as people use it, with API keys. All tests here share one run and kill none of its processes."""

from collections.abc import Iterator

import pytest

from serve.http.keys_file import ENVIRONMENT
from tests.real.conftest import Run

SHOP, BANK, ROOT, SCRAPER = (f"rk-{name}-{'x' * 32}" for name in ("shop", "bank", "root", "prometheus"))
QUESTION = "Tom has 5 apples and buys 7 more. How many apples does Tom have?"
QUEUE = 24
SETTINGS = (
    "learning.groups_per_window=64",
    "learning.plateau=null",  # six versions without a gain would pause learning while a test waits for it
    "gate.max_probes=200",
    "report.per_version=60",
    f"serve.access.max_queue={QUEUE}",
    "serve.engine.tool_parser=hermes",
    # only a recipe that keeps log-probabilities can compare engine and trainer
    "method.recipe=ttrl",
    "method.sampler.temperature=1",
)


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, f"shop user {SHOP}\nbank user {BANK}\nroot admin {ROOT}\nprometheus user {SCRAPER}")
        run = Run(tmp_path_factory.mktemp("people"), *SETTINGS)
    try:
        assert run.url
        yield run
    finally:
        run.kill()
