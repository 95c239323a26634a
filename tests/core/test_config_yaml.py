"""YAML by the rules of 1.2, with places; the text's own mistakes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

import dropscribe.config.yaml_parser as yaml_module
from dropscribe.config.document import Document
from dropscribe.config.load import parse_config
from dropscribe.config.yaml_parser import MAX_NODES, Flaw, parse_yaml
from dropscribe.core.errors import ConfigError

SCALARS = [
    ("no", "no"),
    ("yes", "yes"),
    ("on", "on"),
    ("Off", "Off"),
    ("22:30", "22:30"),
    ("0100", 100),
    ("0o17", 15),
    ("017", 17),
    ("0x1F", 31),
    ("1_000", "1_000"),
    ("2026-01-01", "2026-01-01"),
    ("true", True),
    ("FALSE", False),
    ("tRue", "tRue"),
    ("null", None),
    ("~", None),
    ("", None),
    ("nULL", "nULL"),
    ("+12", 12),
    ("-3", -3),
    ("1e3", 1000.0),
    (".5", 0.5),
    ("6.", 6.0),
    (".inf", math.inf),
    ("1.2.3", "1.2.3"),
    ("=", "="),
    ("'12'", "12"),
    ('"true"', "true"),
    ("!!str 12", "12"),
    ("!!int '12'", 12),
]


def data_of(text, environ=None):
    """The plain data in *text*."""
    return Document(text, "c.yaml", environ or {}).data


def messages_of(text):
    """What is said about *text* as YAML."""
    return [problem.message for problem in Document(text, "c.yaml", {}).problems]


@pytest.fixture(params=["libyaml", "python"])
def loader(request, monkeypatch):
    """PyYAML with and without libyaml."""
    loader = getattr(yaml, "CSafeLoader", None) if request.param == "libyaml" else yaml.SafeLoader
    if loader is None:
        pytest.skip("PyYAML was built without libyaml")
    monkeypatch.setattr(yaml_module, "_LOADER", loader)


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(("written", "meant"), SCALARS)
def test_scalars_mean_what_yaml_1_2_says(written, meant):
    """A plain scalar is resolved by the core schema of YAML 1.2, not by 1.1's."""
    value = data_of(f"key: {written}\n")["key"]
    assert (value, type(value)) == (meant, type(meant))


@pytest.mark.usefixtures("loader")
def test_keys_are_their_text():
    """Also a key that looks like a boolean or a number is the text that is written."""
    assert data_of("no: 1\n1: 2\nnull: 3\n") == {"no": 1, "1": 2, "null": 3}


@pytest.mark.usefixtures("loader")
def test_a_duplicate_key_names_the_first():
    """A key given twice is refused with the place of the first, and the first one stands."""
    document = Document("a:\n  b: 1\n  c: 2\n  b: 3\n", "c.yaml", {})
    (problem,) = document.problems
    assert (problem.line, problem.column, problem.message) == (4, 3, "duplicate key 'b'")
    assert problem.hint == "first given on line 2"
    assert document.data == {"a": {"b": 1, "c": 2}}


@pytest.mark.usefixtures("loader")
def test_anchors_aliases_and_merges_work():
    """`<<` lays a mapping under the keys beside it, several in order; top-level x-… keys are dropped."""
    text = "x-a: &a {k: 1, l: 2}\nx-b: &b {l: 3, m: 4}\nc: {<<: [*a, *b], k: 9}\nd: *a\n"
    assert data_of(text) == {"c": {"k": 9, "l": 2, "m": 4}, "d": {"k": 1, "l": 2}}


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a:\n\tb: 1\n", (2, 1), "a tab cannot indent YAML"),
        ("a: 1\nb:\n  \tc: 1\n  d: 2\n", (3, 3), "a tab cannot indent YAML"),
        ('a: "x\nb: 1\n', (1, 4), "this quote is never closed"),
        ("a: [1\nb: 2\n", (1, 4), "this '[' is never closed, or an item in it needs quotes"),
        ('a: 1\nb: ["\\uD800"]\n', (2, 8), "this is not YAML"),
        ('"\\ud83d\\ude00": 1\n', (1, 4), "this is not YAML"),
        ('a: "\\U00110000"\n', (1, 7), "this is not YAML"),
        ("a: {b", (1, 4), "this '{' is never closed, or an item in it needs quotes"),
        ("a: [", (1, 5), "the file ends within a '[' or a '{'"),
        ("a: {b: 1,\n\n", (1, 10), "the file ends within a '[' or a '{'"),
        ("a: [}\n", (1, 5), "this is not YAML"),
        ("a: {b: ${C}}\n", (1, 4), "this '{' is never closed, or an item in it needs quotes"),
        ("a: b: c\n", (1, 5), "a ':' where no key can be"),
        ("a: 1\nb\n", (2, 1), "a key without its ':'"),
        ("a: @x\n", (1, 4), "a value cannot begin with this character"),
        ("a: *.wav\n", (1, 4), "a value cannot begin with this character"),
        ("a: [x, *.wav]\n", (1, 8), "a value cannot begin with this character"),
        ("- a\nb: 1\n", (2, 1), "this line fits nothing above it"),
        ("a: \x07\n", (1, 4), "an unprintable character (U+0007)"),
        ("[" * 900, (1, 42), "nested deeper than 40 levels"),
        ("", (1, 1), "the file is empty"),
        ("# only words\n", (2, 1), "the file is empty"),
        ("- a\n- b\n", (1, 1), "the top level must be a mapping of sections"),
    ],
)
def test_what_cannot_be_read_has_a_place_and_our_words(text, place, message):
    """A text that is no config is refused in the same words at the same place by either loader."""
    with pytest.raises(ConfigError) as refused:
        Document(text, "c.yaml", {})
    (problem,) = refused.value.problems
    assert ((problem.line, problem.column), problem.message) == (place, message)


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: *b\n", "this alias names no anchor above"),
        ("a: &a [*a]\n", "this alias names no anchor above"),
        ("a: !!python/object:x.Y {}\n", "tags ('!…') have no meaning here"),
        ("a: !secret x\n", "tags ('!…') have no meaning here"),
        ("a: 1\n---\nb: 1\n", "a second document begins here"),
        ("? [a]\n: 1\n", "a key must be a plain word"),
        ("a: {<<: 1}\n", "'<<' merges mappings, and this is not one"),
    ],
)
def test_what_has_no_meaning_is_said(text, message):
    """YAML that could be read but means nothing here is a problem, not an exception."""
    assert messages_of(text) == [message]


def test_an_alias_bomb_is_refused():
    """Aliases that unfold to billions of values end at the bound, at once."""
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    with pytest.raises(ConfigError) as refused:
        data_of("\n".join(layers))
    assert refused.value.problems[0].message == f"more than {MAX_NODES} values, counting aliases"


def merging(layers, width):
    """Mappings that each merge all before them."""
    yield f"a0: &a0 {{{', '.join(f'k{n}: 1' for n in range(width))}}}"
    for layer in range(1, layers):
        yield f"a{layer}: &a{layer} {{<<: [{', '.join(f'*a{n}' for n in range(layer))}], l{layer}: 1}}"


@pytest.mark.parametrize(("layers", "width"), [(60, 1000), (300, 1)])
def test_a_merge_bomb_is_refused(layers, width):
    """The work of `<<` is bounded too, not only what the file unfolds to."""
    with pytest.raises(ConfigError) as refused:
        data_of("\n".join(merging(layers, width)))
    message = refused.value.problems[0].message
    assert message in {f"'<<' merges more than {MAX_NODES} keys", f"more than {MAX_NODES} values"}


def test_a_flood_of_values_is_refused():
    """A file of a megabyte without any alias ends at the same bound."""
    with pytest.raises(ConfigError) as refused:
        data_of("a: [" + "[]," * 300_000 + "]")
    assert refused.value.problems[0].message == f"more than {MAX_NODES} values"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${A}", "one"),
        ("x${A}y${B:-two}", "xoney" + "two"),
        ("${EMPTY:-default}", "default"),
        ("${EMPTY}", ""),
        ("$${A}", "${A}"),
        ("$A", "$A"),
        ("${INJECT}", "x\nkey: ${A}"),
        ("${N}", "5"),
    ],
)
def test_variables_are_put_into_values(written, meant):
    """`${NAME}` is substituted once, after parsing: a value can add no key and no second substitution."""
    environ = {"A": "one", "EMPTY": "", "INJECT": "x\nkey: ${A}", "N": "5"}
    assert data_of(f"'${{A}}': '{written}'\n", environ) == {"${A}": meant}


@pytest.mark.parametrize("written", ["${", "${}", "${1}", "${A B}", "${A", "${A-b}"])
def test_a_malformed_reference_is_said(written):
    """What begins like a variable and is none is a problem, with the way to write a plain `${`."""
    (problem,) = Document(f"a: '{written}'\n", "c.yaml", {"A": "1"}).problems
    assert problem.hint == "write $${ for a plain ${"


@pytest.mark.parametrize("written", ["${NOPE:-${A}}", "${A:-x${B}", "${NOPE:-$${x}"])
def test_a_variable_in_a_default_is_refused(written):
    """A default is taken as it is; one that looks like a variable would be used as that text."""
    (problem,) = Document(f"a: '{written}'\n", "c.yaml", {"A": "1"}).problems
    assert problem.message == "a '${' in the default of a variable"


def test_an_unset_variable_is_named_at_its_value():
    """An unset variable without a default is a problem at the value, with its name."""
    document = Document("a:\n  b: 'x ${NOPE}'\nx-c: ${UNUSED}\n", "c.yaml", {})
    (problem,) = document.problems
    assert (problem.line, problem.column, problem.path) == (2, 6, "a.b")
    assert problem.message == "the environment variable NOPE is not set"


def test_broken_yaml_stays_inside():
    """The parser's own exception carries the flaw; nothing of PyYAML's comes out."""
    with pytest.raises(Flaw) as refused:
        parse_yaml("a: [")
    assert refused.value.__cause__ is None


def test_a_file_full_of_secrets_and_mistakes_is_answered():
    """Thousands of mistakes beside thousands of secrets are all named, each line masked, in bounded work."""
    text = "providers:\n" + "".join(f"  p{n}: {{type: pulse, apikey: sk_canary}}\n" for n in range(4000))
    with pytest.raises(ConfigError) as refused:
        parse_config(text, folder=Path("/srv"), environ={})
    problems = [problem for problem in refused.value.problems if not problem.warning]
    assert len(problems) == 4000
    assert "canary" not in repr(problems)
