"""envsync.integrations.dask in Dask, and `dask worker` by the words of `envsync.command`."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from envsync.system import processes
from tests.engines.conftest import SECONDS, Bench, until, version
from tests.engines.standing import standing

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

CLUSTER = """
    from distributed import Client, LocalCluster
    from envsync.integrations.dask import Nanny

    def cluster(n_workers=2, **envsync):
        return LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit="1GiB",
            worker_class=Nanny, envsync={"lock": LOCK, "env": ENV, **envsync},
        )
"""


@pytest.fixture(autouse=True)
def dask() -> None:
    """Skip without Dask."""
    version("distributed")


def test_two_nannies_and_scale(bench: Bench) -> None:
    """One sync for all; workers, added and restarted ones too, have the environment's modules, the program its own."""
    bench.write_lock("distributed")
    code = f"""{CLUSTER}
    with cluster() as two, Client(two) as client:
        seen = [*client.run(probe).values()]
        two.scale(3)
        client.wait_for_workers(3)
        seen += client.run(probe).values()
        client.restart()
        client.wait_for_workers(3)
        seen += client.run(probe).values()
        seen.append(client.submit(probe, 1).result())
    import greet
    print(json.dumps([greet.__version__, seen]))
    """
    ours, seen = bench.answer(code)
    assert ours == "1.0"
    assert len(seen) == 2 + 3 + 3 + 1
    assert [each for each in seen if not bench.is_of_environment(each)] == []
    assert len(bench.events("synced")) == 1


def test_twenty_restarts(bench: Bench) -> None:
    """`client.restart()` and `scale`, twenty rounds of them, without a hang.

    A restart waits for all workers that there are when it begins. Two things of Dask, with any nanny, take some of them
    away meanwhile. `scale` returns before they have gone, so the number is waited for. And a cluster closes a nanny
    whose worker was lost for 15 seconds, which it judges by one look at their end: that of an earlier restart may fall
    into a later one.
    """
    bench.write_lock("distributed")
    code = f"""{CLUSTER}
    import dask, time
    dask.config.set({{"distributed.deploy.lost-worker-timeout": "1h"}})
    with cluster() as two, Client(two) as client:
        for turn in range(20):
            client.restart(timeout="60s")
            two.scale(1 + turn % 3)
            while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.workers)) != 1 + turn % 3:
                time.sleep(0.05)
            assert client.submit(probe, turn, pure=False).result(timeout=60)["greet"] == "2.0"
    print(json.dumps(turn))
    """
    assert bench.answer(code) == 19
    assert len(bench.events("synced")) == 1


def test_workers_that_are_killed(bench: Bench) -> None:
    """Their nanny starts others, which have the environment's modules, without a launch and a sync."""
    bench.write_lock("distributed")
    code = f"""{CLUSTER}
    import signal
    with cluster(1) as one, Client(one) as client:
        pids = set()
        for turn in range(5):
            seen = client.submit(probe, turn, pure=False).result(timeout=60)
            pids.add(seen["pid"])
            os.kill(seen["pid"], signal.SIGKILL)
    print(json.dumps([len(pids), seen]))
    """
    count, seen = bench.answer(code)
    assert count == 5
    assert bench.is_of_environment(seen)
    assert (len(bench.events("synced")), len(bench.events("launched"))) == (1, 1)


def test_a_wrong_hash(bench: Bench) -> None:
    """`LocalCluster` raises the reason, with what to do; nothing is started."""
    bench.write_lock("distributed", wrong=True)
    done = bench.run(f"{CLUSTER}\n    cluster()")
    assert done.returncode == 1
    last = [line for line in done.stderr.splitlines() if line][-2:]
    assert "HashMismatchError: refusing wheel `greet-2.0-py3-none-any.whl`" in last[0]
    assert last[1].startswith("hint: ")
    assert len(bench.events("failed")) == 1
    assert not bench.events("launched")


def test_a_wrong_hash_for_a_worker_that_comes_later(bench: Bench) -> None:
    """`scale` goes on as ever; the reason is in Dask's log, the workers that there are stay, and `close` ends."""
    bench.write_lock("distributed")
    good = bench.lock.read_text()
    bench.write_lock("distributed", wrong=True)
    bad = bench.lock.read_text()
    bench.lock.write_text(good)
    code = f"""{CLUSTER}
    import time
    with cluster(1, env=HERE + "/envs/{{digest}}") as one, Client(one) as client:
        open(LOCK, "w").write({bad!r})
        one.scale(2)
        while "refusing wheel" not in open(HERE + "/said").read():
            time.sleep(0.1)
        print(json.dumps(len(client.run(probe))))
    """
    said = bench.directory / "said"
    with said.open("w") as log:
        done = subprocess.run(
            bench.script(code), env=bench.variables, stdout=subprocess.PIPE, stderr=log, timeout=240, check=False
        )
    text = said.read_text()
    assert done.returncode == 0, text
    assert json.loads(done.stdout.splitlines()[-1]) == 1
    assert "distributed.envsync - ERROR - worker 1 was not started: refusing wheel `greet-2.0" in text


def test_no_dask_in_the_environment(bench: Bench) -> None:
    """A lock file without Dask is refused, with the line that helps."""
    bench.write_lock("")
    done = bench.run(f"{CLUSTER}\n    cluster()")
    assert done.returncode == 1
    assert "EngineError: environment" in done.stderr
    assert (
        f"has no `distributed`, which its workers need\nhint: lock it with the rest, in the version that starts the "
        f"workers: `distributed=={version('distributed')}`" in done.stderr
    )
    assert not bench.events("launched")


def test_a_program_that_is_killed(bench: Bench) -> None:
    """Nannies and workers end with the program's scheduler, and the environment is free again."""
    bench.write_lock("distributed")
    code = f"""{CLUSTER}
    import time
    two = cluster()
    client = Client(two)
    print(json.dumps([*client.run(os.getppid).values(), *client.run(os.getpid).values()]), flush=True)
    time.sleep(600)
    """
    with bench.start(code, stderr=subprocess.DEVNULL) as program:
        assert program.stdout is not None
        pids = json.loads(program.stdout.readline())
        program.kill()
    assert len(set(pids)) == 4
    until(lambda: not any(processes.is_alive(pid) for pid in pids))
    assert processes.holders(str(bench.env / ".envsync/in-use")) == []


def test_a_leader_killed_in_mid_sync(bench: Bench) -> None:
    """Three `dask worker` by `envsync run`: one that syncs is killed, another goes on, and two workers come."""
    bench.write_lock("distributed")
    code = """
    import subprocess, time
    from distributed import Client, LocalCluster
    import envsync
    words = envsync.command(LOCK, env=ENV)
    with LocalCluster(n_workers=0, processes=True, dashboard_address=None) as none, Client(none) as client:
        worker = [*words, "dask", "worker", none.scheduler_address, "--nthreads", "1", "--no-dashboard"]
        three = [subprocess.Popen([*worker, "--death-timeout", "120"], stdin=subprocess.DEVNULL) for _ in range(3)]
        client.wait_for_workers(2, timeout=200)
        print(json.dumps([[each.pid for each in three], *client.run(probe).values()]), flush=True)
    print(json.dumps([each.wait() for each in three]))
    """
    with standing(bench.lock, bench.env) as sync, bench.start(code) as program:
        killed = sync.kill(program)
        out, err = program.communicate(timeout=SECONDS)
    assert program.returncode == 0, err
    (pids, *seen), statuses = map(json.loads, out.splitlines())
    assert statuses[pids.index(killed)] == -signal.SIGKILL
    assert len(seen) == 2
    assert [each for each in seen if not bench.is_of_environment(each)] == []
    assert [each["from_pid"] for each in bench.events("took_over")] == [killed]
    assert len(bench.events("synced")) == 1


def test_another_process_killed_in_mid_sync(bench: Bench) -> None:
    """`LocalCluster` waits for somebody else's sync, and goes on with it when they are killed."""
    bench.write_lock("distributed")
    code = f"""{CLUSTER}
    with cluster() as two, Client(two) as client:
        print(json.dumps([*client.run(probe).values()]))
    """
    seen = bench.answer_past_a_killed_leader(code)
    assert len(seen) == 2
    assert [each for each in seen if not bench.is_of_environment(each)] == []
    assert len(bench.events("synced")) == 1
