"""Checks across the keys of a config: names must exist, folders must not overlap.

Guarantees: bounded in time also if a folder's file system does not answer.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePath

from dropscribe.config.disk_reads import real_paths
from dropscribe.config.document import Document, SectionPlace
from dropscribe.config.model import Config, FolderRule, ProviderConfig
from dropscribe.config.sections.provider import SHORTEST_PIECE_SECONDS
from dropscribe.config.sections.queue import check_queue
from dropscribe.core.budget import Budget
from dropscribe.core.links import why_no_links
from dropscribe.core.naming import OUTPUT_FORMATS, as_glob
from dropscribe.core.rules import KNOWN_SUFFIXES, FilePatterns, has_empty_class, has_open_bracket
from dropscribe.core.text.printing import did_you_mean

_LEAST_UPLOAD_BYTES = 1000


def check_config(config: Config, document: Document) -> None:
    """Report to *document* the contradictions between parts of *config*."""
    for name, message, remedy in (
        ("providers", "there is no provider", "write providers: {local: {type: local}}"),
        ("folders", "no folder is watched", ""),
    ):
        if not document.data.get(name) and not document.has_problem_below((name,)):
            document.report((name,), message, remedy, on_key=True, warning=name == "folders")
    _check_provider_names(document)
    for name, waits in (("retry", config.retry), ("hold", config.hold)):
        if waits.first_seconds > waits.max_seconds and not document.has_problem_below((name,)):
            message = "the first wait is longer than the longest one"
            document.report((name, "first"), message, f"see {name}.max")
    folders = {path for rule in config.folders.values() for path in rule.paths.values()}
    real = real_paths([*folders, config.state_dir])
    rules = [
        _RuleChecks(document, ("folders", rule.name), rule, config, real) for rule in config.folders.values()
    ]
    inboxes = _Inboxes()
    for checks in rules:
        inbox = real[checks.rule.inbox]
        for other in [*inboxes.at_or_above(inbox), *inboxes.below(inbox)]:
            checks.check_inbox(other)
        inboxes.add(inbox, checks)
    by_failed: dict[str, list[_RuleChecks]] = {}
    for checks in rules:
        by_failed.setdefault(real[checks.rule.failed], []).append(checks)
    for checks in rules:
        checks.check_all(inboxes, by_failed)
    _check_shared_defaults(rules)
    _check_providers(config, document)
    check_queue(config, document)


def _is_inside(path: str, folder: str) -> bool:
    """Whether *path* is *folder* or below it; both are real paths."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_below(path: str, folder: str) -> bool:
    return path != folder and _is_inside(path, folder)


def _check_provider_names(document: Document) -> None:
    """Report unknown providers by the names in the file: a provider with an invalid section is known."""
    known = document.data.get("providers") or {}
    folders = document.data.get("folders") or {}
    for rule, body in folders.items() if isinstance(folders, dict) and isinstance(known, dict) else ():
        written = body.get("provider") if isinstance(body, dict) else None
        names = written if isinstance(written, list) else [written]
        for index, name in enumerate(names):
            path = document.item_path(("folders", rule, "provider"), index)
            if isinstance(name, str) and name and name not in known:
                message = f"no provider called {document.shown(path, name)}"
                document.report(path, message, did_you_mean(name, known))
            elif name in names[:index]:
                document.report(path, f"'{name}' is in the list already", "name each provider once")


def _check_providers(config: Config, document: Document) -> None:
    """Report limits that no rule heeds or no recording keeps, and a budget of money without a price."""
    for name, provider in config.providers.items():
        place = SectionPlace(document, ("providers", name))
        users = [rule for rule in config.folders.values() if name in rule.providers]
        if provider.max_duration_seconds is not None and all(rule.prepare == "never" for rule in users):
            hint = "set prepare: when_needed in the rule"
            place.report("max_duration", "no rule cuts recordings for it", hint, on_key=True, warning=True)
        elif (provider.max_duration_seconds or math.inf) < SHORTEST_PIECE_SECONDS:
            message = f"is below {SHORTEST_PIECE_SECONDS:g} s, the shortest piece: longer files would fail"
            place.report("max_duration", message, "write such as 10m")
        if (provider.max_upload_bytes or math.inf) < _LEAST_UPLOAD_BYTES:
            message = "no recording is so small: all would fail unsent"
            place.report("max_upload", message, "write such as 25MB", warning=True)
        _check_budget(place, provider.budget, [provider])


def _check_budget(place: SectionPlace, budget: Budget | None, providers: list[ProviderConfig]) -> None:
    unpriced = ", ".join(each.name for each in providers if each.price_per_minute is None)
    if budget and budget.is_money and unpriced:
        message = f"a budget in money needs the price_per_minute of {unpriced}"
        place.report("budget", message, "or give it in minutes of audio: 600min", on_key=True)


def _check_shared_defaults(rules: list[_RuleChecks]) -> None:
    for key in ("done", "failed"):
        users: dict[Path, str] = {}
        for checks in [each for each in rules if not each.line_of(key)]:
            name, folder = checks.rule.name, checks.rule.paths[key]
            first = users.setdefault(folder, name)
            if first != name:
                message = f"'{first}' and '{name}' both file into {folder}, the default of each"
                checks.report("inbox", message, f"give each its own {key}:", warning=True)


class _Inboxes:
    """Rules by the real path of their inbox: no folder is compared with those of all rules."""

    def __init__(self) -> None:
        self._at: dict[str, list[_RuleChecks]] = {}
        self._below: dict[str, list[_RuleChecks]] = {}

    def add(self, inbox: str, checks: _RuleChecks) -> None:
        self._at.setdefault(inbox, []).append(checks)
        for above in _parents(inbox):
            self._below.setdefault(above, []).append(checks)

    def at_or_above(self, folder: str) -> list[_RuleChecks]:
        """The rules with *folder* in their inbox."""
        return [checks for place in (folder, *_parents(folder)) for checks in self._at.get(place, ())]

    def below(self, folder: str) -> list[_RuleChecks]:
        """The rules whose inbox is below *folder*."""
        return self._below.get(folder, [])


def _parents(path: str) -> list[str]:
    return [str(parent) for parent in PurePath(path).parents]


@dataclass(frozen=True, slots=True)
class _RuleChecks(SectionPlace):
    """The checks of one rule against the rest of the config."""

    rule: FolderRule
    config: Config
    real: dict[Path, str]  # the paths of all rules without links

    def check_all(self, inboxes: _Inboxes, by_failed: dict[str, list[_RuleChecks]]) -> None:
        """Report the problems of this rule, also with the inboxes and failed folders of all rules."""
        for key, folder in (("done", self.rule.done), ("failed", self.rule.failed)):
            self._check_destination(key, folder, inboxes)
        state_dir, inbox = self.real[self.config.state_dir], self.real[self.rule.inbox]
        if _is_inside(state_dir, inbox):
            message = f"{self.config.state_dir} lies inside the inbox of '{self.rule.name}'"
            self.document.report(("state_dir",), message, "put it beside the inbox")
        inside = [key for key, path in self.rule.paths.items() if _is_below(self.real[path], state_dir)]
        if inside:
            message = f"{', '.join(inside)}: inside the state directory {self.config.state_dir}"
            hint = "give state_dir a folder of its own, which is closed to all other users"
            self.report(inside[0], message, hint, warning=True)
        self._check_two_purposes(by_failed.get(self.real[self.rule.done], []))
        self._check_patterns()
        self._check_template()
        self._check_links()
        if self.rule.fallback != "held" and len(self.rule.providers) < 2:
            message = "there is no second provider to fall back to"
            self.report("fallback", message, "write provider: [first, second]", warning=True)
        if self.rule.duplicates == "skip" and not self.config.ledger_keep_seconds:
            message = "without stored answers (ledger_keep: 0) no duplicate is known"
            self.report("duplicates", message, "set ledger_keep: 90d", warning=True)
        known = self.config.providers
        # Only the embedded engine may cost nothing.
        paid = [known[name] for name in self.rule.providers if name in known and known[name].type != "local"]
        _check_budget(self, self.rule.budget, paid)

    def check_inbox(self, other: _RuleChecks) -> None:
        """Report an inbox that is, holds or lies in the one of an earlier rule."""
        rule, earlier = self.rule, other.rule
        mine, its = self.real[rule.inbox], self.real[earlier.inbox]
        line = other.line_of("inbox")
        if mine == its:
            hint = f"first on line {line}; one rule, one inbox"
            self.report("inbox", f"is the inbox of '{earlier.name}' too", hint)
        elif (_is_inside(mine, its) and earlier.recursive) or (_is_inside(its, mine) and rule.recursive):
            outer = earlier.name if _is_inside(mine, its) else rule.name
            hint = f"set recursive: false for '{outer}', or move one of them"
            self.report("inbox", f"overlaps the inbox of '{earlier.name}' (line {line})", hint)

    def _check_destination(self, key: str, folder: Path, inboxes: _Inboxes) -> None:
        if self.real[folder] == self.real[self.config.state_dir]:
            self.report(key, f"{folder} is the state directory too", "give each a folder of its own")
        for other in inboxes.at_or_above(self.real[folder])[:1]:
            message = f"{folder} lies inside the inbox of '{other.rule.name}'"
            self.report(key, message, "it would be taken again; put it beside the inbox")
        for other in inboxes.below(self.real[folder]):
            message = f"the inbox of '{other.rule.name}' lies inside {folder}"
            self.report(key, message, "a file filed there could be taken again", warning=True)

    def _check_two_purposes(self, others: list[_RuleChecks]) -> None:
        """Report the rules whose failed folder is this one's done folder."""
        for other in others:
            is_own = other is self
            key = "failed" if is_own and self.line_of("failed") else "done"
            of_other = f"is the failed folder of '{other.rule.name}' too"
            message = "done and failed are one folder" if is_own else of_other
            self.report(key, message, "give each a folder of its own")

    def _check_patterns(self) -> None:
        """Patterns that can match no name, and a rule that takes nothing because of its own patterns."""
        for key, patterns in (("include", self.rule.include), ("exclude", self.rule.exclude)):
            if not self.line_of(key):
                continue
            for index, pattern in enumerate(patterns):
                why = _why_no_match(pattern)
                if why or (key == "include" and (why := _why_never_taken(pattern, self.rule))):
                    self._report_pattern(key, index, f"'{pattern}' {why[0]}", why[1])
                elif has_open_bracket(pattern):
                    message = f"'{pattern}' has a [ without ], which matches only that character"
                    hint = "write a range as [a-z], the character as [[]"
                    self._report_pattern(key, index, message, hint, warning=True)
        reasons = {"exclude": "everything is excluded", "companions": "all recordings match it"}
        for key, message in reasons.items():
            if not self.has_problem_in(key) and _takes_nothing(self.rule, key):
                self.report(key, f"{message}: no file would ever be taken", "narrow the patterns")
        if not self.has_problem_in("companions"):
            self._check_companions()

    def _report_pattern(
        self, key: str, index: int, message: str, hint: str, *, warning: bool = False
    ) -> None:
        path = self.document.item_path((*self.path, key), index)
        self.document.report(path, message, hint, warning=warning)

    def _check_template(self) -> None:
        """Report a template that would give two files of one recording the same name."""
        if self.rule.template is None:
            return
        from dropscribe.config.sections.templates import template_output  # noqa: PLC0415 - rarely needed

        output = template_output(self.rule.template).lower()
        if output in {*OUTPUT_FORMATS, "error.json"} or not output.strip("."):
            message = f"{self.rule.template.name} would give the name of another output"
            self.report("template", message, "name it such as minutes.txt.j2")

    def _check_companions(self) -> None:
        """Warn of a companion that is any recording with a suffix that the rule takes."""
        patterns = FilePatterns(self.rule.include, self.rule.exclude, recursive=self.rule.recursive)
        for index, pattern in enumerate(self.rule.companions):
            glob = as_glob(pattern)
            if re.fullmatch(r"\*\.[^.]+", glob) and patterns.takes(f"a{glob[1:]}".encode()):
                message = f"'{pattern}' makes each {glob} a companion: none of them is taken as a recording"
                hint = "name the files that lie beside the recordings"
                self._report_pattern("companions", index, message, hint, warning=True)

    def _check_links(self) -> None:
        rule = self.rule
        if not rule.links:
            if rule.link_hosts:
                self.report("link_hosts", "has no effect without links: true", on_key=True, warning=True)
            return
        if not rule.link_hosts and not self.has_problem_in("link_hosts"):
            self.report("links", "links needs link_hosts", "name the hosts whose links may be sent on")
        for name in rule.providers:
            provider = self.config.providers.get(name)
            model = rule.params_for(name).get("model")
            if provider and (why := why_no_links(provider.type, provider.url, model)):
                message = f"links go to failed with provider '{name}': {why}"
                self.report("links", message, warning=True)


_SAMPLE_STEMS = ("a", "A", "0", "call 1", "2026-01-01", "call-20260101-120000", "01")
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
    patterns = FilePatterns(("*", "**/*"), (), recursive=rule.recursive)
    reason = None if "[" in pattern else patterns.reason_not_taken(sample.encode())
    return ("matches only names that are never taken", reason) if reason else None


def _takes_nothing(rule: FolderRule, key: str) -> bool:
    """Whether the patterns of *key* refuse every name that its include takes, tried on sample names."""
    if not getattr(rule, key):
        return False
    suffixes = [pattern[1:] for pattern in rule.include if re.fullmatch(r"\*\.[A-Za-z0-9]+", pattern)]
    names = [stem + suffix for stem, suffix in product(_SAMPLE_STEMS, suffixes or (".wav", ".mp3", ""))]
    reasons = [rule.patterns.reason_not_taken(name.encode()) for name in names]
    return all(reason is not None and key in reason for reason in reasons)
