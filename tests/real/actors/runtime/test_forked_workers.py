"""Workers of a run's own Ray cluster are forked from one server, agree in no random number, and start without it."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]
DRIVER = """
    import json, os, signal, sys, time
    from pathlib import Path
    from core.fork_server import share
    from actors.runtime import local_cluster
    import psutil, ray

    def kind():
        class Told:
            def draw(self):
                import random, numpy, ray, torch
                mine = {"pid": os.getpid(), "parent": os.getppid(), "group": os.getpgid(0), "cwd": os.getcwd()}
                mine["threads"] = [torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]]
                mine["random"] = [random.random(), float(numpy.random.rand()), ray.WorkerID.from_random().hex()]
                mine["job"] = ray.get_runtime_context().get_job_id()
                return mine

            def print(self):
                print("said to its log", flush=True)

        return Told

    server, told = int(sys.argv[2] == "with"), {}
    environment = {**os.environ, **local_cluster.forks_environment(), "OMP_NUM_THREADS": "3"}
    with share(environment, ("actors.preloaded",)) as print_to:
        print_to(Path(sys.argv[1]) / "forks.log")
        (mother,) = psutil.Process().children()
        if not server:
            mother.kill()
            mother.wait()
        local_cluster.start(log_to_driver=False, num_cpus=1)
        made = {"runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1", "MARK": "x"}}, "max_restarts": -1, "num_cpus": 0}
        actors = [ray.remote(kind()).options(**made).remote() for _ in range(4)]
        told["first"] = ray.get([actor.draw.remote() for actor in actors])
        told["mother"] = mother.pid if server else 0
        ray.get(actors[0].print.remote())
        logs = [path.read_text() for path in local_cluster.logs_dir().glob("worker-*.out")]
        told["logged"] = sum("said to its log" in text for text in logs)
        os.kill(told["first"][0]["pid"], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            try:
                told["again"] = ray.get(actors[0].draw.remote())
                break
            except ray.exceptions.RayError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        told["others"] = [each["pid"] for each in ray.get([actor.draw.remote() for actor in actors[1:]])]
        if server:
            mother.kill()
            mother.wait()
            told["after"] = [each["pid"] for each in ray.get([actor.draw.remote() for actor in actors[1:]])]
            told["sessions"] = [os.getsid(pid) == os.getsid(0) for pid in told["others"]]
        ray.shutdown()
        print(json.dumps(told))
"""


def driven(folder: Path, how: str) -> dict[str, Any]:
    """What the actors of a driver told, which has a fork server (`with`) or a dead one."""
    script = folder / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4])}
    command = [sys.executable, str(script), str(folder), how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_workers_are_forked_and_have_their_own_random_numbers_threads_logs_and_process_groups(tmp_path: Path) -> None:
    told = driven(tmp_path, "with")
    first, mother = told["first"], told["mother"]
    forked = [each for each in first if each["parent"] == mother]
    assert len(forked) >= 3, "Ray starts one worker per core before it knows the job, and not from the server"
    for drawn in zip(*(each["random"] for each in first), strict=True):
        assert len(set(drawn)) == len(first), "two workers drew the same"
    assert all(each["group"] == each["pid"] for each in first), "Raylet ends a worker with its process group"
    assert all(each["threads"] == [1, "1"] and each["job"] == "01000000" for each in first)
    assert told["logged"] == 1
    again = told["again"]
    assert again["parent"] == mother and again["pid"] not in [each["pid"] for each in first]
    assert told["others"] == [each["pid"] for each in first[1:]], "the death of one ended others"
    assert told["after"] == told["others"], "workers outlive their server"
    assert all(told["sessions"])


def test_workers_start_as_ray_starts_them_when_the_server_is_dead(tmp_path: Path) -> None:
    told = driven(tmp_path, "without")
    assert len({each["random"][2] for each in told["first"]}) == len(told["first"])
    assert all(each["threads"] == [1, "1"] for each in told["first"])
    assert told["again"]["pid"] not in [each["pid"] for each in told["first"]]


DRAWS = """
import os, sys
{first}
import actors.preloaded
try:
    actors.preloaded.check_before_forking()
except ImportError as error:
    print("refused", error)
else:
    print("fine")
"""


@pytest.mark.parametrize(("first", "said"), [("", "fine"), ("import ray; ray.WorkerID.from_random()", "refused")])
def test_a_server_whose_forks_would_draw_the_same_ids_refuses_itself(first: str, said: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[4]), "VLLM_LOGGING_LEVEL": "ERROR"}
    command = [sys.executable, "-c", DRAWS.format(first=first)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip().splitlines()[-1].split()[0] == said, done.stderr[-2000:]
