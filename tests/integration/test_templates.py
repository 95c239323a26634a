"""Outputs by a template: what it sees, what bounds it, and what becomes of one that fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dropscribe.config.sections.templates import SHIPPED, template_problems
from dropscribe.pipeline.rendering import TemplateFailed, render_by_template
from dropscribe.transcripts.document import transcript_document
from dropscribe.transcripts.model import Segment, Transcript
from support.house import House, make_config, read_json, tree
from support.transcripts import facts

if TYPE_CHECKING:
    from pathlib import Path

CALL = transcript_document(
    Transcript(
        "Hello. Fine.",
        duration=61.0,
        segments=(Segment("Hello.", 0.0, 1.0, "speaker_0"), Segment("Fine.", 60.0, 61.0, "speaker_1")),
        warnings=("missing_audio",),
        raw={"secret of the provider": 1},
    ),
    facts(speaker_names={"speaker_0": "Ann"}),
)


def written(folder: Path, text: str, name: str = "own.txt.j2") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_templates_show_the_transcript(tmp_path, name):
    """Each of them is found without a file beside the config, and shows every paragraph."""
    assert list(template_problems(tmp_path / name)) == []
    text = render_by_template(tmp_path / name, CALL, "call-2.wav")
    assert "Hello." in text
    assert "Fine." in text
    assert ("Ann" in text) == (name != "plain.txt.j2")


def test_names_that_may_be_missing_are_no_mistake(tmp_path):
    """Those under `default` and `is defined`, and those that the template sets somewhere."""
    text = "{{ a|default('x') }}{% if b is defined %}{{ b }}{% endif %}"
    text += "{% if title %}{% set c = 1 %}{% endif %}{{ c }}{{ d }}"
    (problem,) = template_problems(written(tmp_path, text))
    assert " uses d, " in problem.message


def test_a_template_writes_nothing_that_a_terminal_obeys(tmp_path):
    """Whatever a file is named, and whatever its companion says."""
    template = written(tmp_path, "{{ audio }} {{ transcript.companion.who }}\n\tend")
    call = {**CALL, "companion": {"who": "\x1b]0;owned\x07Bob \u202eevil"}}
    assert render_by_template(template, call, "a\x1b[31m.wav") == "a.wav Bob evil\n\tend\n"


def test_a_template_of_ones_own(tmp_path):
    """The transcript, its paragraphs, title and warnings, and the two filters."""
    template = written(
        tmp_path,
        "{{ title }} {{ audio }} {{ transcript.duration | clock }} {{ '#x' | markdown }}\n"
        "{% for p in paragraphs %}{{ p.speaker }}={{ p.text }};{% endfor %}{{ warnings[0] }}",
    )
    assert render_by_template(template, CALL, "call-2.wav") == (
        "call call-2.wav 1:01 \\#x\n"
        "Ann=Hello.;speaker_1=Fine.;Parts of the recording are missing in this transcript.\n"
    )


def test_modules_are_found_by_a_path_from_the_daemon_s_own_folder(tmp_path, monkeypatch):
    """The process that renders has another working directory, where a relative PYTHONPATH leads nowhere."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "sitecustomize.py").write_text("import os\nos._exit(5)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "lib")

    with pytest.raises(TemplateFailed, match="exit status 5"):
        render_by_template(written(tmp_path, "a text"), CALL, "call-2.wav")


@pytest.mark.parametrize(
    "text",
    [
        "{{ transcript.raw }}",
        "{% include '/etc/passwd' %}",
        "{{ transcript.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ transcript.update({}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ 'a' * 10000000000 }}",
        "{% for n in range(90000) %}{{ 'a' * 10000 }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ no_such_name }}",
        "{% broken",
    ],
)
def test_a_template_sees_nothing_else_and_is_bounded(tmp_path, text):
    """Files, classes, the provider's answer, endless output and memory: refused, with a reason."""
    with pytest.raises(TemplateFailed) as failed:
        render_by_template(written(tmp_path, text), CALL, "call-2.wav")
    assert str(failed.value)
    assert "Traceback" not in str(failed.value)


@pytest.mark.slow
def test_an_endless_loop_is_ended(tmp_path):
    """Loops within loops end with the time that the system gives the process."""
    loops = "".join(f"{{% for n{n} in range(90000) %}}" for n in range(4)) + "{% endfor %}" * 4
    with pytest.raises(TemplateFailed, match=r"too much work|not rendered within"):
        render_by_template(written(tmp_path, loops), CALL, "call-2.wav")


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("own.txt.j2", "ok\n{% for x %}", "line 2"),
        ("own.txt.j2", "", None),
        ("own.txt.j2", "{{ transcript.txet }}", "uses transcript.txet, "),
        ("own.txt.j2", "{% for word in transcript.raw.words %}{% endfor %}", "uses transcript.raw, "),
        ("own.txt.j2", "{{ transcript.new | default('') }}{{ transcript.get('new') }}", None),
        ("own.txt.j2", "{{ transcript.companion.caller }}{{ transcript.text }}", None),
    ],
)
def test_check_sees_what_is_wrong_with_a_template(tmp_path, name, text, part):
    """`check` names the line of a mistake."""
    messages = [problem.message for problem in template_problems(written(tmp_path, text, name))]
    assert ("".join(messages) == "") if part is None else (part in messages[0])


async def test_a_rule_with_a_template_gets_one_more_file(tmp_path):
    """It stands beside the others, under the audio's stem and the template's name."""
    config = make_config(tmp_path, template=written(tmp_path, "{{ transcript.text }}!", "own.txt.j2"))
    async with House(config) as house:
        await house.drop("call.wav")
        await house.rest()

    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt", "call.own.txt"}
    text = read_json(tmp_path / "done/call.json")["text"]
    assert (tmp_path / "done/call.own.txt").read_text() == f"{text}!\n"


async def test_a_note_embeds_the_recording_beside_it(tmp_path):
    """Where the name is taken in done, the note names the recording by the number that it got."""
    config = make_config(tmp_path, template=tmp_path / "notes.md.j2")
    async with House(config) as house:
        for content in (b"RIFF some audio", b"RIFF other audio"):
            await house.drop("call.wav", content)
            await house.rest()

    assert "![[call.wav]]" in (tmp_path / "done/call.notes.md").read_text()
    assert "![[call-2.wav]]" in (tmp_path / "done/call-2.notes.md").read_text()


async def test_a_template_that_fails_costs_no_transcript(tmp_path):
    """The file is done without that output, and its transcript says so."""
    config = make_config(tmp_path, template=written(tmp_path, "{{ no_such_name }}"))
    async with House(config) as house:
        await house.drop("call.wav")
        await house.rest()

    assert tree(tmp_path / "done") == {"call.wav", "call.json", "call.txt"}
    assert json.loads((tmp_path / "done/call.json").read_text())["warnings"] == ["template_failed"]


async def test_a_template_that_fails_under_the_next_name_ends(tmp_path):
    """Without its output an earlier name would be free, under which it has an output: the number stays."""
    text = "{% if audio == 'call-2.wav' %}{{ transcript.nothing.at_all }}{% endif %}ok"
    config = make_config(tmp_path, template=written(tmp_path, text))
    (tmp_path / "done").mkdir()
    (tmp_path / "done/call.own.txt").write_text("of somebody else")
    async with House(config) as house:
        await house.drop("call.wav")
        await house.rest()

    assert tree(tmp_path / "done") == {"call.own.txt", "call-2.wav", "call-2.json", "call-2.txt"}
    assert read_json(tmp_path / "done/call-2.json")["warnings"] == ["template_failed"]
