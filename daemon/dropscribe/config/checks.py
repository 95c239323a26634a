"""Checks across the keys of a config: names must exist, folders must not overlap.

Guarantees: bounded in time also if a folder's file system does not answer.
"""

from __future__ import annotations

import re
from itertools import product
from typing import TYPE_CHECKING

from dropscribe.config.disk_reads import real_paths
from dropscribe.config.sections.queue import check_queue
from dropscribe.core.links import why_no_links
from dropscribe.core.naming import as_glob
from dropscribe.core.rules import KNOWN_SUFFIXES, Taking, has_empty_class, has_open_bracket
from dropscribe.core.text.printing import did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    from dropscribe.config.document import Document
    from dropscribe.config.document import Path as KeyPath
    from dropscribe.config.model import Config, FolderRule


def check_config(config: Config, document: Document) -> None:
    """Report to *document* the contradictions between parts of *config*."""
    _check_sections(document)
    _check_provider_names(document)
    _check_waits(config, document)
    folders = {path for rule in config.folders.values() for path in rule.paths.values()}
    real = real_paths([*folders, config.state_dir])
    rules = list(config.folders.values())
    for number, rule in enumerate(rules):
        for other in rules[:number]:
            _check_inboxes(rule, other, real, document)
        _check_destinations(rule, rules, real, document)
        _check_purposes(rule, real, document)
        _check_patterns(rule, document)
        _check_state_dir(rule, config, real, document)
        _check_links(rule, config, document)
        _check_fallback(rule, document)
    _check_kernel_folders(config, real, document)
    _check_shared_defaults(rules, document)
    _check_durations(config, document)
    _check_budgets(config, document)
    check_queue(config, document)


def _is_inside(path: str, folder: str) -> bool:
    """Whether *path* is *folder* or below it; both are real paths, as text because all rules are compared."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _check_sections(document: Document) -> None:
    for name, remedy in (("providers", "write providers: {local: {type: local}}"), ("folders", "")):
        if not document.data.get(name) and not document.has_problem_below((name,)):
            message = "there is no provider" if name == "providers" else "no folder is watched"
            document.report((name,), message, remedy, on_key=True, warning=name == "folders")


def _check_provider_names(document: Document) -> None:
    """Report unknown providers by the names in the file: a provider with an invalid section is known."""
    known = document.data.get("providers") or {}
    folders = document.data.get("folders") or {}
    for rule, body in folders.items() if isinstance(folders, dict) and isinstance(known, dict) else ():
        written = body.get("provider") if isinstance(body, dict) else None
        path = ("folders", rule, "provider")
        names = enumerate(written) if isinstance(written, list) else [(None, written)]
        for index, name in names:
            here = path if index is None else (*path, index)
            if isinstance(name, str) and name and name not in known:
                message = f"no provider called {document.shown(here, name)}"
                document.report(here, message, did_you_mean(name, known))
            elif isinstance(written, list) and name in written[:index]:
                document.report(here, f"'{name}' is in the list already", "name each provider once")


def _check_waits(config: Config, document: Document) -> None:
    for section, waits in (("retry", config.retry), ("hold", config.hold)):
        if waits.first_seconds > waits.max_seconds:
            document.report(
                (section, "first"), "the first wait is longer than the longest one", f"see {section}.max"
            )


def _check_budgets(config: Config, document: Document) -> None:
    """Report budgets of money without a price; only the embedded engine may cost nothing."""
    for name, provider in config.providers.items():
        if provider.budget and provider.budget.is_money and provider.price_per_minute is None:
            _report_unpriced(("providers", name, "budget"), [name], document)
    for name, rule in config.folders.items():
        of_rule = [config.providers[each] for each in rule.providers if each in config.providers]
        unpriced = [each.name for each in of_rule if each.price_per_minute is None and each.type != "local"]
        if rule.budget and rule.budget.is_money and unpriced:
            _report_unpriced(("folders", name, "budget"), unpriced, document)


def _report_unpriced(path: tuple[str, ...], names: list[str], document: Document) -> None:
    message = f"a budget in money needs the price_per_minute of {', '.join(names)}"
    document.report(path, message, "or give it in minutes of audio: 600min", on_key=True)


def _check_fallback(rule: FolderRule, document: Document) -> None:
    if rule.fallback != "held" and len(rule.providers) < 2:
        message = "there is no second provider to fall back to"
        document.report(
            ("folders", rule.name, "fallback"), message, "write provider: [first, second]", warning=True
        )


def _check_inboxes(rule: FolderRule, other: FolderRule, real: dict[Path, str], document: Document) -> None:
    mine, its = real[rule.inbox], real[other.inbox]
    path = ("folders", rule.name, "inbox")
    line = document.line_of(("folders", other.name, "inbox"))
    if mine == its:
        document.report(
            path, f"is the inbox of '{other.name}' too", f"first on line {line}; one rule, one inbox"
        )
    elif (_is_inside(mine, its) and other.recursive) or (_is_inside(its, mine) and rule.recursive):
        outer = other.name if _is_inside(mine, its) else rule.name
        hint = f"set recursive: false for '{outer}', or move one of them"
        document.report(path, f"overlaps the inbox of '{other.name}' (line {line})", hint)


def _check_destinations(
    rule: FolderRule, rules: list[FolderRule], real: dict[Path, str], document: Document
) -> None:
    for key, folder in (("done", rule.done), ("failed", rule.failed)):
        path = ("folders", rule.name, key)
        for other in rules:
            inbox = real[other.inbox]
            if _is_inside(real[folder], inbox):
                message = f"{folder} lies inside the inbox of '{other.name}'"
                document.report(path, message, "it would be taken again; put it beside the inbox")
                break
            if _is_inside(inbox, real[folder]):
                message = f"the inbox of '{other.name}' lies inside {folder}"
                document.report(path, message, "a file filed there could be taken again", warning=True)


def _check_purposes(rule: FolderRule, real: dict[Path, str], document: Document) -> None:
    if real[rule.done] == real[rule.failed]:
        key = "failed" if document.line_of(("folders", rule.name, "failed")) else "done"
        message = "done and failed are one folder"
        document.report(("folders", rule.name, key), message, "give each a folder of its own")


_SAMPLE_STEMS = ("a", "A", "0", "call 1", "2026-01-01", "call-20260101-120000", "01")


def _check_patterns(rule: FolderRule, document: Document) -> None:
    """Patterns that can match no name, and a rule that takes nothing because of its own patterns."""
    for key, patterns in (("include", rule.include), ("exclude", rule.exclude)):
        if not document.line_of(("folders", rule.name, key)):
            continue
        for index, pattern in enumerate(patterns):
            path = _path_of_pattern(rule, key, index, document)
            why = _why_no_match(pattern)
            if why or (key == "include" and (why := _why_never_taken(pattern, rule))):
                document.report(path, f"'{pattern}' {why[0]}", why[1])
            elif has_open_bracket(pattern):
                message = f"'{pattern}' has a [ without ], which matches only that character"
                document.report(path, message, "write a range as [a-z], the character as [[]", warning=True)
    for key, message in (("exclude", "everything is excluded"), ("companions", "all recordings match it")):
        path = ("folders", rule.name, key)
        if not document.has_problem_below(path) and _takes_nothing(rule, key):
            document.report(path, f"{message}: no file would ever be taken", "narrow the patterns")
    if not document.has_problem_below(("folders", rule.name, "companions")):
        _check_companions(rule, document)


def _path_of_pattern(rule: FolderRule, key: str, index: int, document: Document) -> KeyPath:
    path: KeyPath = ("folders", rule.name, key)
    return (*path, index) if isinstance(document.data["folders"][rule.name][key], list) else path


def _check_companions(rule: FolderRule, document: Document) -> None:
    """Warn of a companion that is any recording with a suffix that *rule* takes."""
    taking = Taking(rule.include, rule.exclude, recursive=rule.recursive)
    for index, pattern in enumerate(rule.companions):
        glob = as_glob(pattern)
        if re.fullmatch(r"\*\.[^.]+", glob) and taking.takes(f"a{glob[1:]}".encode()):
            path = _path_of_pattern(rule, "companions", index, document)
            message = f"'{pattern}' makes each {glob} a companion: none of them is taken as a recording"
            document.report(path, message, "name the files that lie beside the recordings", warning=True)


_WRONG_PATTERNS = (
    (r"\{[^{}]*,[^{}]*\}", "has braces in it, which are not expanded", 'write a list: ["*.wav", "*.mp3"]'),
    (r"[,;|] ?\*\.", "is one pattern, not several", 'write a list: ["*.wav", "*.mp3"]'),
    (r"^/|//", "is an absolute path, and names are relative to the inbox", "leave out the inbox's own path"),
    (r"/$", "names a folder, and patterns match files", "add ** for all files in the folder"),
)
"""(expression, message, hint)"""


def _why_no_match(pattern: str) -> tuple[str, str] | None:
    """Reason why *pattern* can match no file, and its correction; None if it can match."""
    bare = pattern.lstrip(".").lower()
    if bare.encode() in KNOWN_SUFFIXES:
        return "matches only a file with that name", f'write "*.{bare}"'
    if has_empty_class(pattern):
        return "has a range of characters that runs backwards", "write it as [a-z]"
    found = ((message, hint) for wrong, message, hint in _WRONG_PATTERNS if re.search(wrong, pattern))
    return next(found, None)


def _why_never_taken(pattern: str, rule: FolderRule) -> tuple[str, str] | None:
    """The same for a pattern that matches only names that *rule* never takes; one sample name is tried."""
    sample = re.sub(r"[*?]+", "a", pattern.removeprefix("**/"))
    taking = Taking(("*", "**/*"), (), recursive=rule.recursive)
    reason = None if "[" in pattern else taking.reason_not_taken(sample.encode())
    return ("matches only names that are never taken", reason) if reason else None


def _takes_nothing(rule: FolderRule, key: str) -> bool:
    """Whether the patterns of *key* refuse every name that its include takes, tried on sample names."""
    if not getattr(rule, key):
        return False
    suffixes = [pattern[1:] for pattern in rule.include if re.fullmatch(r"\*\.[A-Za-z0-9]+", pattern)]
    names = [stem + suffix for stem, suffix in product(_SAMPLE_STEMS, suffixes or (".wav", ".mp3", ""))]
    reasons = [rule.taking.reason_not_taken(name.encode()) for name in names]
    return all(reason is not None and key in reason for reason in reasons)


def _check_state_dir(rule: FolderRule, config: Config, real: dict[Path, str], document: Document) -> None:
    if _is_inside(real[config.state_dir], real[rule.inbox]):
        message = f"{config.state_dir} lies inside the inbox of '{rule.name}'"
        document.report(("state_dir",), message, "put it beside the inbox")
    for key, folder in (("done", rule.done), ("failed", rule.failed)):
        if real[folder] == real[config.state_dir]:
            message = f"{folder} is the state directory too"
            document.report(("folders", rule.name, key), message, "give each a folder of its own")


def _check_kernel_folders(config: Config, real: dict[Path, str], document: Document) -> None:
    """Report folders in the file systems of the kernel, which hold no files of others."""
    places = [
        (("folders", rule.name, key), path)
        for rule in config.folders.values()
        for key, path in rule.paths.items()
    ]
    for key, path in [(("state_dir",), config.state_dir), *places]:
        if any(_is_inside(real[path], kernel) for kernel in ("/proc", "/sys")):
            document.report(key, f"{path} is in a file system that holds no files", "name a folder on a disk")


def _check_links(rule: FolderRule, config: Config, document: Document) -> None:
    path = ("folders", rule.name, "links")
    hosts = ("folders", rule.name, "link_hosts")
    if not rule.links:
        if rule.link_hosts:
            document.report(hosts, "has no effect without links: true", on_key=True, warning=True)
        return
    if not rule.link_hosts and not document.has_problem_below(hosts):
        document.report(path, "links needs link_hosts", "name the hosts whose links may be sent on")
    for name in rule.providers:
        provider = config.providers.get(name)
        params = rule.params_for(name)
        if provider and (why := why_no_links(provider.type, provider.url, params.get("model"))):
            document.report(path, f"links go to failed with provider '{name}': {why}", warning=True)


def _check_shared_defaults(rules: list[FolderRule], document: Document) -> None:
    for key in ("done", "failed"):
        users: dict[Path, str] = {}
        for rule in rules:
            if document.line_of(("folders", rule.name, key)):
                continue
            folder: Path = getattr(rule, key)
            first = users.setdefault(folder, rule.name)
            if first != rule.name:
                message = f"'{first}' and '{rule.name}' both file into {folder}, the default of each"
                document.report(
                    ("folders", rule.name, "inbox"), message, f"give each its own {key}:", warning=True
                )


def _check_durations(config: Config, document: Document) -> None:
    for name, provider in config.providers.items():
        users = [rule for rule in config.folders.values() if name in rule.providers]
        if provider.max_duration_seconds is not None and all(rule.prepare == "never" for rule in users):
            path = ("providers", name, "max_duration")
            hint = "set prepare: when_needed in the rule"
            document.report(path, "no rule cuts recordings for it", hint, on_key=True, warning=True)
