"""`type: http` in the config: each mistake is found before a file is paid for, at its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropscribe.config.load import parse_config
from dropscribe.core.errors import ConfigError

HEAD = "folders: {f: {inbox: /srv/in, provider: mine}}\nproviders:\n  mine:\n    type: http\n"
WHOLE = HEAD + "    url: https://api.example.com/v1\n    api_key: k-1234\n    answer:\n      text: a.text\n"


def problems_of(text: str):
    with pytest.raises(ConfigError) as caught:
        parse_config(text, folder=Path("/srv"), environ={})
    return [problem for problem in caught.value.problems if not problem.warning]


def test_an_endpoint_and_an_answer_are_needed():
    """Both are named."""
    said = [problem.message for problem in problems_of(HEAD + "    api_key: k-1234\n")]
    assert [words.rpartition(" needs ")[2] for words in said] == ["'url'", "'answer'"]


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ('"a["', "is not a JMESPath expression"),
        ("a..b", "(at character 3)"),
        ("nosuch(a)", "is not a JMESPath expression"),
        ("length(a, b)", "is not a JMESPath expression"),
        ("'" + "(" * 1500 + "'", "is not a JMESPath expression"),
        ("x" * 3000, "is longer than 2000 characters"),
        ("5", "is not a string"),
    ],
)
def test_a_wrong_expression_is_refused_at_its_place(expression, said):
    """Syntax, unknown functions, numbers of arguments, nesting and length."""
    (problem,) = problems_of(f"{WHOLE}      words: {expression}\n")
    assert said in problem.message
    assert problem.path == "providers.mine.answer.words"
    assert problem.line == 9


def test_functions_of_what_an_empty_answer_lacks_are_fine():
    """`join` of null is a mistake of the answer, not of the expression."""
    config, _ = parse_config(
        f"{WHOLE}      language: join('-', languages)\n", folder=Path("/srv"), environ={}
    )
    assert config.providers["mine"].answer.language == "join('-', languages)"


@pytest.mark.parametrize(
    "line",
    [
        "key_header: Token {key}", "key_header: 'Authorization: Token'", "body: xml", "media_type: octets",
        "key_header: 'Auth(x): {key}'", "key_header: 'Authorization: Tökén {key}'",
        "errors: {account: [true]}", "errors: {account: [200]}", "errors: {file: [4000]}",
        "errors: {other: [400]}", "answer: {txt: a}",
    ],
)  # fmt: skip
def test_other_mistakes_are_refused(line):
    """A header without a key, an unknown body, unknown keys."""
    problems = problems_of(WHOLE.partition("    answer")[0] + f"    {line}\n")
    name = f"providers.mine.{line.partition(':')[0]}"
    assert any(problem.path.startswith(name) for problem in problems)


POLL = WHOLE + "    poll:\n      url: /v1/jobs/{id}\n      done: [completed]\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("id: a..b", "is not a JMESPath expression (at character 3)"),
        ("state: nosuch(a)", "is not a JMESPath expression"),
        ("delete: /v1/jobs", "has no place for the job's id"),
        ("result: v1/jobs/{id}", "is not an http or https url"),
        ("every: soon", "is not a duration"),
        ("create: {url: /v1/jobs, audio: 'a[', field: url}", "is not a JMESPath expression"),
        ("create: {url: /v1/jobs, audio: url}", "the key 'field' is missing"),
        ("stat: x", "unknown key 'stat'"),
    ],
)
def test_a_mistake_in_poll_is_refused_at_its_place(line, said):
    """Expressions, urls, durations and names."""
    (problem,) = problems_of(f"{POLL}      {line}\n")
    assert said in problem.message
    assert problem.path.startswith("providers.mine.poll")
    assert problem.line == 12


def test_poll_needs_a_url_and_a_state_that_is_done():
    """Without either no job would ever end."""
    said = [problem.message for problem in problems_of(WHOLE + "    poll: {id: id}\n")]
    assert said == ["the key 'url' is missing", "the key 'done' is missing"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("words: 'w[].{text: t, start: s}'", "makes objects with 'text', which is not read"),
        ("words: 'w[].{start: s}'", "makes objects without 'word'"),
        ("words: 'w[?t].{word: t, begin: s}'", "makes objects with 'begin', which is not read"),
        ("segments: 'a.b[*].{text: t, begin: s}'", "makes objects with 'begin', which is not read"),
        (
            "words: 'w[].{word: t, start: s, duration: d}'",
            "'duration', which is not read with times: start_end",
        ),
    ],
)
def test_objects_with_unread_names_are_refused(line, said):
    """A misspelt name would give transcripts without times or words, file after file."""
    (problem,) = problems_of(f"{WHOLE}      {line}\n")
    assert problem.message.endswith(said)
    assert problem.line == 9


@pytest.mark.parametrize("words", ["words", "a[?b][*].c[]", "sort_by(w, &s)[].{word: w}", "merge(w, {x: y})"])
def test_objects_of_the_answer_itself_are_accepted(words):
    """Their names are known when they come."""
    parse_config(f"{WHOLE}      words: '{words}'\n", folder=Path("/srv"), environ={})


def test_hints_are_told_to_be_for_params():
    """The names of its parameters are the API's own."""
    text = WHOLE.replace(
        "    answer", "    language: en\n    speakers: true\n    vocabulary: [Ada]\n    answer"
    )
    config, warnings = parse_config(text, folder=Path("/srv"), environ={})
    assert config.providers["mine"].params == {}
    assert [warning.path.rpartition(".")[2] for warning in warnings] == ["language", "speakers", "vocabulary"]
