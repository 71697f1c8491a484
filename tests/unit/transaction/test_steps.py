"""The steps of a commit: for any tree, applying them to a model of it yields what was asked for and nothing else."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsync.staging.tree import tree
from envsync.transaction.steps import Decision, Folding, decide, find_twins
from envsync.wheel.archive import fold

PROTECTED = ("", "lib", "lib/site", "bin")


class Tree:
    """A model of an environment: the contents of its files by path, and its directories."""

    def __init__(self, files: Mapping[str, str], directories: Iterable[str] = ()) -> None:
        self.files = dict(files)
        self.directories = {"", *PROTECTED}
        for path in directories:
            self.directories |= {path, *ancestors(path)}
        for path in files:
            self.directories |= ancestors(path)

    def listing(self, path: str) -> Mapping[str, bool] | None:
        if path not in self.directories:
            return None
        prefix = f"{path}/" if path else ""
        found = {}
        for is_directory, paths in ((True, self.directories), (False, self.files)):
            for each in paths:
                if each and each.startswith(prefix) and "/" not in each[len(prefix) :]:
                    found[each[len(prefix) :]] = is_directory
        return found

    def exists(self, path: str) -> bool:
        return path in self.files or path in self.directories

    def take(self, path: str) -> None:
        """Rename an entry away, with all that is in it."""
        assert self.exists(path), f"{path} is not there"
        self.files = {each: content for each, content in self.files.items() if not within(each, path)}
        self.directories = {each for each in self.directories if not within(each, path)}

    def put(self, path: str, stage: Tree) -> None:
        """Rename an entry of a stage into place, where nothing is."""
        assert not self.exists(path), f"{path} is in the way"
        assert os.path.dirname(path) in self.directories, f"{path} has no directory"
        moved = {each: content for each, content in stage.files.items() if within(each, path)}
        assert moved, f"{path} is not staged"
        stage.files = {each: content for each, content in stage.files.items() if each not in moved}
        self.files.update(moved)
        for each in moved:
            self.directories |= ancestors(each)


class FoldingTree(Tree):
    """The same on a filesystem that does not tell case apart: a name is shown as it was made."""

    def __init__(self, files: Mapping[str, str], directories: Iterable[str] = ()) -> None:
        super().__init__({fold(path): content for path, content in files.items()}, map(fold, directories))
        self.shown: dict[str, str] = {}
        self.show(files)

    def show(self, paths: Iterable[str]) -> None:
        for path in paths:
            for each in (path, *ancestors(path)):
                self.shown.setdefault(fold(each), os.path.basename(each))

    def listing(self, path: str) -> Mapping[str, bool] | None:
        found = super().listing(fold(path))
        begin = f"{fold(path)}/" if path else ""
        return found and {self.shown.get(begin + name, name): is_directory for name, is_directory in found.items()}

    def exists(self, path: str) -> bool:
        return super().exists(fold(path))

    def take(self, path: str) -> None:
        super().take(fold(path))
        self.shown = {each: name for each, name in self.shown.items() if not within(each, fold(path))}

    def put(self, path: str, stage: Tree) -> None:
        self.show([path])
        super().put(fold(path), stage)


def ancestors(path: str) -> set[str]:
    parts = path.split("/")[:-1]
    return {"/".join(parts[:end]) for end in range(len(parts) + 1)}


def within(path: str, top: str) -> bool:
    return path == top or path.startswith(top + "/")


def bytecode_of(sources: Collection[str], files: Iterable[str]) -> set[str]:
    """Return the files that are compiled from the sources."""
    found = set()
    for path in files:
        directory, _, name = path.rpartition("/")
        parent, _, cache = directory.rpartition("/")
        stem = name.partition(".")[0]
        source = f"{parent}/{stem}.py" if parent else f"{stem}.py"
        if cache == "__pycache__" and name.endswith(".pyc") and source in sources:
            found.add(path)
    return found


def settled(files: Iterable[str]) -> list[str]:
    """Drop every path that another one needs as a directory."""
    files = set(files)
    needed = set().union(*(ancestors(path) for path in files)) if files else set()
    return sorted(files - needed)


def apply(decision: Decision, present: Tree, added: Mapping[str, str]) -> Tree:
    kind = type(present)
    after, stage = kind(present.files, present.directories), kind(added)
    for path in decision.remove:
        assert path not in PROTECTED
        after.take(path)
    for path in decision.place:
        assert path not in PROTECTED
        after.put(path, stage)
    assert not stage.files, "not all that was staged was placed"
    return after


def simple(
    present: Iterable[str], removed: Iterable[str], added: Iterable[str], *, directories: Iterable[str] = ()
) -> Decision:
    there = Tree(dict.fromkeys(present, "old"), directories)
    decision = decide(there.listing, tree(removed), tree(added), protected=PROTECTED, is_same=lambda _: False)
    if not decision.conflicts:
        apply(decision, there, dict.fromkeys(added, "new"))
    return decision


TOPS = ["", "lib/site/", "lib/site/", "bin/", "share/"]
NAMES = ["a", "a.py", "b.py", "c-1.dist-info", "d", "e.txt"]
FILES = st.builds(
    "{}{}".format,
    st.sampled_from(TOPS),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join),
)
COMPILED = st.builds(
    "{}{}__pycache__/{}.cpython-3{}{}.pyc".format,
    st.sampled_from(TOPS),
    st.sampled_from(["", "a/", "d/", "d/d/"]),
    st.sampled_from(["a", "b", "x"]),
    st.sampled_from(["11", "9"]),
    st.sampled_from(["", ".opt-1", ".opt-2"]),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tree, list[str], dict[str, str], set[str]]:
    """Draw a tree, the files that go, the files that come, and what of the others has the content that comes.

    What goes is mostly there, but what a RECORD says need not be: some of it is not, some of it is a directory.
    """
    present = settled(draw(st.lists(FILES | COMPILED, max_size=14)))
    directories = [
        path for path in draw(st.lists(FILES, max_size=3)) if path not in present and not ancestors(path) & set(present)
    ]
    removed = draw(st.sets(st.sampled_from(present))) if present else set()
    removed |= draw(st.sets(FILES | COMPILED, max_size=3))
    coming = draw(st.lists(FILES, max_size=8))
    coming += draw(st.lists(st.sampled_from(present), max_size=4)) if present else []
    added = settled(coming)
    kept = sorted(set(added) & set(present) - removed)
    same = draw(st.sets(st.sampled_from(kept))) if kept else set()
    there = Tree({path: f"old {path}" for path in present}, directories)
    return there, settled(removed), {path: f"new {path}" for path in added}, same


def expected(there: Tree, removed: Collection[str], added: Mapping[str, str], same: Collection[str]) -> Tree | set[str]:
    """Say what has to come out: a tree, or the conflicts.

    An empty directory stays unless what goes was in it, by its RECORD.
    """
    goes = set(removed) | bytecode_of({*removed, *added}, there.files)
    left = {path: content for path, content in there.files.items() if path not in goes}
    owned = set().union(*(ancestors(path) for path in removed))
    nobodys = {path for path in there.directories if not any(within(each, path) for each in there.files)} - owned
    needed = set(PROTECTED) | nobodys
    for path in [*left, *nobodys]:
        needed |= ancestors(path)
    conflicts = set()
    for path in added:
        if path in needed or (path in left and path not in same):
            conflicts.add(path)
        conflicts |= ancestors(path) & set(left)
    if conflicts:
        return conflicts
    return Tree({**left, **added}, nobodys)


@given(cases())
def test_the_result_is_what_was_asked_for(case: tuple[Tree, list[str], dict[str, str], set[str]]) -> None:
    """Present − removed − bytecode of what goes or comes + added: exactly that, or all conflicts and nothing done."""
    there, removed, added, same = case
    decision = decide(there.listing, tree(removed), tree(added), protected=PROTECTED, is_same=lambda path: path in same)
    wanted = expected(there, removed, added, same)
    if isinstance(wanted, set):
        assert set(decision.conflicts) == wanted
        return
    assert decision.conflicts == ()
    after = apply(decision, there, added)
    assert after.files == wanted.files
    empty = {path for path in after.directories - wanted.directories if not path.endswith("__pycache__")}
    assert not empty, "directories are left that nobody needs"
    gone = {path for path in wanted.directories - after.directories if not path.endswith("__pycache__")}
    assert not gone, "directories are gone that were somebody's"


@given(cases())
def test_the_steps_are_in_order(case: tuple[Tree, list[str], dict[str, str], set[str]]) -> None:
    """Old dist-infos go first, new ones come last, and no step is within another."""
    there, removed, added, same = case
    decision = decide(there.listing, tree(removed), tree(added), protected=PROTECTED, is_same=lambda path: path in same)
    infos = [path.endswith(".dist-info") for path in decision.remove]
    assert infos == sorted(infos, reverse=True)
    infos = [path.endswith(".dist-info") for path in decision.place]
    assert infos == sorted(infos)
    for steps in (decision.remove, decision.place):
        assert len(set(steps)) == len(steps)
        assert not any(within(one, other) for one in steps for other in steps if one != other)
    assert list(decision.conflicts) == sorted(set(decision.conflicts))


@given(cases(), st.randoms())
def test_the_order_of_a_listing_means_nothing(case, random) -> None:  # type: ignore[no-untyped-def]
    """Two filesystems that list in different orders get the same steps."""
    there, removed, added, same = case

    def shuffled(path: str) -> Mapping[str, bool] | None:
        entries = there.listing(path)
        return None if entries is None else dict(random.sample(sorted(entries.items()), len(entries)))

    decisions = {
        decide(listing, tree(removed), tree(added), protected=PROTECTED, is_same=lambda path: path in same)
        for listing in (there.listing, shuffled)
    }
    assert len(decisions) == 1


def test_a_directory_goes_and_comes_whole() -> None:
    """An upgrade of a package that nobody shares is two renames, bytecode included."""
    old = ["lib/site/a/__init__.py", "lib/site/a/b/c.py"]
    compiled = ["lib/site/a/__pycache__/__init__.cpython-311.pyc", "lib/site/a/b/__pycache__/c.cpython-311.pyc"]
    decision = simple([*old, *compiled], old, ["lib/site/a/__init__.py", "lib/site/a/d.py"])
    assert decision == Decision(("lib/site/a",), ("lib/site/a",), ())


def test_a_shared_directory_is_changed_file_by_file() -> None:
    """A directory in which somebody else has a file stays, and that file with it."""
    present = ["lib/site/a/mine.py", "lib/site/a/theirs.py", "lib/site/a/sub/mine.py"]
    decision = simple(present, [present[0], present[2]], ["lib/site/a/new.py"])
    assert decision == Decision(("lib/site/a/mine.py", "lib/site/a/sub"), ("lib/site/a/new.py",), ())


@pytest.mark.parametrize("own", ["lib", "lib/site", "bin"])
def test_the_environments_own_directories_stay(own: str) -> None:
    """bin, lib and site-packages are never moved, even if all that is in them goes."""
    present = ["lib/site/a.py", "bin/tool"]
    decision = simple(present, present, [])
    assert decision.remove == ("bin/tool", "lib/site/a.py")
    assert own not in decision.remove


def test_the_environments_own_directories_are_made() -> None:
    """Where one of them is missing, it comes with what is in it."""
    assert simple([], [], ["include/site/x/x.h"]).place == ("include",)


@pytest.mark.parametrize("tag", ["cpython-311", "cpython-311.opt-1", "graalpy230-310", "pypy39", "pypy310.opt-2"])
def test_bytecode_goes_with_its_source(tag: str) -> None:
    """Bytecode of a module that goes would run the old code of the new one: it goes, whoever compiled it."""
    compiled = f"lib/site/__pycache__/a.{tag}.pyc"
    others = "lib/site/__pycache__/b.cpython-311.pyc"
    decision = simple(["lib/site/a.py", "lib/site/b.py", compiled, others], ["lib/site/a.py"], ["lib/site/a.py"])
    assert compiled in decision.remove
    assert others not in decision.remove


@pytest.mark.parametrize(("number", "is_bytecode"), [("139872310", True), ("old", False), ("", False)])
def test_bytecode_that_was_never_finished(number: str, is_bytecode: bool) -> None:
    """A Python that was killed while it wrote it leaves it under a name with a number (`importlib._write_atomic`)."""
    begun = f"lib/site/a/__pycache__/b.cpython-311.pyc.{number}"
    decision = simple(["lib/site/a/b.py", begun], ["lib/site/a/b.py"], [])
    assert decision.remove == (("lib/site/a",) if is_bytecode else ("lib/site/a/b.py",))


def test_bytecode_of_others_stays() -> None:
    """What is compiled from a module that stays, or from none, is not touched, whatever its name begins with."""
    present = [
        "lib/site/a.py",
        "lib/site/ab.py",
        "lib/site/__pycache__/ab.cpython-311.pyc",
        "lib/site/__pycache__/gone.cpython-311.pyc",
        "lib/site/__pycache__/a.txt",
        "lib/site/a/__pycache__/a.cpython-311.pyc",
    ]
    assert simple(present, ["lib/site/a.py"], []).remove == ("lib/site/a.py",)


@pytest.mark.parametrize("compiled", [True, False])
def test_bytecode_goes_where_its_source_comes(compiled: bool) -> None:
    """A leftover of nobody's would run instead of a source of its size and time; it is not in the way either."""
    leftover, others = "lib/site/__pycache__/a.cpython-311.pyc", "lib/site/__pycache__/b.cpython-311.pyc"
    decision = simple([leftover, others], [], ["lib/site/a.py", *([leftover] if compiled else [])])
    placed = (leftover, "lib/site/a.py") if compiled else ("lib/site/a.py",)
    assert decision == Decision((leftover,), placed, ())


def test_bytecode_is_placed_file_by_file_where_others_have_some() -> None:
    """In a directory that others share, `__pycache__` is shared, too."""
    present = ["lib/site/a/x.py", "lib/site/a/__pycache__/x.cpython-311.pyc"]
    added = ["lib/site/a/y.py", "lib/site/a/__pycache__/y.cpython-311.pyc"]
    assert simple(present, [], added) == Decision((), (added[1], added[0]), ())


def test_bytecode_of_a_module_with_a_dot_in_its_name() -> None:
    """A script such as `tool.v2.py` is compiled, too."""
    present = ["lib/site/tool.v2.py", "lib/site/__pycache__/tool.v2.cpython-311.pyc"]
    assert simple(present, present[:1], []).remove == (
        "lib/site/__pycache__",
        "lib/site/tool.v2.py",
    )


def test_conflicts_are_all_named() -> None:
    """Every file of nobody's that is in the way is named: a file, a file for a directory, a directory for a file."""
    present = ["lib/site/a.py", "lib/site/b", "lib/site/c/keep.txt"]
    decision = simple(present, [], ["lib/site/a.py", "lib/site/b/x.py", "lib/site/c", "lib/site/d.py"])
    assert decision.conflicts == ("lib/site/a.py", "lib/site/b", "lib/site/c")


def test_the_same_content_is_no_conflict() -> None:
    """A file that an interrupted installer left is replaced if it is the very one that is to come."""
    there = Tree({"lib/site/a.py": "x"})
    decision = decide(
        there.listing,
        tree([]),
        tree(["lib/site/a.py"]),
        protected=PROTECTED,
        is_same=lambda path: path.endswith("a.py"),
    )
    assert decision == Decision(("lib/site/a.py",), ("lib/site/a.py",), ())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["lib/site/a.py"], ["lib/site/a.py/x"]),
        (["lib/site/a/__init__.py"], ["lib/site/a"]),
        (["lib/site/a/b/c"], ["lib/site/a/b"]),
        (["lib/site/a/b"], ["lib/site/a/b/c"]),
    ],
)
def test_a_module_becomes_a_package(old: list[str], new: list[str]) -> None:
    """A file may take a directory's place, and a directory a file's, if all of the old goes."""
    assert simple(old, old, new).conflicts == ()


def test_dist_infos_first_and_last() -> None:
    """Whoever looks in between sees a distribution missing rather than half of it."""
    old = ["lib/site/a/x.py", "lib/site/a-1.dist-info/RECORD", "bin/a"]
    new = ["lib/site/a/y.py", "lib/site/a-2.dist-info/RECORD", "lib/site/zz.py", "bin/a"]
    decision = simple(old, old, new)
    assert decision.remove == ("lib/site/a-1.dist-info", "bin/a", "lib/site/a")
    assert decision.place == ("bin/a", "lib/site/a", "lib/site/zz.py", "lib/site/a-2.dist-info")


def test_what_is_gone_already_takes_no_step() -> None:
    """What a RECORD lists and somebody deleted is as it should be."""
    assert simple(["lib/site/a/x.py"], ["lib/site/a/x.py", "lib/site/a/y.py", "lib/site/b.py"], []).remove == (
        "lib/site/a",
    )


def test_nothing_is_nothing() -> None:
    """Nothing to remove and nothing to add are no steps."""
    assert simple(["lib/site/a.py"], [], []) == Decision((), (), ())


# Filesystems that take several names for one

SITES = ["lib/site"]


def folding_all() -> Folding:
    """Return the rule of a filesystem that takes for one whatever may be."""
    return Folding(fold, lambda one, other: fold(one) == fold(other), SITES)


def folding_case() -> Folding:
    """Return the rule of one that knows no Unicode forms, nor letters that are two in capitals, as NTFS does."""
    return Folding(fold, lambda one, other: one.upper() == other.upper() and len(one) == len(other), SITES)


def folded(present: Iterable[str], removed: Iterable[str], added: Iterable[str]) -> list[tuple[str, str]]:
    """Return the twins; where there are none, see that what was decided comes to what was asked for."""
    there, folding = FoldingTree(dict.fromkeys(present, "old")), folding_all()
    twins = find_twins(tree(added), folding, protected=PROTECTED)
    if twins:
        return twins
    decision = decide(
        there.listing, tree(removed), tree(added), protected=PROTECTED, is_same=lambda _: False, folding=folding
    )
    if not (decision.twins or decision.conflicts):
        after = apply(decision, there, dict.fromkeys(added, "new"))
        assert after.files.keys() == {*map(fold, present)} - {*map(fold, removed)} | {*map(fold, added)}
    return list(decision.twins)


@given(cases(), st.randoms(use_true_random=False))
def test_whatever_the_names_nothing_is_moved_over_what_stays(case, random) -> None:  # type: ignore[no-untyped-def]
    """Names to come and to go are spelled anew at random: they are refused, or it ends as with one spelling."""
    there, removed, added, same = case

    own = {"__pycache__", *(part for path in PROTECTED for part in path.split("/"))}

    def spelled(paths: Iterable[str]) -> dict[str, str]:
        """Spell the parts of each path anew, up to a dot, but for what has to be called as it is."""
        return {
            "/".join(
                part if part in own or random.getrandbits(1) else part[0].upper() + part[1:] for part in path.split("/")
            ): path
            for path in paths
        }

    shown = {name: there.files[path] for name, path in spelled(there.files).items()}
    coming = {name: added[path] for name, path in spelled(added).items()}
    present, folding = FoldingTree(shown, there.directories), folding_all()
    if find_twins(tree(coming), folding, protected=PROTECTED):
        return
    decision = decide(
        present.listing,
        tree(spelled(removed)),
        tree(coming),
        protected=PROTECTED,
        is_same=lambda path: fold(path) in same,
        folding=folding,
    )
    wanted = expected(there, removed, added, same)
    if isinstance(wanted, set):
        assert decision.conflicts or decision.twins
    elif not decision.twins:
        assert decision.conflicts == ()
        assert apply(decision, present, coming).files == wanted.files


@given(cases())
def test_where_names_are_one_those_that_are_alike_are_no_matter(
    case: tuple[Tree, list[str], dict[str, str], set[str]],
) -> None:
    """Of names with one spelling nothing is refused that would not be elsewhere, and the steps are the same."""
    there, removed, added, same = case
    words = (there.listing, tree(removed), tree(added))
    decisions = [
        decide(*words, protected=PROTECTED, is_same=lambda path: path in same, folding=folding)
        for folding in (None, folding_all(), folding_case())
    ]
    assert len(set(decisions)) == 1


ACUTE, DECOMPOSED = "\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"


@pytest.mark.parametrize(
    ("present", "removed", "added", "twins"),
    [
        ([], [], ["bin/a", "bin/A"], [("bin/a", "bin/A")]),
        (["bin/A"], [], ["bin/a"], [("bin/a", "bin/A")]),
        (["bin/A"], ["bin/A"], ["bin/a"], []),
        ([f"bin/{ACUTE}"], [], [f"bin/{DECOMPOSED}"], [(f"bin/{DECOMPOSED}", f"bin/{ACUTE}")]),
        ([], [], ["lib/site/Crypto/a.py", "lib/site/crypto/b.py"], [("lib/site/crypto", "lib/site/Crypto")]),
        (["lib/site/Crypto/a.py"], [], ["lib/site/crypto/b.py"], [("lib/site/crypto", "lib/site/Crypto")]),
        (["lib/site/Crypto/a.py"], ["lib/site/Crypto/a.py"], ["lib/site/crypto/a.py"], []),
        (
            ["lib/site/Crypto/a.py", "lib/site/Crypto/theirs"],
            ["lib/site/Crypto/a.py"],
            ["lib/site/crypto/a.py"],
            [("lib/site/crypto", "lib/site/Crypto")],
        ),
        ([], [], ["lib/site/p/Sub/a.py", "lib/site/p/sub/b.py"], [("lib/site/p/sub", "lib/site/p/Sub")]),
        ([], [], ["share/Foo/x", "share/foo/y"], []),
        ([], [], ["share/Foo/x", "share/foo/x"], [("share/Foo/x", "share/foo/x")]),
        ([], [], ["share/Foo/x", "share/foo/X"], [("share/Foo/x", "share/Foo/X")]),
        ([], [], ["share/Foo/x/y", "share/foo/x"], [("share/Foo/x", "share/foo/x")]),
        ([], [], ["share/Foo", "share/foo/y"], [("share/Foo", "share/foo")]),
        (["share/Foo/x"], [], ["share/foo/y"], []),
        (["share/Foo/x"], [], ["share/foo/X"], [("share/foo/X", "share/foo/x")]),
        (["share/Foo/x"], [], ["Share/foo/y"], []),
    ],
)
def test_twins(present: list[str], removed: list[str], added: list[str], twins: list[tuple[str, str]]) -> None:
    """Files that are one are refused, and directories of modules; other directories are joined."""
    assert folded(present, removed, added) == twins


def test_what_goes_is_found_by_any_name() -> None:
    """As where a directory lists what RECORD calls otherwise (HFS+), or somebody has renamed it."""
    there = FoldingTree(dict.fromkeys([f"lib/site/a/{DECOMPOSED}.py", "bin/Tool"], "old"))
    removed = tree([f"lib/site/a/{ACUTE}.py", "bin/tool"])
    decision = decide(
        there.listing, removed, tree([]), protected=PROTECTED, is_same=lambda _: False, folding=folding_all()
    )
    assert decision.remove == ("bin/tool", "lib/site/a")


def test_where_names_are_told_apart_all_are_placed() -> None:
    """Nothing is refused on other filesystems."""
    added = ["bin/A", "bin/a", "lib/site/Crypto/a.py", "lib/site/crypto/b.py"]
    assert simple([], [], added) == Decision((), ("bin/A", "bin/a", "lib/site/Crypto", "lib/site/crypto"), ())


NOT_ONE = [f"share/{ACUTE}/x", f"share/{DECOMPOSED}/y", "bin/straße", "bin/STRASSE"]


def test_what_only_some_filesystems_take_for_one_is_two_on_others() -> None:
    """It is asked of each: nothing is refused, joined or taken away for what it is not."""
    assert find_twins(tree(NOT_ONE), folding_case(), protected=PROTECTED) == []
    assert find_twins(tree(NOT_ONE), folding_all(), protected=PROTECTED) == [("bin/straße", "bin/STRASSE")]
    there = Tree(dict.fromkeys(["lib/site/v/strasse", "lib/site/v/straße"], "old"))
    words = (there.listing, tree(["lib/site/v/strasse"]), tree(["lib/site/v/new"]))
    decision = decide(*words, protected=PROTECTED, is_same=lambda _: False, folding=folding_case())
    assert decision == Decision(("lib/site/v/strasse",), ("lib/site/v/new",), ())


def test_a_directory_of_modules_that_is_called_otherwise() -> None:
    """Where somebody's file keeps it, it would be found by its old name only."""
    present = ["lib/site/Demo/theirs", "lib/site/Demo/a.py"]
    assert folded(present, ["lib/site/demo/a.py"], ["lib/site/demo/b.py"]) == [("lib/site/demo", "lib/site/Demo")]
    assert folded(present[1:], ["lib/site/demo/a.py"], ["lib/site/demo/b.py"]) == []


def test_the_environments_own_directories_keep_their_names() -> None:
    """Whatever a wheel calls them."""
    added = tree(["Lib/site/a.py", "lib/site/b.py", "BIN/tool"])
    there = FoldingTree({})
    words = (there.listing, tree([]), added)
    decision = decide(*words, protected=PROTECTED, is_same=lambda _: False, folding=folding_all())
    assert list(map(fold, decision.place)) == ["bin/tool", "lib/site/a.py", "lib/site/b.py"]
    assert decision.place[1:] == ("lib/site/a.py", "lib/site/b.py")
