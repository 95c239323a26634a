"""``dropscribe check``: checks the config and every folder, and with --online each provider."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from dropscribe.cli import exit_codes
from dropscribe.cli.check_queue import ask_queue, check_queue, queue_rows
from dropscribe.cli.checking import (
    Findings,
    check_between,
    check_folder,
    check_listener,
    check_state_dir,
    warn_of_root,
)
from dropscribe.cli.messages import say
from dropscribe.cli.options import log_to_stderr
from dropscribe.cli.progress import showing_progress
from dropscribe.cli.unit_sandbox import unit_refusals
from dropscribe.config.errors import format_problem
from dropscribe.config.find import find_config
from dropscribe.config.load import load_config, locate_problems
from dropscribe.config.system_checks import system_problems
from dropscribe.core.errors import ConfigError, Problem, ProviderError
from dropscribe.core.text.printing import duration_words
from dropscribe.providers.build import build_provider
from dropscribe.reports.wording import bytes_words, render_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from dropscribe.config.model import Config, HttpConfig, ProviderConfig

CHECK_SCHEMA = "dropscribe.check/1"
ANSWER_SECONDS = 15.0
"""Limit for a provider's answer to a request without audio, if its ``timeout`` is not shorter."""


def execute(options: argparse.Namespace) -> int:
    """Print tables to standard output and problems to standard error; 74 if ``run`` could not start."""
    try:
        # Under systemd's ExecReload= a check has no credentials, so that only the daemon can check keys.
        keys_needed = options.online or "CREDENTIALS_DIRECTORY" not in os.environ
        path = find_config(options.config)
        config, problems = load_config(
            path, environ=os.environ, keys_needed=keys_needed, queue_needed=keys_needed
        )
    except ConfigError as error:
        if options.json:
            _write_json(_refused_document(error.problems))
            return exit_codes.CONFIG
        raise
    problems = (*problems, *locate_problems(system_problems(config), path, os.environ))
    findings = Findings()
    document = check_document(config, findings)
    if options.online:
        _ask_providers(config, document, findings)
        _ask_queue(config, document, findings)
    document |= _verdict(problems, findings)
    if options.json:
        _write_json(document)
    else:
        if not options.quiet:
            sys.stdout.write(render_check(config, document))
        _say_findings(problems, findings)
    if any(not problem.warning for problem in problems):
        return exit_codes.CONFIG
    return exit_codes.IO_ERROR if findings.errors else exit_codes.OK


def _write_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _refused_document(problems: Sequence[Problem]) -> dict[str, Any]:
    parts: dict[str, Any] = {"config": None, "state_dir": None, "queue": None, "folders": {}, "providers": {}}
    return {"schema": CHECK_SCHEMA, **parts, **_verdict(problems, Findings())}


def _verdict(problems: Sequence[Problem], findings: Findings) -> dict[str, Any]:
    return {
        "ok": not findings.errors and all(problem.warning for problem in problems),
        "errors": findings.errors,
        "warnings": findings.warnings,
        "problems": [_problem_object(problem) for problem in problems],
    }


def _problem_object(problem: Problem) -> dict[str, Any]:
    keys = ("file", "line", "column", "path", "message", "hint", "warning")
    return {key: getattr(problem, key) for key in keys}


def check_document(config: Config, findings: Findings) -> dict[str, Any]:
    """The object of ``check --json``, before the verdict; problems are added to *findings*."""
    state_dir = check_state_dir(config, findings)
    check_listener(config, findings)
    served = [rule for rule in config.folders.values() if config.queue is None or config.queue.serves(rule)]
    folders = {rule.name: check_folder(rule, findings) for rule in served}
    check_between([rule for rule in served if folders[rule.name]["inbox"]["readable"]], findings)
    warn_of_root(config, findings)
    findings.errors.extend(unit_refusals(config))
    return {
        "schema": CHECK_SCHEMA,
        "config": str(config.path),
        "state_dir": state_dir,
        "queue": check_queue(config, findings),
        "folders": folders,
        "providers": {name: _provider_object(provider) for name, provider in config.providers.items()},
    }


def _provider_object(provider: ProviderConfig) -> dict[str, Any]:
    """One provider of ``check --json``, with the origin of its key, never the key itself."""
    limits = ("concurrency", "requests_per_minute", "timeout_seconds", "max_upload_bytes")
    return {
        "type": provider.type,
        "url": provider.url and _without_query(provider.url),
        "key_from": provider.api_key.origin if provider.api_key else None,
        **{key: getattr(provider, key) for key in limits},
        "expressions": provider.answer and provider.answer.expressions(),
        "online": None,
        "answer": None,
    }


def _without_query(url: str) -> str:
    """*url* with an ellipsis for its query, which may hold a key."""
    place, mark, _ = url.partition("?")
    return f"{place}?…" if mark else url


def _ask_providers(config: Config, document: dict[str, Any], findings: Findings) -> None:
    log_to_stderr(config.providers.values())
    with showing_progress("asking the providers"):
        answers = asyncio.run(_probe_all(config.providers))
    for name, (answers_well, words) in answers.items():
        document["providers"][name] |= {"online": answers_well, "answer": words}
        if not answers_well:
            findings.errors.append(f"provider {name}: {words}")


def _ask_queue(config: Config, document: dict[str, Any], findings: Findings) -> None:
    if config.queue is None:
        return
    with showing_progress("asking the queue's server"):
        answers_well, words = ask_queue(config.queue)
    document["queue"] |= {"online": answers_well, "answer": words}
    if not answers_well:
        findings.errors.append(f"queue: {words}")


async def _probe_all(providers: Mapping[str, ProviderConfig]) -> dict[str, tuple[bool, str]]:
    answers = await asyncio.gather(*(_probe(provider) for provider in providers.values()))
    return dict(zip(providers, answers, strict=True))


async def _probe(config: ProviderConfig) -> tuple[bool, str]:
    provider = build_provider(config)
    seconds = (
        None if config.type == "local" else min(config.timeout_seconds or ANSWER_SECONDS, ANSWER_SECONDS)
    )
    limit = asyncio.timeout(seconds)  # none for a model on this machine: all its files are hashed
    try:
        async with limit:
            return True, await provider.probe()
    except TimeoutError:
        if not limit.expired():
            raise
        return False, f"the server did not answer within {seconds:g} s"
    except ProviderError as error:
        return False, error.reason if error.reason == error.code else f"{error.reason} ({error.code})"
    finally:
        await provider.close()


def _say_findings(problems: Sequence[Problem], findings: Findings) -> None:
    for problem in problems:
        say(format_problem(problem))
    for warning in findings.warnings:
        say(f"warning: {warning}")
    for error in findings.errors:
        say(f"error: {error}")


def render_check(config: Config, document: dict[str, Any]) -> str:
    """The tables: the config, the state directory, the folders, the providers."""
    state_dir = document["state_dir"]
    rows = [
        ["config", document["config"], "valid"],
        ["state_dir", state_dir["path"], _state_words(state_dir)],
    ]
    if document["queue"]:
        rows += queue_rows(document["queue"])
    if config.http:
        rows.append(["http", config.http.listen, _http_words(config.http)])
    tables = [render_table(["WHAT", "WHERE", "STATE"], rows)]
    if document["folders"]:
        tables.append(_folders_table(document["folders"]))
    if config.providers:
        tables.append(_providers_table(document["providers"]))
    described = {
        name: found for name, each in document["providers"].items() if (found := each["expressions"])
    }
    if described:
        tables.append(_expressions_table(described))
    return "\n\n".join(tables) + "\n"


def _http_words(http: HttpConfig) -> str:
    parts = ["pages"] if http.pages else []
    parts += ["uploads"] if http.pages and http.uploads else []
    return ", ".join([*parts, "metrics", "health and status"])


def _state_words(state_dir: dict[str, Any]) -> str:
    words = [
        "there" if state_dir["exists"] else "will be made",
        "writable" if state_dir["writable"] else "NOT writable",
        f"{state_dir['file_system']}, {bytes_words(state_dir['free_bytes'])} free",
    ]
    if state_dir["running"]:
        words.append("a daemon is running on it")
    return ", ".join(words)


def _folders_table(folders: dict[str, dict[str, dict[str, Any]]]) -> str:
    rows = []
    for name, parts in folders.items():
        rows.append([name, "inbox", parts["inbox"]["path"], _inbox_words(parts["inbox"])])
        rows += [["", part, parts[part]["path"], _target_words(parts[part])] for part in ("done", "failed")]
    return render_table(["FOLDER", "PART", "PATH", "STATE"], rows)


def _inbox_words(inbox: dict[str, Any]) -> str:
    if inbox["exists"] is None:
        return "does NOT answer"
    if not inbox["readable"]:
        return "may NOT be listed" if inbox["exists"] else "NOT there"
    writable = "writable" if inbox["writable"] else "NOT writable"
    watched = "watched natively" if inbox["watch"] == "native" else "polled"
    return f"readable, {writable}, {watched} on {inbox['file_system']}"


def _target_words(target: dict[str, Any]) -> str:
    if target["exists"] is None:
        return "does NOT answer"
    there = "there" if target["exists"] else "will be made"
    if not target["writable"]:
        return f"{there}, NOT writable" if target["exists"] else "NOT there, cannot be made"
    move = {True: "same mount: renamed", False: "another mount: copied", None: ""}[target["same_mount"]]
    return ", ".join(word for word in (there, "writable", move) if word)


def _providers_table(providers: dict[str, dict[str, Any]]) -> str:
    head = ["PROVIDER", "TYPE", "URL", "KEY FROM", "LIMITS"]
    is_asked = any(provider["online"] is not None for provider in providers.values())
    rows = [
        [
            name,
            provider["type"],
            provider["url"] or ("-" if provider["type"] == "local" else "the documented one"),
            provider["key_from"] or "-",
            _limit_words(provider),
            *([f"{'yes' if provider['online'] else 'NO'}: {provider['answer']}"] if is_asked else []),
        ]
        for name, provider in providers.items()
    ]
    return render_table([*head, "ONLINE"] if is_asked else head, rows)


def _limit_words(provider: dict[str, Any]) -> str:
    words = [f"{provider['concurrency']} at once"]
    if provider["requests_per_minute"]:
        words.append(f"{provider['requests_per_minute']:g} a minute")
    if provider["timeout_seconds"]:
        words.append(f"{duration_words(provider['timeout_seconds'])} to answer")
    if provider["max_upload_bytes"]:
        words.append(f"files up to {bytes_words(provider['max_upload_bytes'])}")
    return ", ".join(words)


def _expressions_table(expressions: Mapping[str, Mapping[str, str]]) -> str:
    """The expressions, by provider and field."""
    rows = [
        [name if number == 0 else "", field, text]
        for name, fields in expressions.items()
        for number, (field, text) in enumerate(fields.items())
    ]
    return render_table(["PROVIDER", "FIELD", "EXPRESSION"], rows)
