"""Each runner of the table: its jobs, a wrong hash, a process that is killed while it syncs, and twenty rounds."""

from __future__ import annotations

import signal

import pytest

from tests.engines.runners.scene import WRONG, Scene
from tests.engines.runners.table import RUNNERS, Runner
from tests.engines.standing import standing

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]
GREET = "greet-2.0-py3-none-any.whl"
ROUNDS = 20
SECONDS = 300

each = pytest.mark.parametrize("runner", RUNNERS.values(), ids=RUNNERS)


@each
def test_jobs(scene: Scene, runner: Runner) -> None:
    """All have the modules of the lock file, and one of them has synced."""
    scene.run(runner.prepare(scene), seconds=SECONDS)
    scene.check_jobs(runner.jobs)


@each
def test_a_wrong_hash(scene: Scene, runner: Runner) -> None:
    """The runner fails, and in what it shows stands which wheel it is, and what to do."""
    words = runner.prepare(scene)
    scene.write_lock(wrong=True)
    said = scene.run(words, status=runner.status, seconds=SECONDS)
    assert GREET in said
    assert WRONG[:8] in said
    assert "hint: " in said
    assert runner.traceback or "Traceback" not in said
    assert scene.count("synced") == 0


@each
def test_who_syncs_is_killed_in_the_middle(scene: Scene, runner: Runner) -> None:
    """Another one takes over. What is lost is what was killed, and only that has to be run again."""
    words = runner.prepare(scene)
    with standing(scene.lock, scene.env) as sync:
        started = [scene.start(words) for _ in range(runner.at_once)]
        killed = sync.kill(*started)
        said = [one.communicate(timeout=SECONDS)[0] for one in started]
    statuses = [one.returncode for one in started]
    shown = "\n".join(said)
    assert statuses.count(0) == runner.at_once - bool(runner.lost), shown
    assert (-signal.SIGKILL in statuses) == (killed in [one.pid for one in started])
    assert runner.shows in shown
    if runner.lost:
        scene.run(words, seconds=SECONDS)
    scene.check_jobs(runner.at_once * runner.jobs - runner.lost + runner.again)
    assert [event["from_pid"] for event in scene.events("took_over")] == [killed]


@pytest.mark.parametrize(
    "runner",
    [pytest.param(runner, id=name, marks=[pytest.mark.slow] * runner.slow) for name, runner in RUNNERS.items()],
)
@pytest.mark.timeout(3600)
def test_twenty_rounds(scene: Scene, runner: Runner) -> None:
    """None hangs, and there is one sync for all."""
    words = runner.prepare(scene)
    for _ in range(ROUNDS):
        scene.run(words, seconds=SECONDS)
        for made in scene.directory.glob("?.txt"):
            made.unlink()
    scene.check_jobs(ROUNDS * runner.jobs)
