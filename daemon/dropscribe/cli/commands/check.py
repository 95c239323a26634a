"""``dropscribe check``: checks the config and every folder, and with --online each provider."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterable
from typing import Any

from dropscribe.cli import exit_codes
from dropscribe.cli.checking import CHECK_SCHEMA, Findings, check_document
from dropscribe.cli.messages import say, showing_progress
from dropscribe.cli.options import log_to_stderr
from dropscribe.config.find import find_config
from dropscribe.config.load import load_config, locate_problems
from dropscribe.config.model import Config, ProviderConfig, QueueConfig
from dropscribe.config.system_checks import system_problems
from dropscribe.core.errors import ConfigError, ProviderError
from dropscribe.core.text.printing import duration_words
from dropscribe.providers.build import build_provider
from dropscribe.reports.wording import bytes_words, render_table

ANSWER_SECONDS = 15.0
"""Limit for a provider's answer to a request without audio, if its ``timeout`` is not shorter."""

_QUEUE_SECONDS = 10
_HAS_TABLES_OR_MAY_MAKE_THEM = """
    SELECT to_regclass('dropscribe.procrastinate_jobs') IS NOT NULL
        OR CASE WHEN to_regnamespace('dropscribe') IS NULL
            THEN has_database_privilege(current_database(), 'CREATE')
            ELSE has_schema_privilege('dropscribe', 'CREATE') END
"""


def execute(options: argparse.Namespace) -> int:
    """Print tables to standard output and problems to standard error; 74 if ``run`` could not start."""
    findings = Findings()
    document: dict[str, Any] = {"schema": CHECK_SCHEMA, **dict.fromkeys(("config", "state_dir", "queue"))}
    document |= {"folders": {}, "providers": {}}
    try:
        # Under systemd's ExecReload= a check has no credentials, so that only the daemon can check keys.
        keys_needed = options.online or "CREDENTIALS_DIRECTORY" not in os.environ
        path = find_config(options.config)
        config, problems = load_config(path, keys_needed=keys_needed, queue_needed=keys_needed)
    except ConfigError as error:
        if not options.json:
            raise
        problems = error.problems
    else:
        problems = (*problems, *locate_problems(system_problems(config), path))
        document = check_document(config, findings)
        if options.online:
            _ask_all(config, document, findings)
    is_valid = all(problem.warning for problem in problems)
    if options.json:
        keys = ("file", "line", "column", "path", "message", "hint", "warning")
        document |= {
            "ok": is_valid and not findings.errors,
            "errors": findings.errors,
            "warnings": findings.warnings,
            "problems": [{key: getattr(problem, key) for key in keys} for problem in problems],
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write("" if options.quiet else render_check(config, document, is_valid=is_valid))
        warnings = (f"warning: {found}" for found in findings.warnings)
        errors = (f"error: {found}" for found in findings.errors)
        for message in (*problems, *warnings, *errors):
            say(str(message))
    if not is_valid:
        return exit_codes.CONFIG
    return exit_codes.IO_ERROR if findings.errors else exit_codes.OK


def _ask_all(config: Config, document: dict[str, Any], findings: Findings) -> None:
    log_to_stderr(config.providers.values())
    with showing_progress("asking the providers"):
        answers = asyncio.run(_probe_all(config.providers.values()))
    parts = document["providers"].items()
    asked = [(f"provider {name}", part, answer) for (name, part), answer in zip(parts, answers, strict=True)]
    if config.queue is not None:
        with showing_progress("asking the queue's server"):
            asked.append(("queue", document["queue"], _ask_queue(config.queue)))
    for who, part, (answers_well, words) in asked:
        part |= {"online": answers_well, "answer": words}
        if not answers_well:
            findings.errors.append(f"{who}: {words}")


async def _probe_all(providers: Iterable[ProviderConfig]) -> list[tuple[bool, str]]:
    return await asyncio.gather(*map(_probe, providers))


async def _probe(config: ProviderConfig) -> tuple[bool, str]:
    provider = build_provider(config)
    seconds = min(config.timeout_seconds or ANSWER_SECONDS, ANSWER_SECONDS)
    # No limit for a model on this machine: all its files are hashed.
    limit = asyncio.timeout(None if config.type == "local" else seconds)
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


def _ask_queue(queue: QueueConfig) -> tuple[bool, str]:
    """Whether this node can log in to the server, with the server's version or libpq's error on one line."""
    import psycopg  # noqa: PLC0415 - the extra `cluster`, loaded only where it is asked for

    try:
        with psycopg.connect(queue.dsn.reveal(), connect_timeout=_QUEUE_SECONDS) as connection:
            version = connection.info.parameter_status("server_version")
            is_ready = connection.execute(_HAS_TABLES_OR_MAY_MAKE_THEM).fetchone() == (True,)
    except psycopg.Error as error:
        said = " ".join(str(error).split()) or type(error).__name__
        for secret in (queue.dsn, queue.password):  # libpq names host, port and user, which stay
            if secret is not None and secret.reveal():
                said = said.replace(secret.reveal(), str(secret))
        return False, os.fsencode(said).decode("utf-8", "replace")
    grant = "" if is_ready else ", where this user may create no tables: docs/cluster.md says what to grant"
    return is_ready, f"PostgreSQL {version}{grant}"


def render_check(config: Config, document: dict[str, Any], *, is_valid: bool) -> str:
    """The tables: the config, the state directory, the folders, the providers."""
    state_dir, folders, providers = document["state_dir"], document["folders"], document["providers"]
    rows = [
        ["config", document["config"], "valid" if is_valid else "NOT valid"],
        ["state_dir", state_dir["path"], _state_words(state_dir)],
        *(_queue_rows(document["queue"]) if document["queue"] else ()),
    ]
    if http := config.http:
        pages = _listed("pages" if http.pages else "", "uploads" if http.pages and http.uploads else "")
        rows.append(["http", http.listen, _listed(pages, "metrics, health and status")])
    expressions = [
        [name if number == 0 else "", field, text]
        for name, provider in providers.items()
        for number, (field, text) in enumerate((provider["expressions"] or {}).items())
    ]
    parts = []
    for name, part in folders.items():
        parts.append([name, "inbox", part["inbox"]["path"], _inbox_words(part["inbox"])])
        parts += [["", key, part[key]["path"], _target_words(part[key])] for key in ("done", "failed")]
    tables = [
        render_table(["WHAT", "WHERE", "STATE"], rows),
        render_table(["FOLDER", "PART", "PATH", "STATE"], parts) if folders else "",
        _providers_table(providers) if providers else "",
        render_table(["PROVIDER", "FIELD", "EXPRESSION"], expressions) if expressions else "",
    ]
    return "\n\n".join(filter(None, tables)) + "\n"


def _listed(*words: str) -> str:
    return ", ".join(filter(None, words))


def _queue_rows(queue: dict[str, Any]) -> list[list[str]]:
    words = f"role {queue['role']}, node {queue['node']}"
    if queue["online"] is not None:
        words += f"; {'answers' if queue['online'] else 'NO ANSWER'}: {queue['answer']}"
    return [
        ["queue", f"PostgreSQL, dsn from {queue['dsn_from']}", words],
        *(
            [f"root {name}", root["path"], "there" if root["exists"] else "NOT there"]
            for name, root in queue["roots"].items()
        ),
    ]


def _state_words(state_dir: dict[str, Any]) -> str:
    return _listed(
        "there" if state_dir["exists"] else "will be made",
        "writable" if state_dir["writable"] else "NOT writable",
        f"{state_dir['file_system']}, {bytes_words(state_dir['free_bytes'])} free",
        "a daemon is running on it" if state_dir["running"] else "",
    )


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
    return _listed(there, "writable", move)


def _providers_table(providers: dict[str, dict[str, Any]]) -> str:
    head = ["PROVIDER", "TYPE", "URL", "KEY FROM", "LIMITS"]
    rows = [
        [
            name,
            provider["type"],
            provider["url"] or ("-" if provider["type"] == "local" else "the documented one"),
            provider["key_from"] or "-",
            _limit_words(provider),
        ]
        for name, provider in providers.items()
    ]
    if any(provider["online"] is not None for provider in providers.values()):
        head.append("ONLINE")
        for row, provider in zip(rows, providers.values(), strict=True):
            row.append(f"{'yes' if provider['online'] else 'NO'}: {provider['answer']}")
    return render_table(head, rows)


def _limit_words(provider: dict[str, Any]) -> str:
    requests, seconds = provider["requests_per_minute"], provider["timeout_seconds"]
    most_bytes = provider["max_upload_bytes"]
    return _listed(
        f"{provider['concurrency']} at once",
        f"{requests:g} a minute" if requests else "",
        f"{duration_words(seconds)} to answer" if seconds else "",
        f"files up to {bytes_words(most_bytes)}" if most_bytes else "",
    )
