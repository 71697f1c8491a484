"""The benchmarks' own code: what is measured is what the pages say is measured."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
