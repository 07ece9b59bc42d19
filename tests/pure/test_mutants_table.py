"""CI runs a sample of `./run mutants`; whether its two tables fit the code is seen here at once."""

from tests import mutants


def test_every_known_equivalent_is_a_change_that_can_be_made_now() -> None:
    modules = sorted({module for module, _ in mutants.equivalents()})
    possible = {(mutant.module, mutant.name) for module in modules for mutant in mutants.mutants(module)}
    gone = sorted(mutants.equivalents() - possible)
    assert gone == [], f"remove or mend these lines of {mutants.EQUIVALENT.name}"


def test_every_pattern_finds_modules_and_every_named_test_exists() -> None:
    for pattern, tests in mutants.TESTS.items():
        assert list(mutants.ROOT.glob(pattern)), pattern
        for test in tests.split():
            assert (mutants.ROOT / "tests/pure" / test).is_file(), f"{pattern} names {test}"
