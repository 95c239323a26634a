"""Classifies failed answers: one table for all vendors, and a few rows for each.

Guarantees: decided by status and machine-readable signs (docs/design/providers.md), by wording only where a
vendor gives no code. A vendor's row with a sign wins over the common ones with a code, these over its row for
a status alone, and that over all other common ones. The rows of ``type: http`` are those of its config.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from dropscribe.core import errors
from dropscribe.providers import answers, values
from dropscribe.providers.redaction import Redactor
from dropscribe.providers.transport.http import Answer


class Kind(enum.Enum):
    """Kind of a failure, the file's, the rule's or the provider's: its error, and a flag of that."""

    TEMPORARY = errors.TemporaryFailure, ""
    SLOW_DOWN = errors.TemporaryFailure, "slows_provider"
    REJECTED = errors.AudioRejected, ""
    REJECTED_OR_RULE = errors.AudioRejected, "maybe_rule"
    RULE = errors.RuleRejected, ""
    UNUSABLE = errors.ProviderUnusable, ""
    AMBIGUOUS = errors.AmbiguousFailure, ""


Table = dict[tuple[int | None, str | None], Kind]  # Kinds by status and sign; None is any

ACCOUNT_CODES = (
    # OpenAI, https://platform.openai.com/docs/guides/error-codes, and Azure, which repeats them
    *("insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "account_deactivated"),
    *("invalid_api_key", "invalid_organization", "model_not_found", "credit_balance_exhausted"),
    *("organization_spend_limit_exceeded", "project_spend_limit_exceeded"),
    "organization_usage_limit_exceeded",
    # Groq, https://console.groq.com/docs/errors and /docs/deprecations
    *("organization_restricted", "model_decommissioned"),
    # LiteLLM, https://docs.litellm.ai/docs/exception_mapping
    "budget_exceeded",
    # ElevenLabs, https://elevenlabs.io/docs/resources/error-messages
    *("quota_exceeded", "detected_unusual_activity"),
    # Deepgram, https://developers.deepgram.com/docs/errors
    *("insufficient_credits", "asr_payment_required", "project_not_found"),
    # Stripe's word, which several vendors pass on
    "payment_required",
)
"""Codes of an account or a model that serves no file at all, under any status."""

ACCOUNT_WORDS = (
    "balance is negative",  # AssemblyAI, with a 400
    *("insufficient balance", "insufficient credit", "insufficient fund", "exceeded your current quota"),
    *("not enough credit", "out of credits", "account is suspended", "account has been suspended"),
    *("account is not active", "has been decommissioned"),
    # nginx and Go, https://nginx.org/en/docs/http/ngx_http_ssl_module.html#errors, about the url or a missing
    # certificate, with a 400 for every file
    *("plain http request was sent to https port", "http request to an https server"),
    *("no required ssl certificate was sent", "the ssl certificate error"),
)
"""The same in the words of vendors that give no code; looked for where the status says nothing better."""

_REMEDIES = {
    401: "check its key",
    402: "check its account's credit",
    403: "check what its key may do",
    404: "check its url and its model",
    407: "check the proxy's login",
}
_CREDIT_WORDS = re.compile("quota|credit|balance(?!r)|billing|payment", re.IGNORECASE)  # with any status
_WORDS_COUNT_IN = frozenset({400, 403, 422, 429, None})  # None: an error in a success

_STATUSES = {
    # From 405 on the way to the provider: a method, a proxy, a version, a precondition, a law.
    Kind.UNUSABLE: (401, 402, 403, 404, 405, 406, 407, 410, 411, 412, 417, 426, 428, 451),
    # 421 is a connection to another server, 424 a service behind the provider.
    Kind.TEMPORARY: (408, 409, 421, 423, 424, 425, 498, 499),
    Kind.SLOW_DOWN: (429, 503),
    Kind.REJECTED: (413, 415),
    Kind.RULE: (414, 431),  # parameters too long for a request
    # A gateway passed the request on and heard nothing: the server behind it may have done the work. 522 and
    # 524 are Cloudflare's, https://developers.cloudflare.com/support/troubleshooting/http-status-codes/;
    # 598 and 599 are other proxies'. 502, 521 and 523 say that the server was not reached.
    Kind.AMBIGUOUS: (504, 522, 524, 598, 599),
}

_COMMON: Table = {
    **{(None, code): Kind.UNUSABLE for code in ACCOUNT_CODES},
    **{(status, None): kind for kind, statuses in _STATUSES.items() for status in statuses},
    (400, answers.HAS_VALIDATION_ERRORS): Kind.RULE,
    (422, answers.HAS_DETAIL_LIST): Kind.RULE,
    (422, answers.HAS_VALIDATION_ERRORS): Kind.RULE,
}

_CLASS_KINDS = {3: Kind.UNUSABLE, 4: Kind.REJECTED_OR_RULE, 5: Kind.TEMPORARY}
_LONGEST_WAIT_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Classifier:
    """Turns answers into errors."""

    redactor: Redactor  # Makes reasons fit for logs
    table: Table  # The vendor's own rows. A sign of several words is looked for in the error's message.

    def error(self, answer: Answer) -> errors.ProviderError:
        """The error for *answer*, whose status is not 2xx."""
        said = answers.error_body(answer)
        kind, sign = self._kind(answer.status, said)
        if answer.status // 100 == 3:
            target = _redirect_target(answer.headers.get("location", ""))
            message = f"HTTP {answer.status} to {target}" if target else said.message
            return self._made(kind, "redirect", answer, message)
        code = said.code or (sign if ":" not in sign else "")
        return self._made(kind, code or f"http_{answer.status}", answer, said.message)

    def error_in_success(self, answer: Answer, parsed: values.Item) -> errors.ProviderError | None:
        """The error that a 2xx body holds in place of a transcript, or None."""
        status = values.text_of(parsed.get("status")).lower()
        is_later = status in {"processing", "queued", "pending", "in_progress"}
        is_failure = status in {"error", "failed", "failure"} or parsed.get("object") == "error"
        if not (is_later or is_failure or parsed.get("error")):
            return None
        said = answers.error_of(parsed)
        if is_later:
            words = f"it answered '{status}' in place of a transcript; params must not have a webhook"
            return self._made(Kind.RULE, "asynchronous", answer, said.message or words)
        return self.failed_job(answer, said, "error_in_success")

    def failure_in_success(self, answer: Answer, words: str) -> errors.ProviderError:
        """The error that a 2xx holds at the vendor's own place for one."""
        return self.failed_job(answer, answers.ErrorBody("error_in_success", (words.lower(),), words))

    def failed_job(
        self, answer: Answer, said: answers.ErrorBody, code: str = "job_failed"
    ) -> errors.ProviderError:
        """The error that an answer with status 200 holds, such as that of a job that failed at the vendor.

        *code* is for one without a code of its own.
        """
        if said.status is not None:  # a gateway may pass the error of another server on in a success
            kind, _ = self._kind(said.status, said)
        else:
            kind, _ = self._told_kind(None, said) or (Kind.REJECTED_OR_RULE, "")
        return self._made(kind, said.code or code, answer, said.message)

    def bad_answer(self, answer: Answer, reason: str) -> errors.ProviderError:
        """A 2xx that is no transcript and no error either: it may have been paid for.

        An HTML page comes from something in between (a login page, a proxy) or from the wrong address: no
        provider has seen the file.
        """
        if answers.is_html(answer):
            page = "an HTML page in place of an answer: check the url, the proxy and the network's login"
            return errors.TemporaryFailure("html_page", page, status=answer.status)
        return self._made(Kind.AMBIGUOUS, "bad_answer", answer, reason)

    def _kind(self, status: int, said: answers.ErrorBody) -> tuple[Kind, str]:
        """Kind of an error with *status*, and the sign that decided, or ""."""
        if found := self._told_kind(status, said):
            return found
        if kind := self.table.get((status, None)):
            return kind, ""
        if found := _by_sign(_COMMON, status, said):
            return found
        return _COMMON.get((status, None)) or _CLASS_KINDS.get(status // 100, Kind.AMBIGUOUS), ""

    def _told_kind(self, status: int | None, said: answers.ErrorBody) -> tuple[Kind, str] | None:
        """Kind by what the body says; *status* None: an error in a success."""
        text = said.message.lower()
        for (place, sign), kind in self.table.items():
            if place is None and sign and " " in sign and sign in text:
                return kind, ""
        own = _by_sign(self.table, status, said) or _by_sign(self.table, None, said)
        if found := own or _by_sign(_COMMON, None, said):
            return found
        is_account = status in _WORDS_COUNT_IN and any(words in text for words in ACCOUNT_WORDS)
        return (Kind.UNUSABLE, "") if is_account else None

    def _made(self, kind: Kind, code: str, answer: Answer, message: str) -> errors.ProviderError:
        make: type[errors.ProviderError]
        make, flag = kind.value
        facts: dict[str, Any] = {"status": answer.status, "request_id": answers.request_id_of(answer)}
        if flag:
            facts[flag] = True
        if make is errors.TemporaryFailure:
            facts["retry_after_seconds"] = retry_after_seconds(answer.headers, time.time())
        unsaid = "the provider gives no reason" if answer.status // 100 == 2 else f"HTTP {answer.status}"
        reason = message or unsaid
        if kind is Kind.UNUSABLE and answer.status in _REMEDIES:
            is_credit = _CREDIT_WORDS.search(f"{code} {message}") is not None
            reason += f" ({_REMEDIES[402 if is_credit else answer.status]})"
        return make(self.redactor.reason(code), self.redactor.reason(reason), **facts)


def _by_sign(table: Table, status: int | None, said: answers.ErrorBody) -> tuple[Kind, str] | None:
    return next(((kind, sign) for sign in said.signs if (kind := table.get((status, sign)))), None)


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
    told_ms, told, instant = map(
        values.number, map(headers.get, ("retry-after-ms", "retry-after", "x-ratelimit-reset"))
    )
    waits = (
        None if told_ms is None else told_ms / 1000,
        told,
        _until_date(headers.get("retry-after"), now),
        # Others send a duration under this name; only an instant ahead of us is one.
        None if instant is None or instant <= now else instant - now,
    )
    found = next((wait for wait in waits if wait is not None), None)
    return None if found is None else min(max(found, 0.0), _LONGEST_WAIT_SECONDS)


def _until_date(text: str | None, now: float) -> float | None:
    try:
        date = parsedate_to_datetime(text or "")
        # The old form of an HTTP date names no zone; all of them are in UTC (RFC 9110).
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None
