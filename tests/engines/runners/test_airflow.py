"""Airflow, which has a Python of its own: it wants other libraries than envsync."""

from __future__ import annotations

import os

import pytest

from tests.engines.runners.scene import WRONG, Scene, program

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]
GREET = "greet-2.0-py3-none-any.whl"
DAG = """\
import sys
from airflow.sdk import DAG
from airflow.providers.standard.operators.python import ExternalPythonOperator

def look(witness):
    import json, sys
    import almanac.days, greet
    told = {"prefix": sys.prefix, "greet": greet.__version__, "files": [greet.__file__, almanac.days.__file__]}
    with open(witness, "a") as file:
        file.write(json.dumps(told) + "\\n")

with DAG("job", schedule=None):
    for number in range(3):
        ExternalPythonOperator(
            task_id=f"look{number}",
            python=PYTHON,
            python_callable=look,
            op_args=[WITNESS],
            expect_airflow=False,
            expect_pendulum=False,
        )
"""


def test_external_python(scene: Scene) -> None:
    """Each task runs the file that is a Python; a wrong hash is in the log of the task."""
    airflow = program("airflow")
    scene.variables.update(
        AIRFLOW_HOME=str(scene.directory / "airflow"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__DAGS_FOLDER=str(scene.directory / "dags"),
    )
    python = str(scene.directory / "job-python")
    scene.run(["sh", "-c", f"envsync shim {python} --lock {scene.lock} --env {scene.env}"])
    names = f"PYTHON, WITNESS = {python!r}, {os.path.join(scene.directory, 'witness.jsonl')!r}\n"
    scene.write("dags/job.py", names + DAG)
    for words in (["db", "migrate"], ["dags", "reserialize"], ["dags", "test", "job"]):
        scene.run([airflow, *words], seconds=300)
    scene.check_jobs(3)
    scene.write_lock(wrong=True)
    said = scene.run([airflow, "dags", "test", "job"], status=None, seconds=300)
    assert GREET in said
    assert WRONG[:8] in said
