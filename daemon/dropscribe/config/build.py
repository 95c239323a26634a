"""FileKeys → Config: paths made absolute, keys fetched, parameters laid over one another.

Guarantees: whatever is wrong is reported to the document; the answer is whole only where no error was.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dropscribe.config import keys as k
from dropscribe.config import model as m
from dropscribe.config import service_keys
from dropscribe.config.credentials import find_api_key, find_secret
from dropscribe.config.notify import build_notify
from dropscribe.config.params import check_params, check_rule_params, params_to_send
from dropscribe.config.quantities import is_loopback, parse_listen
from dropscribe.config.queue import build_queue
from dropscribe.config.vocabulary import read_vocabulary
from dropscribe.core.limits import Budget

if TYPE_CHECKING:
    from dropscribe.config.credentials import Surroundings
    from dropscribe.config.yaml_document import Document
    from dropscribe.config.yaml_document import Path as KeyPath
    from dropscribe.core.params import ParamValue

OPENAI_UPLOAD_BYTES = 25 * 2**20 - 4096
"""25 MiB is the limit of the whole form (PROVIDERS.md §3.4); a file gets what the form leaves."""


def build_config(keys: k.FileKeys, document: Document, around: Surroundings, path: Path | None) -> m.Config:
    """Make the daemon's config of the file's keys."""
    providers = {
        name: _provider(name, provider, document, around) for name, provider in keys.providers.items()
    }
    folders = {name: _folder(name, rule, keys, document, around) for name, rule in keys.folders.items()}
    return m.Config(
        path=path,
        state_dir=_state_dir(keys.state_dir, around),
        providers=providers,
        folders=folders,
        retry=m.RetryConfig(
            first_seconds=keys.retry.first,
            max_seconds=keys.retry.max,
            give_up_after_seconds=keys.retry.give_up_after,
            max_ambiguous=keys.retry.max_ambiguous,
            max_crashes=keys.retry.max_crashes,
        ),
        hold=m.HoldConfig(first_seconds=keys.hold.first, max_seconds=keys.hold.max),
        shutdown_grace_seconds=keys.shutdown_grace,
        ledger_keep_seconds=keys.ledger_keep,
        history_keep_seconds=keys.history_keep,
        search=keys.search,
        time_zone=keys.time_zone,
        log=m.LogConfig(level=keys.log.level, format=keys.log.format),
        queue=build_queue(keys.queue, document, around) if keys.queue else None,
        http=_http(keys.http, document, around) if keys.http else None,
        metrics=m.MetricsConfig(file=around.absolute(keys.metrics.file)) if keys.metrics else None,
        heartbeat=m.HeartbeatConfig(url=keys.heartbeat.url, every_seconds=keys.heartbeat.every)
        if keys.heartbeat
        else None,
        hooks=_hooks(keys.hooks, around) if keys.hooks else None,
        notify=build_notify(keys.notify, document, around) if keys.notify else None,
    )


def has_local_engine() -> bool:
    """Whether the extra ``local`` is installed; nothing of it is loaded."""
    return importlib.util.find_spec("faster_whisper") is not None


def has_media() -> bool:
    """Whether what the extra ``media`` brings is installed; nothing of it is loaded."""
    return all(importlib.util.find_spec(name) is not None for name in ("av", "numpy"))


def _state_dir(written: str | None, around: Surroundings) -> Path:
    """CONTRACT.md §3: as written, systemd's, the system's, else the user's."""
    if written is not None:
        return around.absolute(written)
    given = around.environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    if around.folder == Path("/etc/dropscribe"):
        return Path("/var/lib/dropscribe")
    state_home = around.environ.get("XDG_STATE_HOME", "")
    home = Path(state_home) if state_home.startswith("/") else around.absolute("~/.local/state")
    return home / "dropscribe"


def _provider(name: str, keys: k.AnyProvider, document: Document, around: Surroundings) -> m.ProviderConfig:
    if isinstance(keys, k.LocalKeys):
        return _local_provider(name, keys, document, around)
    path = ("providers", name)
    api_key = find_api_key(keys, keys.type, path, document, around)
    if keys.url and keys.url.startswith("http:") and not is_loopback(urlsplit(keys.url).hostname or ""):
        document.report((*path, "url"), "key and audio travel unencrypted", "use https", warning=True)
    return m.ProviderConfig(
        name=name,
        type=keys.type,
        url=keys.url,
        api_key=api_key,
        concurrency=keys.concurrency,
        requests_per_minute=keys.requests_per_minute,
        timeout_seconds=keys.timeout,
        max_upload_bytes=_max_upload_bytes(keys),
        max_duration_seconds=keys.max_duration,
        price_per_minute=keys.price_per_minute,
        budget=_budget(keys.budget),
        params=_provider_params(keys, path, document),
        language=keys.language,
        vocabulary=read_vocabulary(keys, path, document, around),
        speakers=keys.speakers,
        preset=keys.preset if isinstance(keys, k.OpenAIKeys) else None,
        auth=keys.auth if isinstance(keys, k.Reson8Keys) else None,
    )


def _local_provider(
    name: str, keys: k.LocalKeys, document: Document, around: Surroundings
) -> m.ProviderConfig:
    path = ("providers", name)
    if not has_local_engine():
        hint = "pip install 'dropscribe[local]'"
        document.report((*path, "type"), "the embedded engine is not installed", hint)
    return m.ProviderConfig(
        name=name,
        type=keys.type,
        concurrency=keys.concurrency,
        requests_per_minute=keys.requests_per_minute,
        timeout_seconds=keys.timeout,
        max_upload_bytes=keys.max_upload,
        max_duration_seconds=keys.max_duration,
        price_per_minute=keys.price_per_minute,
        budget=_budget(keys.budget),
        params=_provider_params(keys, path, document),
        language=keys.language,
        vocabulary=read_vocabulary(keys, path, document, around),
        speakers=keys.speakers,
        device=keys.device,
        compute_type=keys.compute_type,
        model=_model(keys.model, around),
        cpu_threads=keys.cpu_threads,
        idle_unload_seconds=keys.idle_unload,
    )


def _budget(keys: k.BudgetKeys | None) -> Budget | None:
    return Budget(keys.per_day, keys.per_month) if keys and (keys.per_day or keys.per_month) else None


def _model(written: str, around: Surroundings) -> str:
    """A name stays a name ("small", "owner/name"); what begins like a path is one."""
    return str(around.absolute(written)) if written.startswith((".", "/", "~")) else written


def _provider_params(keys: k.AnyProvider, path: KeyPath, document: Document) -> dict[str, ParamValue]:
    written = check_params(keys.params, (*path, "params"), document)
    return params_to_send(keys.type, getattr(keys, "model", None), keys.default_params, written)


def _max_upload_bytes(keys: k.RemoteKeys) -> int | None:
    is_openai = isinstance(keys, k.OpenAIKeys) and (
        keys.url is None or urlsplit(keys.url).hostname == "api.openai.com"
    )
    if is_openai and "max_upload" not in keys.model_fields_set:
        return OPENAI_UPLOAD_BYTES
    return keys.max_upload


def _folder(
    name: str, rule: k.FolderKeys, keys: k.FileKeys, document: Document, around: Surroundings
) -> m.FolderRule:
    inbox = around.absolute(rule.inbox)
    _check_media(name, rule, document)
    return m.FolderRule(
        name=name,
        inbox=inbox,
        done=around.absolute(rule.done) if rule.done else inbox.parent / "done",
        failed=around.absolute(rule.failed) if rule.failed else inbox.parent / "failed",
        providers=rule.provider,
        params=_folder_params(name, rule, keys, document),
        include=rule.include,
        exclude=rule.exclude,
        recursive=rule.recursive,
        links=rule.links,
        link_hosts=rule.link_hosts,
        outputs=tuple(rule.outputs),
        prepare=rule.prepare,
        silence=rule.silence,
        silence_threshold_dbfs=rule.silence_threshold,
        channels=rule.channels,
        tracks=rule.tracks,
        template=around.absolute(rule.template) if rule.template else None,
        paragraphs=rule.paragraphs,
        subtitles=m.SubtitleLayout(
            line_characters=rule.subtitles.line,
            lines=rule.subtitles.lines,
            cue_seconds=rule.subtitles.seconds,
        ),
        speaker_names=rule.speaker_names,
        recorded_at=rule.recorded_at,
        companions=rule.companions,
        companions_wait_seconds=rule.companions_wait,
        language=rule.language,
        vocabulary=read_vocabulary(rule, ("folders", name), document, around),
        speakers=rule.speakers,
        sidecar_name=rule.sidecar_name,
        budget=_budget(rule.budget),
        backlog=rule.backlog,
        fallback=rule.fallback,
        duplicates=rule.duplicates,
        settle_seconds=None if rule.settle == "ignore_writers" else rule.settle,
        settle_ignores_writers=rule.settle == "ignore_writers",
        min_age_seconds=rule.min_age,
        settle_incomplete_seconds=rule.settle_incomplete,
        watch=rule.watch,
        rescan_seconds=rule.rescan,
    )


def _check_media(name: str, rule: k.FolderKeys, document: Document) -> None:
    """PyAV is looked for only where a rule asks for it."""
    plain_values = (("prepare", "never"), ("silence", "send"), ("channels", "mix"), ("tracks", "default"))
    for key, plain in plain_values:
        if getattr(rule, key) != plain and not has_media():
            hint = "pip install 'dropscribe[media]'"
            document.report(("folders", name, key), f"'{key}' needs PyAV, which is not installed", hint)


def _folder_params(
    name: str, rule: k.FolderKeys, keys: k.FileKeys, document: Document
) -> dict[str, dict[str, ParamValue]]:
    is_keyed = isinstance(document.data["folders"][name]["provider"], list)
    path = ("folders", name, "params")
    own = check_rule_params(rule.params, rule.provider, path, document, is_keyed=is_keyed)
    params = {}
    for provider in rule.provider:
        below = keys.providers.get(provider)
        if below is not None:
            layers = (below.default_params, below.params, own.get(provider, {}))
            params[provider] = params_to_send(below.type, getattr(below, "model", None), *layers)
    return params


def _http(keys: service_keys.HttpKeys, document: Document, around: Surroundings) -> m.HttpConfig:
    host, port, socket = parse_listen(keys.listen)
    token = find_secret(keys.token, keys.token_file, ("http", "token"), document, around)
    if (
        token is None
        and socket is None
        and not is_loopback(host)
        and not document.has_problem_below(("http",))
    ):
        hint = "add token_file: PATH, or listen on 127.0.0.1"
        document.report(("http", "listen"), f"without a token only this machine may ask, not {host}", hint)
    return m.HttpConfig(
        listen=keys.listen,
        host=host,
        port=port,
        socket=around.absolute(socket) if socket else None,
        token=token,
        pages=keys.pages,
        uploads=keys.uploads,
        allowed_hosts=keys.allowed_hosts,
        root_path=keys.root_path,
    )


def _hooks(keys: service_keys.HooksKeys, around: Surroundings) -> m.HooksConfig:
    def located(argv: tuple[str, ...]) -> tuple[str, ...]:
        """The program by its path from the config's folder, where it is a path and not a name."""
        return (str(around.absolute(argv[0])), *argv[1:]) if argv and "/" in argv[0] else argv

    return m.HooksConfig(
        on_done=located(keys.on_done),
        on_failed=located(keys.on_failed),
        on_held=located(keys.on_held),
        on_budget=located(keys.on_budget),
        timeout_seconds=keys.timeout,
        retry=keys.retry,
    )
