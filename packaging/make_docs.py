"""Man pages and completion, made at build time: ``python packaging/make_docs.py [OUT]`` (build/share).

One source each: ``dropscribe.1`` and the completion come from the parser, ``dropscribe.yaml.5`` from the
config's reference, which comes from its keys. Needs the source tree and its dependencies.
"""

# ruff: noqa: INP001  # a script, no package
from __future__ import annotations

import argparse
import itertools
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

SOURCE = Path(__file__).resolve().parents[1] / "daemon"
CHANGELOG = SOURCE.parent / "CHANGELOG.md"
sys.path[:0] = [str(SOURCE), str(Path(__file__).resolve().parent)]

from config_reference import reference_text  # noqa: E402  # found through the path above

from dropscribe import __version__  # noqa: E402
from dropscribe.cli.main import COMMANDS, build_parser  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

_FILES = {"FILE": "_files", "CONFIG": "_files", "DIR": "_files -/"}
"""By metavar: what zsh completes there."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a command.

    Attributes:
        flags: ("-c", "--config"); () for a positional.
        metavar: "" where the flag takes nothing.
    """

    flags: tuple[str, ...]
    metavar: str
    words: str
    choices: tuple[str, ...]
    is_optional: bool
    is_repeated: bool


def arguments_of(parser: argparse.ArgumentParser) -> list[Argument]:
    """What argparse knows, which it offers in no public form."""
    return [
        Argument(
            tuple(action.option_strings),
            _metavar(action),
            (action.help or "").replace("%(prog)s", "dropscribe"),
            tuple(action.choices or ()),
            is_optional=not action.required if action.option_strings else action.nargs in {"?", "*"},
            is_repeated=action.nargs in {"*", "+"},
        )
        for action in parser._actions  # noqa: SLF001  # as every generator of man pages does
        if not isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
    ]


def _metavar(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    return str(action.metavar or ("|".join(action.choices) if action.choices else action.dest.upper()))


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Every command's own parser."""
    actions = parser._actions  # noqa: SLF001
    found = next(action for action in actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001
    return dict(found.choices)


def render_man(parser: argparse.ArgumentParser) -> str:
    """dropscribe(1)."""
    return "\n".join([_title("DROPSCRIBE", 1), *_man_lines(parser)]) + "\n"


def _title(name: str, section: int) -> str:
    return f'.TH {name} {section} "{release_day()}" "dropscribe {__version__}" "dropscribe"'


def release_day(changelog: str | None = None) -> str:
    """The day of this version's release by the changelog; before that, of SOURCE_DATE_EPOCH if it is set."""
    text = CHANGELOG.read_text("utf-8") if changelog is None else changelog
    if match := re.search(rf"^## \[{re.escape(__version__)}\] - (\S+)$", text, re.MULTILINE):
        return match[1]
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return time.strftime("%Y-%m-%d", time.gmtime(float(epoch))) if epoch else "unreleased"


def _man_lines(parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from (".SH NAME", f"dropscribe \\- {roff(parser.description or '').rstrip('.')}")
    yield from (".SH SYNOPSIS", ".B dropscribe", roff("COMMAND [-c CONFIG] …"))
    yield ".SH COMMANDS"
    for name, command in commands_of(parser).items():
        arguments = arguments_of(command)
        yield from (".TP", f".B {name} {roff(_synopsis(arguments))}", roff(COMMANDS[name]))
        yield from _argument_lines(arguments)
    places, codes = (parser.epilog or "").strip().split("\n\n", 1)
    yield from (".SH FILES", roff(" ".join(places.split())))
    yield from (".SH EXIT STATUS", roff(" ".join(codes.split()).removeprefix("exit codes: ")) + ".")
    yield from (".SH SEE ALSO", ".BR dropscribe.yaml (5)")


def _synopsis(arguments: list[Argument]) -> str:
    return " ".join(_usage_of(argument) for argument in arguments if "--help" not in argument.flags)


def _usage_of(argument: Argument) -> str:
    text = " ".join(part for part in ((argument.flags or ("",))[-1], argument.metavar) if part)
    text += "…" if argument.is_repeated else ""
    return f"[{text}]" if argument.is_optional else text


def _argument_lines(arguments: list[Argument]) -> Iterator[str]:
    told = [argument for argument in arguments if argument.words and "--help" not in argument.flags]
    if told:
        yield ".RS"
        for argument in told:
            head = " ".join(part for part in (", ".join(argument.flags), argument.metavar) if part)
            yield from (".TP", f".B {roff(head)}", roff(argument.words))
        yield ".RE"


def render_config_man(reference: str) -> str:
    """dropscribe.yaml(5), from the reference's Markdown."""
    head = [_title("DROPSCRIBE.YAML", 5), ".SH NAME", "dropscribe.yaml \\- dropscribe's config", ".SH FORMAT"]
    text = re.sub(r"<!--.*?-->", "", reference, flags=re.DOTALL)
    body = itertools.chain.from_iterable(map(_man_of_line, text.splitlines()[1:]))
    return "\n".join([*head, *body, ".SH SEE ALSO", ".BR dropscribe (1)"]) + "\n"


def _man_of_line(line: str) -> list[str]:
    if line.startswith("## "):
        return [f".SH {roff(line[3:])}"]
    if line.startswith("### "):
        return [f".SS {roff(line[4:])}"]
    if line.startswith(("| key ", "|---")):
        return []
    if line.startswith("|"):
        return _man_of_row([cell.strip() for cell in line.strip("|").split(" | ")])
    if line.startswith("- "):
        return [".IP \\(bu 2", _marked(line[2:])]
    return [_marked(line.strip())] if line.strip() else [".PP"]


def _man_of_row(cells: list[str]) -> list[str]:
    key, kind, default, words = (cell.strip("| ") for cell in (*cells, "", "", "")[:4])
    note = "; ".join(part for part in (kind, f"default {default}" if default else "") if part)
    note = note.replace("default **required**", "required")
    return [".TP", f".B {roff(key.strip('`'))}", _marked(words), ".br", _marked(f"({note})")]


def _marked(text: str) -> str:
    """Markdown's code and bold as bold."""
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", text)  # a link is its words
    parts = re.split(r"(`[^`]+`|\*\*[^*]+\*\*)", text)
    return "".join(
        f"\\fB{roff(part.strip('`*'))}\\fR" if part[:1] in {"`", "*"} else roff(part) for part in parts
    )


def roff(text: str) -> str:
    """*text* as roff prints it: nothing in it is a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


_NAMES = {"--folder": "folders", "--provider": "providers"}
"""Flags that take a name of the config, and the key of `status --json` that has these names."""

_BASH = """\
# bash completion for dropscribe; made by packaging/make_docs.py
_dropscribe_names() {{
    # The names under one key of `dropscribe status --json`, of the config that the line names, if any.
    local index config=() line inside=
    for ((index = 1; index < COMP_CWORD - 1; index++)); do
        case ${{COMP_WORDS[index]}} in -c|--config) config=(-c "${{COMP_WORDS[index+1]}}") ;; esac
    done
    dropscribe status --json "${{config[@]}}" 2>/dev/null | while IFS= read -r line; do
        case $line in
            "  \\"$1\\": {{"*) inside=yes ;;
            "  }}"*) inside= ;;
            '    "'*'": {{'*) [[ $inside ]] && {{ line=${{line#*\\"}}; printf '%s\\n' "${{line%%\\"*}}"; }} ;;
        esac
    done
}}
_dropscribe() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command= index
    COMPREPLY=()
    for ((index = 1; index < COMP_CWORD; index++)); do
        case ${{COMP_WORDS[index]}} in -*) ;; *) command=${{COMP_WORDS[index]}}; break ;; esac
    done
    case $before in
{values}
    esac
    case $command in
        '') COMPREPLY=($(compgen -W '{commands}' -- "$word")) ;;
{options}
    esac
}}
complete -o default -F _dropscribe dropscribe
"""


def render_bash(parser: argparse.ArgumentParser) -> str:
    """A completion for bash, which needs nothing of bash-completion."""
    commands = commands_of(parser)
    every = [argument for command in commands.values() for argument in arguments_of(command)]
    values = dict(_bash_values(every))
    return _BASH.format(
        commands=" ".join([*commands, *_flags(arguments_of(parser))]),
        values="\n".join(f"        {flags}) {action}; return ;;" for flags, action in values.items()),
        options="\n".join(
            f"        {name}) {_bash_options(arguments_of(c))} ;;" for name, c in commands.items()
        ),
    )


def _flags(arguments: list[Argument]) -> list[str]:
    return [flag for argument in arguments for flag in argument.flags]


def _bash_values(arguments: list[Argument]) -> Iterator[tuple[str, str]]:
    """What may stand behind a flag that takes something."""
    for argument in arguments:
        if not argument.flags or not argument.metavar:
            continue
        if kind := next((_NAMES[flag] for flag in argument.flags if flag in _NAMES), ""):
            yield (
                "|".join(argument.flags),
                f'COMPREPLY=($(compgen -W "$(_dropscribe_names {kind})" -- "$word"))',
            )
        elif argument.choices:
            yield (
                "|".join(argument.flags),
                f"COMPREPLY=($(compgen -W '{' '.join(argument.choices)}' -- \"$word\"))",
            )
        else:
            # An empty answer leaves it to readline, which knows how to write a file's name.
            yield "|".join(argument.flags), ":" if argument.metavar in _FILES else "compopt +o default"


def _bash_options(arguments: list[Argument]) -> str:
    flags = f"COMPREPLY=($(compgen -W '{' '.join(_flags(arguments))}' -- \"$word\"))"
    takes_files = any(not argument.flags for argument in arguments)
    if not takes_files:
        return f"compopt +o default; {flags}"
    return f"[[ $word != -* ]] || {flags}"


_ZSH = """\
#compdef dropscribe
# zsh completion for dropscribe; made by packaging/make_docs.py
_dropscribe_names() {{
    # The names under one key of `dropscribe status --json`.
    local -a config names
    local index=$words[(i)(-c|--config)]
    (( index < $#words )) && config=(-c "${{(Q)words[index+1]}}")
    names=(${{(f)"$(dropscribe status --json $config 2>/dev/null |
        sed -n "/^  \\"$1\\": {{/,/^  }}/s/^    \\"\\([^\\"]*\\)\\": {{.*/\\1/p")"}})
    compadd -a names
}}
_dropscribe() {{
    local -a commands
    commands=(
{commands}
    )
    if (( CURRENT == 2 )); then
        [[ $PREFIX == -* ]] && {{ compadd -- {flags}; return }}
        _describe command commands
        return
    fi
    case $words[2] in
{cases}
    esac
}}
_dropscribe "$@"
"""


def render_zsh(parser: argparse.ArgumentParser) -> str:
    """A completion for zsh, with the words of the help."""
    commands = commands_of(parser)
    return _ZSH.format(
        flags=" ".join(_flags(arguments_of(parser))),
        commands="\n".join(f"        '{name}:{_zsh(COMMANDS[name])}'" for name in commands),
        cases="\n".join(
            f"        {name}) {_zsh_arguments(arguments_of(c))} ;;" for name, c in commands.items()
        ),
    )


def _zsh_arguments(arguments: list[Argument]) -> str:
    specs = " ".join(f"'{spec}'" for argument in arguments for spec in _zsh_specs(argument))
    return f"shift words; (( CURRENT-- )); _arguments {specs}"


def _zsh_specs(argument: Argument) -> Iterator[str]:
    value = ""
    if argument.metavar:
        names = next((_NAMES[flag] for flag in argument.flags if flag in _NAMES), "")
        # With the space before it, _arguments calls it as it stands, without options of its own in between.
        action = f" _dropscribe_names {names}" if names else _FILES.get(argument.metavar.split("|")[0], "")
        action = f"({' '.join(argument.choices)})" if argument.choices else action
        value = f":{argument.metavar.split('|')[0]}:{action}"
    if not argument.flags:
        yield f"*{value}" if argument.is_repeated else value
    for flag in argument.flags:
        yield f"{flag}[{_zsh(argument.words)}]{value}"


def _zsh(words: str) -> str:
    """*words* inside single quotes, in a list of commands or options."""
    return words.replace("'", "'\\''").replace(":", "\\:").replace("[", "(").replace("]", ")")


def pages() -> dict[str, str]:
    """Path below ``share`` → content."""
    parser = build_parser()
    zsh = render_zsh(parser)
    return {
        "man/man1/dropscribe.1": render_man(parser),
        "man/man5/dropscribe.yaml.5": render_config_man(reference_text()),
        "bash-completion/completions/dropscribe": render_bash(parser),
        "zsh/site-functions/_dropscribe": zsh,
        "zsh/vendor-completions/_dropscribe": zsh,  # where Debian's zsh looks
    }


def main(arguments: list[str]) -> None:
    """Write every page below the folder that is named."""
    share = Path(arguments[0] if arguments else "build/share")
    for name, text in pages().items():
        path = share / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
