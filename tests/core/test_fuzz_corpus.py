"""Every input that the fuzzers start from, or once broke something with, keeps the promises of its target."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropscribe.providers.build import BUILDERS
from fuzz import targets

CORPUS = Path(targets.__file__).with_name("corpus")
INPUTS = sorted(path for path in CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", INPUTS, ids=[f"{path.parent.name}/{path.name}" for path in INPUTS])
def test_an_input_of_the_corpus_breaks_nothing(path):
    """Containers, links, answers, configs and neighbours' files raise nothing but the errors that say why."""
    targets.TARGETS[path.parent.name](path.read_bytes())


def test_every_target_and_every_type_of_provider_is_fuzzed():
    """Each has inputs to begin with."""
    assert {path.parent.name for path in INPUTS} == set(targets.TARGETS)
    assert set(targets._KINDS) == set(BUILDERS) - {"local"}
    first_bytes = {path.read_bytes()[0] for path in INPUTS if path.parent.name == "answers"}
    assert first_bytes == set(range(len(targets._KINDS)))
