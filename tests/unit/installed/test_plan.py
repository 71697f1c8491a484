"""The plan: which distributions go, which come, which stay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from envsync.installed.plan import Installed, Origin, Wanted, plan

OURS = Origin("a" * 64)
THEIRS = Origin("b" * 64)


def there(name: str, version: str = "1", origin: Origin | None = OURS, *, site: str = "site") -> Installed:
    return Installed(name, version, f"{site}/{name}-{version}.dist-info", origin)


def want(name: str, version: str = "1", origin: Origin = OURS) -> Wanted:
    return Wanted(name, version, origin)


def test_nothing_to_do() -> None:
    """What is installed from the very wheel that is wanted stays."""
    planned = plan([there("a")], [want("a")])
    assert planned.is_empty
    assert planned.keep == (there("a"),)


def test_install_and_remove() -> None:
    """What is wanted and missing comes, what is there and not wanted goes."""
    planned = plan([there("a"), there("b")], [want("b"), want("c")])
    assert (planned.remove, planned.install, planned.keep) == ((there("a"),), (want("c"),), (there("b"),))
    assert not planned.is_empty


def test_an_upgrade_is_both() -> None:
    """Another version goes and comes."""
    planned = plan([there("a", "1", OURS)], [want("a", "2", THEIRS)])
    assert (planned.remove, planned.install) == ((there("a", "1", OURS),), (want("a", "2", THEIRS),))


def test_the_wheel_decides() -> None:
    """The same version from another wheel is another distribution."""
    assert plan([there("a", origin=THEIRS)], [want("a")]).install == (want("a"),)


def test_the_url_decides() -> None:
    """What was asked for by URL is not what was asked for by name: direct_url.json tells them apart."""
    url = Origin(OURS.sha256, '{"url": "x"}')
    assert plan([there("a")], [want("a", origin=url)]).install == (want("a", origin=url),)
    assert plan([there("a", origin=url)], [want("a", origin=url)]).is_empty


def test_bytecode_that_is_wanted_and_lacking_is_a_reason() -> None:
    """What has none, or that of another Python, is installed anew with it; what has some when none is wanted stays."""
    wanted = want("a")._replace(bytecode="cpython-311-a70d0d0a")
    for lacking in (there("a"), there("a")._replace(bytecode="cpython-310-6f0d0d0a")):
        planned = plan([lacking], [wanted])
        assert (planned.remove, planned.install) == ((lacking,), (wanted,))
    has = there("a")._replace(bytecode=wanted.bytecode)
    assert plan([has], [wanted]).is_empty
    assert plan([has], [want("a")]).is_empty


def test_what_others_installed_is_replaced() -> None:
    """Nothing says what is in a distribution that pip installed."""
    planned = plan([there("a", origin=None)], [want("a")])
    assert (planned.remove, planned.install) == ((there("a", origin=None),), (want("a"),))


def test_inexact_leaves_the_rest() -> None:
    """Without exactness what is not wanted stays, and what is wanted is still made right."""
    planned = plan([there("a"), there("b", "0", THEIRS)], [want("b")], exact=False)
    assert planned.keep == (there("a"),)
    assert (planned.remove, planned.install) == ((there("b", "0", THEIRS),), (want("b"),))


def test_spared_names_stay_unless_wanted() -> None:
    """pip stays in an exact environment, but not another version than the one that is wanted."""
    assert plan([there("pip", origin=None)], [], spare={"pip"}).is_empty
    assert plan([there("pip", origin=None)], [want("pip")], spare={"pip"}).remove == (there("pip", origin=None),)


def test_damage_means_reinstalling() -> None:
    """A distribution whose files are damaged goes and comes."""
    planned = plan([there("a"), there("b")], [want("a"), want("b")], reinstall={"a"})
    assert (planned.remove, planned.install, planned.keep) == ((there("a"),), (want("a"),), (there("b"),))


def test_two_dist_infos_of_one_name_both_go() -> None:
    """What an interrupted installer leaves is not chosen from."""
    both = [there("a", "1"), there("a", "2", None)]
    planned = plan(both, [want("a", "1")])
    assert planned.remove == tuple(both)
    assert planned.install == (want("a", "1"),)


NAMES = st.sampled_from(["a", "b", "c", "d", "pip"])
ORIGINS = st.sampled_from([None, OURS, THEIRS])
INSTALLED = st.lists(
    st.builds(there, NAMES, st.sampled_from(["1", "2"]), ORIGINS),
    unique_by=lambda item: (item.name, item.version),
)
WANTED = st.lists(
    st.builds(want, NAMES, st.sampled_from(["1", "2"]), st.sampled_from([OURS, THEIRS])),
    unique_by=lambda item: item.name,
)


@given(INSTALLED, WANTED, st.booleans(), st.sets(NAMES), st.sets(NAMES), st.randoms())
def test_a_plan_leads_to_what_is_wanted(installed, wanted, exact, spare, reinstall, random) -> None:
    """Carried out, a plan leaves all that is wanted and nothing else but what it may leave; then nothing is to do."""
    planned = plan(installed, wanted, exact=exact, spare=spare, reinstall=reinstall)
    assert sorted([*planned.remove, *planned.keep], key=repr) == sorted(installed, key=repr)
    after = [*planned.keep, *(there(item.name, item.version, item.origin) for item in planned.install)]
    names = [item.name for item in wanted]
    for item in wanted:
        assert [a.origin for a in after if a.name == item.name] == [item.origin]
    others = {item.name for item in after if item.name not in names}
    assert others == {i.name for i in installed if i.name not in names and (not exact or i.name in spare)}
    assert plan(after, wanted, exact=exact, spare=spare).is_empty
    shuffled = random.sample(installed, len(installed))
    assert plan(shuffled, wanted[::-1], exact=exact, spare=spare, reinstall=reinstall) == planned
    assert list(planned.install) == sorted(planned.install, key=lambda item: item.name)
