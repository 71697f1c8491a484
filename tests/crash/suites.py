"""What else damages an environment or is hostile to it, and is tried by pytest: counted by the names of the tests."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).parent.parent.parent
SUITES = {
    "hostile wheel": "tests/hostile/test_hostile.py",
    "damage": "tests/model/test_damage.py",
    "power cut": "tests/power",
    "from outside": "tests/crash/test_from_outside.py",
}
POINTS = re.compile(r"(\d+) (?:power cuts|strikes), (\d+) wrong")
"""What a test prints that tries many points by itself."""


class Result(NamedTuple):
    """What came of one test function with all its parameters.

    :ivar cases: how many ran; of a test that says so, how many points it tried
    :ivar skipped: how many could not run here
    """

    suite: str
    test: str
    cases: int
    skipped: int
    wrong: int


def run(record: Path | None) -> list[Result]:
    """Run all suites that the record has not, slow tests included."""
    results = load(record)
    for suite, path in SUITES.items():
        if any(result.suite == suite for result in results):
            continue
        print(f"running {path}", file=sys.stderr, flush=True)
        for result in _run(suite, path):
            results.append(result)
            keep(record, json.dumps({"result": result}))
    return results


def load(record: Path | None) -> list[Result]:
    """Read what was run already."""
    lines = record.read_text().splitlines() if record is not None and record.exists() else []
    return [Result(*value["result"]) for value in map(json.loads, lines) if "result" in value]


def keep(record: Path | None, line: str) -> None:
    """Append a line to a record."""
    if record is not None:
        with record.open("a") as file:
            file.write(f"{line}\n")


def _run(suite: str, path: str) -> Iterator[Result]:
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        options = ["-q", "-m", "slow or not slow", "-o", "junit_logging=system-out", "--junitxml", report.name]
        subprocess.run([sys.executable, "-m", "pytest", *options, path], cwd=ROOT, check=False, stdout=sys.stderr)
        tests: dict[str, list[ElementTree.Element]] = {}
        for case in ElementTree.parse(report.name).iter("testcase"):
            tests.setdefault(case.get("name", "").partition("[")[0], []).append(case)
    for test, cases in tests.items():
        yield _count(suite, test, cases)


def _count(suite: str, test: str, cases: Iterable[ElementTree.Element]) -> Result:
    tried = skipped = wrong = 0
    for case in cases:
        if case.find("skipped") is not None:
            skipped += 1
            continue
        said = POINTS.search(case.findtext("system-out") or "")
        failed = case.find("failure") is not None or case.find("error") is not None
        tried += int(said[1]) if said else 1
        wrong += max(failed, int(said[2]) if said else 0)
    return Result(suite, test, tried, skipped, wrong)


def markdown(results: Iterable[Result]) -> str:
    """Return a table."""
    lines = ["| what | cases | not run here | wrong |", "|---|" + "---:|" * 3]
    for result in results:
        words = result.test.removeprefix("test_").replace("_", " ")
        lines.append(f"| {result.suite}: {words} | {result.cases} | {result.skipped} | {result.wrong} |")
    return "\n".join(lines)
