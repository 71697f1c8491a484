"""The benchmarks' own code: what is measured is what the pages say is measured."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs

ROOT = Path(__file__).parents[2]
COMPARE = ROOT / "benchmarks" / "compare.py"
WHEELS = ROOT / "fixtures" / "wheels"
PINS = ("almanac-days==1.0", "almanac-words==1.0", "greet==1.0", "shout==1.0", "tally==1.0")
RANGES = """
import sys, ssl, urllib.request, urllib.error
sys.path.insert(0, sys.argv[1])
from index_server import index_server
from workplace import read_set, workplace

def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), context=trust) as answer:
        return answer.status, answer.headers["Content-Range"], answer.read()

wheels = read_set(sys.argv[2], sys.argv[3]).wheels
with workplace(sys.argv[4]) as place, index_server(place, wheels) as server:
    trust = ssl.create_default_context(cafile=server.certificates)
    url = server.url.replace("/simple/", "/files/") + "greet-1.0-py3-none-any.whl"
    whole = next(open(wheel.path, "rb").read() for wheel in wheels if "greet" in wheel.path)
    assert get(url) == (200, None, whole)
    assert get(url, Range="bytes=10-") == (206, f"bytes 10-{len(whole) - 1}/{len(whole)}", whole[10:])
    assert get(url, Range="bytes=10-19") == (206, f"bytes 10-19/{len(whole)}", whole[10:20])
    try:
        get(url + "x")
    except urllib.error.HTTPError as error:
        assert error.code == 404
        error.close()
    else:
        raise AssertionError("it has what it has not")
    served = server.served
    assert (served.requests, served.bytes) == (3, 2 * len(whole))
    assert served.cpu > 0
"""

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks measure on Linux")


@pytest.fixture
def a_set(tmp_path: Path) -> Path:
    """A set as compare.py wants it: the wheels of the fixtures, pinned."""
    directory = tmp_path / "set"
    directory.mkdir()
    shutil.copy(ROOT / "fixtures" / "pylock.toml", directory)
    (directory / "pins.txt").write_text("\n".join(PINS))
    return directory


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the benchmarks' modules be imported as they import one another."""
    monkeypatch.syspath_prepend(str(COMPARE.parent))


@needs_linux
@needs_openssl
def test_server_has_the_wheels_whole_and_in_parts_and_counts_what_it_sent(a_set: Path, tmp_path: Path) -> None:
    """Whoever trusts the certificate gets the bytes; 404 for anything else; and each answer is counted."""
    words = (sys.executable, "-c", RANGES, COMPARE.parent, a_set, WHEELS, tmp_path / "work")
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@needs_linux
@needs_openssl
@pytest.mark.oracle
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("uv") is None, reason="there is no uv")
def test_both_fetch_every_wheel_once_from_the_server(a_set: Path, tmp_path: Path) -> None:
    """`compare.py network` measures two syncs that ask the server for the same: all wheels, nothing twice."""
    envsync = shutil.which("envsync", path=str(Path(sys.executable).parent))
    if envsync is None:
        pytest.skip("envsync's launcher is not beside this Python")
    words = (sys.executable, COMPARE, "network", "--json", "--rounds", "1", "--envsync", envsync)
    places = ("--set", a_set, "--wheelhouse", WHEELS, "--workdir", tmp_path / "work")
    done = subprocess.run((*words, *places), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row["medians"] for row in json.loads(done.stdout)["rows"]}
    size = sum(next(WHEELS.glob(f"{pin.replace('-', '_').replace('==', '-')}-*.whl")).stat().st_size for pin in PINS)
    assert rows["network: requests"] == {"envsync": len(PINS), "uv": len(PINS)}
    assert rows["network: bytes"] == pytest.approx({"envsync": size / 1e6, "uv": size / 1e6})
    assert set(rows["network: wall"]) == {"envsync", "uv"}


@needs.PROC
@pytest.mark.usefixtures("imported")
@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
def test_calls_are_counted_that_name_a_directory_or_an_open_file_of_it(tmp_path: Path) -> None:
    """Of all system calls, those for one directory: by path and by descriptor, and none of its neighbour."""
    from measure import Command
    from operations import count_all, count_operations

    for name in ("place", "place-beside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("something")
    place, beside, cat = str(tmp_path / "place"), str(tmp_path / "place-beside"), shutil.which("cat") or ""
    trace = str(tmp_path / "trace")
    one = count_all(Command((cat, f"{place}/file"), "/", {}), place, trace, 60)
    both = count_all(Command((cat, f"{place}/file", f"{beside}/file"), "/", {}), place, trace, 60)
    none = count_all(Command((cat, f"{beside}/file"), "/", {}), place, trace, 60)
    assert one[1] == both[1] >= 3  # opened, read, closed
    assert none[1] == 0
    assert one[0] < both[0]
    counted = count_operations(Command((cat, f"{place}/file"), "/", {}), (place,), trace, 60)
    assert counted.inside == 1
    assert counted.names["openat"] >= 1


# The page


@needs_linux
@pytest.mark.usefixtures("imported")
def test_page_has_a_place_for_every_benchmark_and_only_for_them() -> None:
    """What is measured is shown; each once."""
    import compare
    import page

    names = [mark["name"] for mark in page.MARKED.finditer(Path(page.PAGE).read_text())]
    assert sorted(names) == sorted((*compare.BENCHMARKS, page.SUMMARY, page.MACHINE))
    assert {benchmark for benchmark, *_ in page.GOALS} <= set(compare.BENCHMARKS)


@pytest.mark.usefixtures("imported")
def test_tables_of_the_page_are_what_the_stored_results_say() -> None:
    """Nobody edits a figure: `python benchmarks/page.py` changes nothing."""
    import page

    text = Path(page.PAGE).read_text()
    assert page.with_tables(text, page.read()) == text


@pytest.mark.usefixtures("imported")
def test_plots_of_the_page_are_of_the_stored_results() -> None:
    """Each plot has the numbers of its rows, and there is none of anything else."""
    import page
    import table

    results = {name: page.rows_of(result) for name, result in page.read().items()}
    plots = {path.stem: html.unescape(path.read_text()) for path in Path(page.PLOTS).glob("*.svg")}
    assert set(plots) == {name for name, rows in results.items() if rows}
    for name, plot in plots.items():
        for row in table.compared(results[name]):
            assert f">{row.name}<" in plot
            assert [who for who in row.values if f">{table.cell_of(row, who)}<" not in plot] == []


@pytest.mark.usefixtures("imported")
def test_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    """Drawn twice, the plots are equal: no date, no chance, no order of a set."""
    pytest.importorskip("matplotlib")
    import plots
    from measure import Row

    rows = [
        Row("a launch: wall", "ms", {"envsync": [9.0, 8.5, 9.5], "uv": [18.0, 17.0, 30.0], "limit": [0.7, 0.7]}),
        Row("calls & locks, $ and _", "n", {"envsync": [0], "uv": [2]}),
        Row("nothing happened", "n", {"envsync": [0.0], "uv": [0.0]}),
    ]
    for number in "12":
        plots.draw({"launch": rows, "not measured": []}, str(tmp_path / number))
    first, second = (list((tmp_path / number).iterdir()) for number in "12")
    assert [path.name for path in first] == [path.name for path in second] == ["launch.svg"]
    assert first[0].read_bytes() == second[0].read_bytes()
    drawn = html.unescape(first[0].read_text())
    assert ">9.0 ms (8.5-9.5)<" in drawn
    assert ">calls & locks, $ and _<" in drawn
    assert "nothing happened" not in drawn


@pytest.mark.usefixtures("imported")
def test_results_of_one_benchmark_leave_the_others() -> None:
    """What is measured anew takes the place of its older figures, and the page tells them apart by load and machine."""
    import page
    from measure import Row

    warm, cold = Row("warm: wall", "s", {"envsync": [1.0], "uv": [2.0]}), Row("cold: wall", "s", {"uv": [1 / 3]})
    old = page.merged({}, {"CPUs": "1", "load": "0.1"}, {"warm": [warm], "cold": [cold]})
    anew = page.merged(old, {"CPUs": "2", "load": "0.2"}, {"warm": [warm]})
    assert json.loads(page.as_text(anew)) == anew
    assert page.section("machine", anew) == "- warm: CPUs: 2\n- cold: CPUs: 1\n"
    assert "| warm: wall | 0.50 | 1.000 s | 2.000 s |" in page.section("warm", anew)
    assert "Rounds: 1. Load of the machine: 0.1." in page.section("cold", anew)
    assert "| 0.75 | yes |" in page.section("summary", page.merged(old, {}, {"warm": [warm]}))
