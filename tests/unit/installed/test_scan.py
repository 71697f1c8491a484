"""What is installed: the ledger and the dist-infos."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import canonicalize_name

from envsync.installed.ledger import Ledger, LedgerEntry, dump_ledger, load_ledger
from envsync.installed.plan import Installed, Origin
from envsync.installed.scan import normalized, scan
from envsync.launch import Environment
from envsync.launch.stamp import seal
from envsync.python.facts import Layout
from envsync.system import records
from tests.unit.dist_infos import SITE, add, make_environment

LAYOUT = Layout(SITE, SITE, "bin", "include/site/python3.11")
SPLIT = Layout(SITE, "lib64/python3.11/site-packages", "bin", "include/site/python3.11")
ORIGIN = Origin("a" * 64)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """An environment with an empty site-packages."""
    return make_environment(tmp_path / "env")


def entry_of(environment: Environment, directory: str, version: str = "1") -> LedgerEntry:
    """Return the ledger's entry for a dist-info as it is now."""
    status = os.stat(f"{environment.path}/{SITE}/{directory}/RECORD")
    return LedgerEntry(version, ORIGIN, status.st_size, status.st_mtime_ns, (f"{SITE}/a",), scripts=False)


class TestLayout:
    """Where files of a scheme are, and which of them can be shared."""

    def test_directory(self) -> None:
        """Each scheme has its directory, headers one for each distribution, and data is the environment itself."""
        directories = [SPLIT.directory(scheme, "x") for scheme in ("purelib", "platlib", "scripts", "headers", "data")]
        assert directories == [SITE, "lib64/python3.11/site-packages", "bin", "include/site/python3.11/x", ""]

    def test_sites(self) -> None:
        """A site-packages for both schemes is one."""
        assert LAYOUT.sites == (SITE,)
        assert SPLIT.sites == (SITE, "lib64/python3.11/site-packages")

    @pytest.mark.parametrize(
        ("path", "entry"),
        [
            (f"{SITE}/pkg/sub/mod.py", f"{SITE}/pkg"),
            (f"{SITE}/mod.py", f"{SITE}/mod.py"),
            ("lib64/python3.11/site-packages/pkg/x.so", "lib64/python3.11/site-packages/pkg"),
            ("bin/tool", "bin/tool"),
            ("include/site/python3.11/x/x.h", "include/site/python3.11/x"),
            ("share/man/man1/x.1", "share"),
            ("binary/x", "binary"),
            ("x", "x"),
        ],
    )
    def test_entry(self, path: str, entry: str) -> None:
        """The top-level entry of a path is what is directly below the directory of its scheme."""
        assert SPLIT.entry(path) == entry


TEXTS = st.text().map(lambda text: text.replace("\0", ""))
"""As names and paths can be: what has a NUL is read as absent."""
ENTRIES = st.builds(
    LedgerEntry,
    TEXTS,
    st.builds(Origin, TEXTS, st.none() | TEXTS),
    st.integers(),
    st.integers(),
    st.lists(TEXTS).map(tuple),
    st.booleans(),
    TEXTS,
    st.booleans(),
)


class TestLedger:
    """`installed.json`."""

    @given(st.builds(Ledger, TEXTS, TEXTS, st.dictionaries(TEXTS, ENTRIES)))
    def test_what_is_written_is_read(self, ledger: Ledger) -> None:
        """Every ledger is read as it was written."""
        assert self.read(dump_ledger(ledger)) == ledger

    def read(self, data: bytes) -> Ledger:
        import tempfile

        with tempfile.TemporaryDirectory() as directory:
            os.mkdir(f"{directory}/.envsync")
            Path(directory, ".envsync", "installed.json").write_bytes(data)
            return load_ledger(Environment(directory))

    def test_a_path_that_is_not_unicode(self) -> None:
        """An environment whose path is not valid UTF-8 is like any other."""
        ledger = Ledger(os.fsdecode(b"/a\xff"), "x86_64 glibc", {})
        assert self.read(dump_ledger(ledger)) == ledger

    def test_a_missing_one_is_empty(self, environment: Environment) -> None:
        """Where there is none, nothing is known."""
        assert load_ledger(environment) == Ledger("", "", {})

    @pytest.mark.parametrize("value", [[], 1, {}, {"format": 1}, {"format": 2}, {"format": 2, "distributions": []}])
    def test_another_value_is_empty(self, value: object) -> None:
        """What is no ledger says nothing: everything is then reinstalled."""
        assert self.read(seal(json.dumps(value).encode())) == Ledger("", "", {})

    def test_a_torn_one_is_empty(self) -> None:
        """A ledger that was cut off anywhere says nothing."""
        data = dump_ledger(Ledger("/e", "h", {"a": LedgerEntry("1", ORIGIN, 1, 2, ("x",), True)}))
        for length in range(len(data)):
            assert self.read(data[:length]) == Ledger("", "", {})

    @pytest.mark.parametrize("field", ["version", "sha256", "direct_url", "record", "entries", "scripts"])
    def test_a_damaged_entry_makes_it_empty(self, field: str) -> None:
        """An entry without one of its fields is damage, not an error."""
        value = records.parse(dump_ledger(Ledger("/e", "h", {"a": LedgerEntry("1", ORIGIN, 1, 2, ("x",), True)})))
        del value["distributions"]["a"][field]
        assert self.read(records.dump(value)) == Ledger("", "", {})


class TestScan:
    """The distributions that are there."""

    def test_what_we_installed(self, environment: Environment) -> None:
        """A distribution whose RECORD is the one that we wrote has the origin that the ledger says."""
        add(environment, "demo-1.dist-info")
        ledger = Ledger("", "", {"demo": entry_of(environment, "demo-1.dist-info")})
        assert scan(environment, LAYOUT, ledger) == [Installed("demo", "1", f"{SITE}/demo-1.dist-info", ORIGIN)]

    def test_names_are_normalized_and_sorted(self, environment: Environment) -> None:
        """Names are compared as PEP 503 says, however the directories spell them."""
        for directory in ("Zope.Interface-5.dist-info", "a_b-1.dist-info", "A.dist-info", "notes.txt"):
            add(environment, directory)
        found = scan(environment, LAYOUT, Ledger("", "", {}))
        assert [(item.name, item.version) for item in found] == [("a", ""), ("a-b", "1"), ("zope-interface", "5")]

    @pytest.mark.parametrize("change", ["size", "mtime", "version", "gone"])
    def test_whoever_reinstalls_is_noticed(self, environment: Environment, change: str) -> None:
        """A RECORD of another size or time, another version or no RECORD at all: nobody knows where it is from."""
        add(environment, "demo-1.dist-info")
        entry = entry_of(environment, "demo-1.dist-info", version="2" if change == "version" else "1")
        record = Path(environment.path, SITE, "demo-1.dist-info", "RECORD")
        if change == "size":
            record.write_text("x")
            os.utime(record, ns=(entry.record_mtime_ns, entry.record_mtime_ns))
        elif change == "mtime":
            os.utime(record, ns=(1, 1))
        elif change == "gone":
            record.unlink()
        (found,) = scan(environment, LAYOUT, Ledger("", "", {"demo": entry}))
        assert found.origin is None

    def test_both_site_packages(self, environment: Environment) -> None:
        """Where pure and platform libraries are apart, both are looked at; one that is missing is empty."""
        add(environment, "demo-1.dist-info")
        assert len(scan(environment, SPLIT, Ledger("", "", {}))) == 1
        Path(environment.path, SPLIT.platlib, "fast-1.dist-info").mkdir(parents=True)
        assert [item.name for item in scan(environment, SPLIT, Ledger("", "", {}))] == ["demo", "fast"]


@given(st.text(st.sampled_from("aB3-_.É"), max_size=8))
def test_names_are_normalized_as_packaging_does(name: str) -> None:
    """Without importing it for most (PEP 503)."""
    assert normalized(name) == canonicalize_name(name)
