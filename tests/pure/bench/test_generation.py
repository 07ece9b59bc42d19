"""What bench/generation.py concludes from CPU times; the run itself is in tests/real."""

from bench.generation import _ratio, of_all


def test_every_process_counts_and_one_that_began_meanwhile_from_its_start() -> None:
    found = of_all(1200, {"raylet": 1.0, "Store": 2.0, "gone": 9.0}, {"raylet": 2.0, "Store": 4.0, "Collector": 1.0})
    assert found == {"cpu_s_all": {"Collector": 1.0, "Store": 2.0, "raylet": 1.0}, "tokens_per_cpu_s_all": 300.0}


def test_the_ratio_of_all_processes_is_the_median_over_rounds() -> None:
    bare = {"tokens_per_cpu_s": 1000.0}
    turns = [
        ({"tokens_per_cpu_s": 900.0, "tokens_per_cpu_s_all": of_all_}, bare, bare) for of_all_ in (500.0, 700.0, 600.0)
    ]
    assert _ratio(turns, 1) == 0.9 and _ratio(turns, 1, "tokens_per_cpu_s_all") == 0.6
