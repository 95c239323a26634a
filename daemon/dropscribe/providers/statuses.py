"""Classifies failed answers: one table for all vendors, and a few rows for each.

Guarantees: decided by status and machine-readable signs (docs/design/providers.md), by wording only where a
vendor gives no code. A row for a status and a sign wins over a sign alone, that over a status alone; a
vendor's row over the common one.
"""

from __future__ import annotations

import enum
import math
import time
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioRejected,
    ProviderError,
    ProviderUnusable,
    RuleRejected,
    TemporaryFailure,
)
from dropscribe.providers import values
from dropscribe.providers.answers import (
    HAS_DETAIL_LIST,
    HAS_VALIDATION_ERRORS,
    ErrorBody,
    error_body,
    error_of,
    is_html,
    parse_json,
    request_id_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dropscribe.providers.redaction import Redactor
    from dropscribe.providers.transport.http import Answer


class Kind(enum.Enum):
    """Kind of a failure: the file's, the rule's or the provider's."""

    TEMPORARY = enum.auto()
    SLOW_DOWN = enum.auto()  # temporary, and the whole provider must slow down
    REJECTED = enum.auto()
    REJECTED_OR_RULE = enum.auto()
    RULE = enum.auto()
    UNUSABLE = enum.auto()
    AMBIGUOUS = enum.auto()


Row = tuple[int | None, str | None]
Table = dict[Row, Kind]

ACCOUNT_CODES = (
    # OpenAI, https://platform.openai.com/docs/guides/error-codes, and Azure, which repeats them
    "insufficient_quota",
    "billing_not_active",
    "billing_hard_limit_reached",
    "account_deactivated",
    "invalid_api_key",
    "invalid_organization",
    "model_not_found",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    # Groq, https://console.groq.com/docs/errors and /docs/deprecations
    "organization_restricted",
    "model_decommissioned",
    # LiteLLM, https://docs.litellm.ai/docs/exception_mapping
    "budget_exceeded",
    # ElevenLabs, https://elevenlabs.io/docs/resources/error-messages
    "quota_exceeded",
    "detected_unusual_activity",
    # Deepgram, https://developers.deepgram.com/docs/errors
    "insufficient_credits",
    "asr_payment_required",
    "project_not_found",
    # Stripe's word, which several vendors pass on
    "payment_required",
)
"""Codes of an account or a model that serves no file at all, under any status."""

ACCOUNT_WORDS = (
    "balance is negative",  # AssemblyAI, with a 400
    "insufficient balance",
    "insufficient credit",
    "insufficient fund",
    "exceeded your current quota",
    "not enough credit",
    "out of credits",
    "account is suspended",
    "account has been suspended",
    "account is not active",
    "has been decommissioned",
)
"""The same in the words of vendors that give no code; looked for where the status says nothing better."""

_WORDS_COUNT_IN = frozenset({400, 403, 422, 429})

_COMMON: Table = {
    **{(None, code): Kind.UNUSABLE for code in ACCOUNT_CODES},
    (400, None): Kind.REJECTED_OR_RULE,
    (400, HAS_VALIDATION_ERRORS): Kind.RULE,
    (401, None): Kind.UNUSABLE,
    (402, None): Kind.UNUSABLE,
    (403, None): Kind.UNUSABLE,
    (404, None): Kind.UNUSABLE,
    # The way to the provider, not the file: a method, a proxy, a version, a precondition, a law.
    **{(status, None): Kind.UNUSABLE for status in (405, 406, 407, 410, 411, 412, 417, 426, 428, 451)},
    (408, None): Kind.TEMPORARY,
    (409, None): Kind.TEMPORARY,
    (413, None): Kind.REJECTED,
    (414, None): Kind.RULE,
    (431, None): Kind.RULE,  # as 414: parameters too long for a request
    (415, None): Kind.REJECTED,
    (422, HAS_DETAIL_LIST): Kind.RULE,
    (422, HAS_VALIDATION_ERRORS): Kind.RULE,
    # 421 is a connection to another server, 424 a service behind the provider.
    **{(status, None): Kind.TEMPORARY for status in (421, 423, 424, 425)},
    (429, None): Kind.SLOW_DOWN,
    (498, None): Kind.TEMPORARY,
    (499, None): Kind.TEMPORARY,
    (503, None): Kind.SLOW_DOWN,
    # A gateway passed the request on and heard nothing: the server behind it may have done the work. 522 and
    # 524 are Cloudflare's, https://developers.cloudflare.com/support/troubleshooting/http-status-codes/;
    # 598 and 599 are other proxies'. 502, 521 and 523 say that the server was not reached.
    **{(status, None): Kind.AMBIGUOUS for status in (504, 522, 524, 598, 599)},
}

_CLASS_KINDS = {3: Kind.UNUSABLE, 4: Kind.REJECTED_OR_RULE, 5: Kind.TEMPORARY}
_ERRORS: dict[Kind, Callable[..., ProviderError]] = {
    Kind.TEMPORARY: TemporaryFailure,
    Kind.SLOW_DOWN: TemporaryFailure,
    Kind.REJECTED: AudioRejected,
    Kind.REJECTED_OR_RULE: AudioRejected,
    Kind.RULE: RuleRejected,
    Kind.UNUSABLE: ProviderUnusable,
    Kind.AMBIGUOUS: AmbiguousFailure,
}
_LONGEST_WAIT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Classifier:
    """Turns answers into errors.

    Attributes:
        redactor: Makes reasons fit for logs.
        table: The vendor's own rows. A sign of several words is looked for in the error's message.
        clock: Unix seconds, for Retry-After as a date.
    """

    redactor: Redactor
    table: Mapping[Row, Kind] = field(default_factory=lambda: MappingProxyType({}))
    clock: Callable[[], float] = time.time

    def error(self, answer: Answer) -> ProviderError:
        """The error for *answer*, whose status is not 2xx."""
        said = error_body(answer)
        kind, sign = self._kind(answer.status, said)
        if answer.status // 100 == 3:
            target = _redirect_target(answer.headers.get("location", ""))
            message = f"HTTP {answer.status} to {target}" if target else said.message
            return self._made(kind, "redirect", answer, replace(said, message=message))
        code = sign if sign and ":" not in sign and not said.code else said.code
        return self._made(kind, code or f"http_{answer.status}", answer, said)

    def error_in_success(self, answer: Answer, parsed: Mapping[str, object]) -> ProviderError | None:
        """The error that a 2xx body holds in place of a transcript, or None."""
        status = values.text_of(parsed.get("status")).lower()
        if status in {"processing", "queued", "pending", "in_progress"}:
            said = error_of(parsed)
            words = f"it answered '{status}' in place of a transcript; params must not have a webhook"
            return self._made(Kind.RULE, "asynchronous", answer, replace(said, message=said.message or words))
        is_error = (
            parsed.get("error") or status in {"error", "failed", "failure"} or parsed.get("object") == "error"
        )
        if not is_error:
            return None
        said = error_of(parsed)
        kind = self._kind_of_signs(said)
        return self._made(kind or Kind.REJECTED_OR_RULE, said.code or "error_in_success", answer, said)

    def failure_in_success(self, answer: Answer, words: str) -> ProviderError:
        """The error that a 2xx holds at the vendor's own place for one."""
        kind = self._row(None, words.lower()) or self._kind_of_words(words)
        said = ErrorBody("error_in_success", (), words)
        return self._made(kind or Kind.REJECTED_OR_RULE, said.code, answer, said)

    def failed_job(self, answer: Answer, said: ErrorBody) -> ProviderError:
        """The error of a job that failed at the vendor, from an answer with status 200."""
        kind = self._kind_of_signs(said) or self._kind_of_words(said.message)
        return self._made(kind or Kind.REJECTED_OR_RULE, said.code or "job_failed", answer, said)

    def bad_answer(self, answer: Answer, reason: str) -> ProviderError:
        """A 2xx that is no transcript and no error either: it may have been paid for.

        An HTML page comes from something in between (a login page, a proxy) or from the wrong address: no
        provider has seen the file.
        """
        if is_html(answer):
            page = "an HTML page in place of an answer: check the url, the proxy and the network's login"
            return TemporaryFailure("html_page", page, status=answer.status)
        return AmbiguousFailure(
            "bad_answer", self.redactor.reason(reason), status=answer.status, request_id=request_id_of(answer)
        )

    def _kind(self, status: int, said: ErrorBody) -> tuple[Kind, str]:
        for place in (status, None):
            for sign in said.signs:
                if found := self._row(place, sign):
                    return found, sign
        if found := self._kind_of_words(said.message, with_common=status in _WORDS_COUNT_IN):
            return found, ""
        return self._row(status, None) or _CLASS_KINDS.get(status // 100, Kind.AMBIGUOUS), ""

    def _kind_of_signs(self, said: ErrorBody) -> Kind | None:
        return next((found for sign in said.signs if (found := self._row(None, sign))), None)

    def _kind_of_words(self, message: str, *, with_common: bool = True) -> Kind | None:
        """Kind by the vendor's rows with a sign of several words and, *with_common*, by ACCOUNT_WORDS."""
        text = message.lower()
        for (status, sign), kind in self.table.items():
            if status is None and sign and " " in sign and sign in text:
                return kind
        is_account = with_common and any(words in text for words in ACCOUNT_WORDS)
        return Kind.UNUSABLE if is_account else None

    def _row(self, status: int | None, sign: str | None) -> Kind | None:
        row = (status, sign)
        return self.table.get(row) or _COMMON.get(row)

    def _made(self, kind: Kind, code: str, answer: Answer, said: ErrorBody) -> ProviderError:
        make = partial(
            _ERRORS[kind],
            self.redactor.reason(code),
            self.redactor.reason(said.message or f"HTTP {answer.status}"),
            status=answer.status,
            request_id=_request_id(answer),
        )
        if kind in {Kind.TEMPORARY, Kind.SLOW_DOWN}:
            wait_seconds = retry_after_seconds(answer.headers, self.clock())
            return make(retry_after_seconds=wait_seconds, slows_provider=kind is Kind.SLOW_DOWN)
        return make(maybe_rule=True) if kind is Kind.REJECTED_OR_RULE else make()


def _redirect_target(location: str) -> str:
    """*location* without the parts that may be secret: login, query and fragment."""
    try:
        parts = urlsplit(location)
    except ValueError:
        return ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """Wait that the provider asks for, in seconds from *now*, at most an hour; None if it asks for none.

    ``retry-after-ms``, then ``Retry-After`` in seconds or as an HTTP date, then ``x-ratelimit-reset`` in
    Unix seconds (Pulse's own client reads these three).
    """
    waits = (
        _scaled(headers.get("retry-after-ms"), 0.001),
        _scaled(headers.get("retry-after"), 1.0),
        _until_date(headers.get("retry-after"), now),
        _until_instant(headers.get("x-ratelimit-reset"), now),
    )
    found = next((wait for wait in waits if wait is not None), None)
    return None if found is None else min(max(found, 0.0), _LONGEST_WAIT_SECONDS)


def _scaled(text: str | None, unit_seconds: float) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value * unit_seconds if math.isfinite(value) else None


def _until_date(text: str | None, now: float) -> float | None:
    try:
        return parsedate_to_datetime(text or "").timestamp() - now
    except (ValueError, OverflowError):
        return None


def _until_instant(text: str | None, now: float) -> float | None:
    instant = _scaled(text, 1.0)
    # Others send a duration under this name; only an instant ahead of us is one.
    return instant - now if instant is not None and instant > now else None


def _request_id(answer: Answer) -> str | None:
    try:
        return request_id_of(answer, parse_json(answer.body))
    except ValueError:
        return request_id_of(answer)
