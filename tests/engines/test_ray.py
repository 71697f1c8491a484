"""envsync.integrations.ray in Ray: a cluster of two nodes on this machine, and jobs that come and go."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.engines.conftest import SECONDS, Bench, version
from tests.engines.standing import standing

pytestmark = [pytest.mark.engines, pytest.mark.timeout(900)]

CLUSTER = """
    import contextlib, ray
    from ray.cluster_utils import Cluster
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    SMALL = {"num_cpus": 1, "object_store_memory": 80 * 1024 * 1024, "include_dashboard": False}

    @contextlib.contextmanager
    def cluster(nodes=1):
        started = Cluster(initialize_head=True, head_node_args=SMALL)
        try:
            for _ in range(nodes - 1):
                started.add_node(**{name: SMALL[name] for name in ("num_cpus", "object_store_memory")})
            started.wait_for_nodes()
            yield started
        finally:
            ray.shutdown()
            started.shutdown()

    @contextlib.contextmanager
    def job(started, env=ENV, lock=LOCK, **more):
        runtime_env = {"envsync": {"lock": lock, "env": env}, **more}
        ray.init(address=started.address, runtime_env=runtime_env, log_to_driver=False, logging_level="ERROR")
        try:
            yield
        finally:
            ray.shutdown()
"""


@pytest.fixture(autouse=True)
def ray(bench: Bench) -> None:
    """Skip without Ray; have its nodes load the plug-in."""
    version("ray")
    bench.variables["RAY_RUNTIME_ENV_PLUGINS"] = '[{"class": "envsync.integrations.ray.Plugin"}]'
    bench.variables["RAY_USAGE_STATS_ENABLED"] = "0"
    bench.variables["RAY_TMPDIR"] = "/tmp"  # sockets have short names
    bench.variables["RAY_raylet_start_wait_time_s"] = "120"  # a machine may be busy


def test_two_nodes(bench: Bench) -> None:
    """Tasks and actors on two nodes: one sync of what they share, and the environment's modules; the program's own."""
    bench.write_lock("ray")
    code = f"""{CLUSTER}
    with cluster(2) as two, job(two):
        nodes = [each["NodeID"] for each in ray.nodes()]
        task = ray.remote(probe)

        class Actor:
            probe = probe

        seen = []
        for node in nodes:
            there = {{"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}}
            seen += ray.get([task.options(**there).remote() for _ in range(3)])
            actor = ray.remote(Actor).options(num_cpus=0, **there).remote()
            seen.append(ray.get(actor.probe.remote()))
    import greet
    print(json.dumps([greet.__version__, len(nodes), seen]))
    """
    ours, nodes, seen = bench.answer(code)
    assert (ours, nodes, len(seen)) == ("1.0", 2, 8)
    assert [each for each in seen if not bench.is_of_environment(each)] == []
    assert len(bench.events("synced")) == 1


def test_a_wrong_hash(bench: Bench) -> None:
    """`ray.get` raises RuntimeEnvSetupError with the reason and what to do, which was tried once, not three times."""
    bench.write_lock("ray", wrong=True)
    code = f"""{CLUSTER}
    with cluster() as one, job(one):
        try:
            ray.get(ray.remote(probe).remote(), timeout=120)
        except ray.exceptions.RuntimeEnvSetupError as error:
            print(json.dumps(str(error)))
    """
    said = bench.answer(code).strip().splitlines()
    assert said[-2].startswith("envsync.errors.HashMismatchError: refusing wheel `greet-2.0-py3-none-any.whl`: ")
    assert said[-1].startswith("hint: ")
    assert len(bench.events("failed")) == 1
    assert not bench.events("launched")


@pytest.mark.parametrize(
    ("engine", "field", "says"),
    [
        ("", {"lock": "LOCK", "env": "ENV"}, "has no `ray`, which its workers need\nhint: lock it with the rest"),
        ("", {"env": "ENV"}, 'runtime_env["envsync"]: it has to name a lock file; hint: '),
        ("", {"lock": "pylock.toml"}, "`pylock.toml` is relative, and a node knows no directory"),
        ("", {"lock": "LOCK", "environment": "ENV"}, "unexpected option: environment"),
    ],
    ids=["no ray", "no lock file", "relative", "unknown option"],
)
def test_what_makes_no_sense(bench: Bench, engine: str, field: dict[str, str], says: str) -> None:
    """An environment without Ray, and a field that makes no sense: `ray.get` raises a sentence, and none hangs."""
    bench.write_lock(engine)
    places = {"LOCK": str(bench.lock), "ENV": str(bench.env)}
    asked = {name: places.get(value, value) for name, value in field.items()}
    code = f"""{CLUSTER}
    with cluster() as one:
        ray.init(address=one.address, log_to_driver=False, logging_level="ERROR")
        task = ray.remote(probe).options(runtime_env={{"envsync": {asked!r}}})
        try:
            ray.get(task.remote(), timeout=120)
        except ray.exceptions.RuntimeEnvSetupError as error:
            print(json.dumps(str(error)))
    """
    assert says in bench.answer(code)


def test_a_lock_file_that_changes(bench: Bench) -> None:
    """The next job of the same cluster has the modules of now, and Ray removes the environments of both."""
    bench.write_lock("ray", wheels="greet-1.0 shout-1.0 almanac_words-1.0 almanac_days-1.0")
    first = bench.lock.read_text()
    bench.write_lock("ray")
    second = bench.lock.read_text()
    code = f"""{CLUSTER}
    import time
    seen = []
    envs = HERE + "/envs"
    with cluster() as one:
        for text in ({first!r}, {second!r}):
            open(LOCK, "w").write(text)
            with job(one, env=envs + "/{{digest}}"):
                seen.append(ray.get(ray.remote(probe).remote(), timeout=120))
        while [name for name in os.listdir(envs) if not name.startswith(".")]:
            time.sleep(0.2)
    print(json.dumps(seen))
    """
    one, two = bench.answer(code, RAY_RUNTIME_ENV_ENVSYNC_CACHE_SIZE_GB="0")
    assert (one["greet"], two["greet"]) == ("1.0", "2.0")
    assert one["prefix"] != two["prefix"]
    assert bench.is_of_environment(two, Path(two["prefix"]))
    assert len(bench.events("synced")) == 2


def test_what_somebody_runs_in_stays(bench: Bench) -> None:
    """Ray gives a URI up, and the environment stays while a command runs in it, as does one that has no `{digest}`."""
    bench.write_lock("ray")
    code = f"""{CLUSTER}
    import subprocess, time
    import envsync

    def told(what):
        log = one.head_node.get_logs_dir_path() + "/runtime_env_agent.log"
        while what not in open(log).read():
            time.sleep(0.2)

    envs = HERE + "/envs/{{digest}}"
    with cluster() as one:
        with job(one, env=envs):
            ray.get(ray.remote(probe).remote(), timeout=120)
            words = envsync.command(LOCK, env=envs)
            inside = subprocess.Popen([*words, "sleep", "600"])
            while not json.loads(subprocess.check_output(
                [sys.executable, "-m", "envsync", "env", "list", envs, "--json", "--no-size"])
            )["environments"][0]["commands"]:
                time.sleep(0.1)
        told("Unused uris")
        with job(one):
            ray.get(ray.remote(probe).remote(), timeout=120)
        with job(one, env=HERE + "/others/{{digest}}"):
            ray.get(ray.remote(probe).remote(), timeout=120)
        while [name for name in os.listdir(HERE + "/others") if not name.startswith(".")]:
            time.sleep(0.2)  # its turn comes after that of the first
        kept = os.listdir(HERE + "/envs")
        inside.kill()
    print(json.dumps([name for name in kept if not name.startswith(".")]))
    """
    [kept] = bench.answer(code, RAY_RUNTIME_ENV_ENVSYNC_CACHE_SIZE_GB="0")
    assert (bench.directory / "envs" / kept / "pyvenv.cfg").exists()
    assert (bench.env / "pyvenv.cfg").exists()


def test_a_removal_that_takes_long(bench: Bench) -> None:
    """Ray's agent does not wait for it: other jobs want environments meanwhile."""
    code = """
    import logging
    from envsync.integrations import ray as ours
    os.mkfifo(HERE + "/fifo")
    ours._ENVSYNC = ("sh", "-c", 'cat "$0"', HERE + "/fifo")
    plugin = ours.Plugin()
    plugin._made["uri"] = ours._Made([], ENV, 7)
    print(json.dumps(plugin.delete_uri("uri", logging.getLogger())))
    open(HERE + "/fifo", "w").close()  # it goes on
    """
    assert bench.answer(code) == 7


def test_a_working_directory(bench: Bench) -> None:
    """A lock file that comes with the code: paths are relative to Ray's copy of the `working_dir`."""
    bench.write_lock("ray")
    (bench.directory / "upload").mkdir()
    bench.lock.rename(bench.directory / "upload/pylock.toml")
    (bench.directory / "wheels").rename(bench.directory / "upload/wheels")
    code = f"""{CLUSTER}
    with cluster() as one, job(one, lock="pylock.toml", env=".venv", working_dir=HERE + "/upload"):
        print(json.dumps(ray.get(ray.remote(probe).remote(), timeout=120)))
    """
    seen = bench.answer(code)
    assert bench.is_of_environment(seen, Path(seen["prefix"]))
    assert "working_dir_files" in seen["prefix"]


def test_another_process_killed_in_mid_sync(bench: Bench) -> None:
    """The node waits for somebody else's sync, and goes on with it when they are killed."""
    bench.write_lock("ray")
    code = f"""{CLUSTER}
    with cluster() as one, job(one):
        print(json.dumps(ray.get(ray.remote(probe).remote(), timeout=120)))
    """
    assert bench.is_of_environment(bench.answer_past_a_killed_leader(code))
    assert len(bench.events("synced")) == 1


def test_an_agent_killed_in_mid_sync(bench: Bench) -> None:
    """Ray gives its node up, and has the task run on another one, which takes the sync over."""
    bench.write_lock("ray")
    code = f"""{CLUSTER}
    with cluster(2) as two:
        ray.init(address=two.address, log_to_driver=False, logging_level="ERROR")
        [other] = [each["NodeID"] for each in ray.nodes() if each["NodeID"] != ray.get_runtime_context().get_node_id()]
        task = ray.remote(probe).options(
            runtime_env={{"envsync": {{"lock": LOCK, "env": ENV}}}},
            scheduling_strategy=NodeAffinitySchedulingStrategy(other, soft=True),
        )
        print(json.dumps(ray.get(task.remote(), timeout=200)))
    """
    with standing(bench.lock, bench.env) as sync, bench.start(code) as program:
        killed = sync.kill(program)
        out, err = program.communicate(timeout=SECONDS)
    assert program.returncode == 0, err
    assert bench.is_of_environment(json.loads(out.splitlines()[-1]))
    assert [each["from_pid"] for each in bench.events("took_over")] == [killed]
    assert len(bench.events("synced")) == 1


def test_workers_that_are_killed(bench: Bench) -> None:
    """Ray starts another one, which enters the environment without a sync: twenty times, without a hang.

    Each is killed while it runs a task. An idle one may take its CPU with it, which is Ray's own (docs/runners.md).
    """
    bench.write_lock("ray")
    code = f"""{CLUSTER}
    import signal

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    with cluster() as one, job(one):
        pids = set()
        for _ in range(20):
            seen = ray.get(ray.remote(probe).remote(), timeout=120)
            pids.add(seen["pid"])
            try:
                ray.get(ray.remote(die).options(max_retries=0).remote(), timeout=120)
            except ray.exceptions.WorkerCrashedError:
                pass
    print(json.dumps([len(pids), seen]))
    """
    count, seen = bench.answer(code)
    assert count == 20
    assert bench.is_of_environment(seen)
    assert len(bench.events("synced")) == 1


def test_twenty_jobs(bench: Bench) -> None:
    """Jobs that come and go, each with an actor, without a hang; one sync for all."""
    bench.write_lock("ray")
    code = f"""{CLUSTER}
    with cluster() as one:
        for _ in range(20):
            with job(one):
                seen = ray.get(ray.remote(probe).remote(), timeout=120)
    print(json.dumps(seen))
    """
    assert bench.is_of_environment(bench.answer(code))
    assert len(bench.events("synced")) == 1
    assert os.path.exists(bench.env)
