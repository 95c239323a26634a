"""Which provider sees which folder's jobs, given what is held and what is closed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropscribe.core.routing import Route, provider_for, routes_for

CHAINS = {"calls": ("first", "second"), "notes": ("second",), "tapes": ("third", "first")}


@pytest.mark.parametrize(
    ("provider", "held", "closed", "expected"),
    [
        ("first", (), (), [Route("calls", serves_unassigned=True), Route("tapes", serves_unassigned=False)]),
        ("second", (), (), [Route("calls", serves_unassigned=False), Route("notes", serves_unassigned=True)]),
        (
            "second",
            ("first",),
            (),
            [Route("calls", serves_unassigned=True), Route("notes", serves_unassigned=True)],
        ),
        (
            "first",
            ("third",),
            (),
            [Route("calls", serves_unassigned=True), Route("tapes", serves_unassigned=True)],
        ),
        ("first", (), ("calls",), [Route("tapes", serves_unassigned=False)]),
        ("third", (), ("tapes",), []),
        ("nobody", (), (), []),
    ],
)
def test_a_folder_goes_to_its_first_provider_that_is_not_held(provider, held, closed, expected):
    """Later ones see only what is pinned to them; a closed folder is seen by none."""
    assert routes_for(provider, CHAINS, held, closed) == expected


def test_a_held_provider_may_be_probed_with_any_of_its_folders_jobs():
    """Also while a later provider of the chain serves them: else it would never be found well again."""
    assert routes_for("first", CHAINS, {"first"}, ()) == [
        Route("calls", serves_unassigned=True),
        Route("tapes", serves_unassigned=True),
    ]


@pytest.mark.parametrize(
    ("pin", "held", "expected"),
    [
        ("", (), False),
        ("", ("first",), False),
        ("", ("first", "second"), True),
        ("first", ("first",), True),
        ("second", ("first",), False),
    ],
)
def test_a_job_is_held_when_nothing_that_may_take_it_is_free(pin, held, expected):
    """A pinned one waits for its own provider, another for the first of all that is released."""
    assert (provider_for(pin, CHAINS["calls"], held) is None) is expected


providers = st.lists(st.sampled_from("abcd"), min_size=1, unique=True)


@given(st.dictionaries(st.sampled_from(["x", "y", "z"]), providers), st.sets(st.sampled_from("abcd")))
def test_an_unpinned_job_has_one_taker_among_those_not_held(chains, held):
    """Exactly one, or none where all of its chain are held: never two that compete, never none by mistake."""
    free = [name for name in "abcd" if name not in held]
    for folder, chain in chains.items():
        takers = [
            name
            for name in free
            if Route(folder, serves_unassigned=True) in routes_for(name, chains, held, ())
        ]
        assert len(takers) == (0 if provider_for("", chain, held) is None else 1)
