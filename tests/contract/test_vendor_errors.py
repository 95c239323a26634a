"""Every row of the vendors' error tables over a real socket."""

import pytest

from dropscribe.core.errors import (
    AmbiguousFailure,
    AudioRejected,
    ProviderError,
    ProviderUnusable,
    RuleRejected,
    TemporaryFailure,
)
from support.emulator import Fault

PULSE = [
    (
        400,
        {
            "errors": "Invalid file format. Supported formats: audio/*",
            "status": "error",
            "message": "Error handling audio data",
        },
        AudioRejected,
        "http_400",
        "Invalid file format. Supported formats: audio/*",
    ),
    (400, {"errors": "Audio data too large", "status": "error"}, AudioRejected, "http_400", "Audio data"),
    (
        400,
        {
            "status": "error",
            "error_code": "LANGUAGE_NOT_ENABLED_IN_REGION",
            "message": "no hi here",
            "language": "hi",
        },
        RuleRejected,
        "LANGUAGE_NOT_ENABLED_IN_REGION",
        "no hi here",
    ),
    (
        400,
        {"error": "Missing required query param: model.", "request_id": "r-1", "details": []},
        RuleRejected,
        "http_400",
        "Missing required",
    ),
    (401, {"message": "Unauthorized: No tokens provided"}, ProviderUnusable, "http_401", "Unauthorized"),
    (401, {"error": "unauthorized"}, ProviderUnusable, "http_401", "unauthorized (check its key)"),
    (
        401,
        {"error": "usage quota reached"},
        ProviderUnusable,
        "http_401",
        "usage quota reached (check its account's",
    ),
    (
        403,
        {"error": "trial credit used up"},
        ProviderUnusable,
        "http_403",
        "trial credit used up (check its account's",
    ),
    (
        403,
        {"error": "blocked by the load balancer"},
        ProviderUnusable,
        "http_403",
        "blocked by the load balancer (check what",
    ),
    (403, {"error": "plan does not include model"}, ProviderUnusable, "http_403", "plan"),
    (413, {"error": "File size exceeds 250MB.", "request_id": "r"}, AudioRejected, "http_413", "File size"),
    (429, {"error": "Rate limit exceeded."}, TemporaryFailure, "http_429", "Rate limit"),
    (500, {"error": "Internal server error"}, TemporaryFailure, "http_500", "Internal"),
    (500, {"error": {"code": "NoSuchKey"}}, TemporaryFailure, "NoSuchKey", "HTTP 500"),
    (400, {"code": "NoSuchKey", "message": "gone"}, TemporaryFailure, "NoSuchKey", "gone"),
    (400, {"errors": "NoSuchKey", "status": "error"}, TemporaryFailure, "nosuchkey", "NoSuchKey"),
    (404, {"error": "NoSuchKey: no such upload"}, TemporaryFailure, "nosuchkey", "NoSuchKey: no such upload"),
    (503, "", TemporaryFailure, "http_503", "HTTP 503"),
]
RESON8 = [
    (400, {"code": "INVALID_REQUEST"}, AudioRejected, "INVALID_REQUEST", "HTTP 400"),
    (401, {"code": "UNAUTHORIZED"}, ProviderUnusable, "UNAUTHORIZED", "HTTP 401"),
    (402, {"code": "PAYMENT_REQUIRED"}, ProviderUnusable, "PAYMENT_REQUIRED", "HTTP 402"),
    (404, {"code": "NOT_FOUND"}, RuleRejected, "NOT_FOUND", "HTTP 404"),
    (404, "File Not Found", ProviderUnusable, "http_404", "File Not Found"),
    (408, {"code": "TIMEOUT"}, TemporaryFailure, "TIMEOUT", "HTTP 408"),
    (413, {"code": "PAYLOAD_TOO_LARGE"}, AudioRejected, "PAYLOAD_TOO_LARGE", "HTTP 413"),
    (429, {"code": "TOO_MANY", "message": "slow"}, TemporaryFailure, "TOO_MANY", "slow"),
    (500, {"code": "INTERNAL_ERROR"}, TemporaryFailure, "INTERNAL_ERROR", "HTTP 500"),
    (503, {"code": "UNAVAILABLE"}, TemporaryFailure, "UNAVAILABLE", "HTTP 503"),
]


def _openai_error(message, code=None, kind="invalid_request_error", param=None):
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _deepgram(code, words):
    return {"err_code": code, "err_msg": words, "request_id": "dg-9"}


def _deepgram_category(code):
    return {"category": code, "message": "words", "details": "more", "request_id": "dg-9"}


def _azure(code, inner):
    return {"code": code, "message": "outer", "innerError": {"code": inner, "message": "inner"}}


def _elevenlabs(code):
    return {"detail": {"status": code, "message": "words"}}


FASTAPI = {"detail": [{"loc": ["body", "model"], "msg": "Field required", "type": "missing"}]}
OPENAI = [
    (400, _openai_error("Invalid file format."), AudioRejected, "http_400", "Invalid file format."),
    (400, _openai_error("bad file", param="file"), AudioRejected, "http_400", "bad file"),
    (400, _openai_error("1830.5 seconds is longer than 1400", "invalid_value"), AudioRejected,
     "invalid_value", "1830.5"),
    (400, _openai_error("no", "unsupported_value", param="response_format"), RuleRejected,
     "unsupported_value", "no"),
    (400, _openai_error("no", "invalid_value", param="chunking_strategy"), RuleRejected,
     "invalid_value", "no"),
    (401, _openai_error("bad", "invalid_api_key"), ProviderUnusable, "invalid_api_key", "bad"),
    (403, {"detail": "Invalid API key"}, ProviderUnusable, "http_403", "Invalid API key"),
    (404, _openai_error("no model", "model_not_found"), ProviderUnusable, "model_not_found", "no model"),
    (404, {"detail": "Model 'x' is not installed locally"}, ProviderUnusable, "http_404", "Model"),
    (404, "File Not Found", ProviderUnusable, "http_404", "File Not Found"),
    (408, "", TemporaryFailure, "http_408", "HTTP 408"),
    (409, "", TemporaryFailure, "http_409", "HTTP 409"),
    (413, _openai_error("413: too much", kind="server_error"), AudioRejected, "http_413", "413: too much"),
    (413, _openai_error("big", "request_too_large"), AudioRejected, "request_too_large", "big"),
    (415, {"detail": "Failed to decode audio."}, AudioRejected, "http_415", "Failed to decode"),
    (422, FASTAPI, RuleRejected, "http_422", "[{"),
    (422, _openai_error("hallucinations"), AudioRejected, "http_422", "hallucinations"),
    (424, _openai_error("dependency"), TemporaryFailure, "http_424", "dependency"),
    *((status, "", TemporaryFailure, f"http_{status}", "HTTP") for status in (421, 423, 425)),
    *((status, "", ProviderUnusable, f"http_{status}", "HTTP") for status in (405, 406, 417, 426, 428, 451)),
    *((status, "", RuleRejected, f"http_{status}", "HTTP") for status in (414, 431)),
    (498, _openai_error("flex", "capacity_exceeded"), TemporaryFailure, "capacity_exceeded", "flex"),
    (429, _openai_error("x", "rate_limit_exceeded", "rate_limit_error"), TemporaryFailure,
     "rate_limit_exceeded", "x"),
    (429, _openai_error("x", "slow_down", "rate_limit_error"), TemporaryFailure, "slow_down", "x"),
    (429, _openai_error("x", None, "insufficient_quota"), ProviderUnusable, "insufficient_quota", "x"),
    *(
        (429, _openai_error("x", code), ProviderUnusable, code, "x")
        for code in (
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_not_active",
            "billing_hard_limit_reached",
            "budget_exceeded",
        )
    ),
    *(
        (status, _openai_error("x", code), ProviderUnusable, code, "x")
        for status, code in (
            (400, "billing_hard_limit_reached"),
            (400, "budget_exceeded"),
            (400, "organization_restricted"),
            (400, "model_decommissioned"),
            (403, "account_deactivated"),
            (422, "insufficient_credits"),
        )
    ),
    (400, {"error": "insufficient_quota"}, ProviderUnusable, "insufficient_quota", "insufficient_quota"),
    (400, {"error": "Your balance is negative."}, ProviderUnusable, "http_400", "Your balance"),
    (422, {"detail": "Insufficient balance"}, ProviderUnusable, "http_422", "Insufficient"),
    *((status, "<html>", AmbiguousFailure, f"http_{status}", "an HTML page") for status in (504, 522, 524)),
    *((status, "<html>", TemporaryFailure, f"http_{status}", "an HTML page") for status in (502, 521, 523)),
    (500, {"error": {"code": 500, "message": "load", "type": ""}}, TemporaryFailure, "http_500", "load"),
    (500, {"error": "FFmpeg conversion failed."}, TemporaryFailure, "http_500", "FFmpeg"),
    (503, _openai_error("x", "server_is_overloaded"), TemporaryFailure, "server_is_overloaded", "x"),
    (520, "<html>", TemporaryFailure, "http_520", "an HTML page"),
    (413, "<TITLE lang=en>\n Too&nbsp;Large</TITLE>", AudioRejected, "http_413", "an HTML page: Too Large"),
    (400, "Invalid request", AudioRejected, "http_400", "Invalid request"),
    *(
        (400, f"<title>400 {words}</title>", ProviderUnusable, "http_400", f"an HTML page: 400 {words}")
        for words in ("The plain HTTP request was sent to HTTPS port", "No required SSL certificate was sent")
    ),
    (400, "Client sent an HTTP request to an HTTPS server.\n", ProviderUnusable, "http_400", "Client sent"),
]  # fmt: skip
DEEPGRAM = [
    (
        400,
        _deepgram("Bad Request", "failed to process audio"),
        AudioRejected,
        "http_400",
        "failed to process",
    ),
    (400, _deepgram("REMOTE_CONTENT_ERROR", "gone"), AudioRejected, "REMOTE_CONTENT_ERROR", "gone"),
    (
        400,
        _deepgram_category("INVALID_QUERY_PARAMETER"),
        RuleRejected,
        "INVALID_QUERY_PARAMETER",
        "words: more",
    ),
    (400, _deepgram_category("INVALID_JSON"), AudioRejected, "INVALID_JSON", "words: more"),
    (401, _deepgram("INVALID_AUTH", "no"), ProviderUnusable, "INVALID_AUTH", "no"),
    (402, _deepgram("ASR_PAYMENT_REQUIRED", "no"), ProviderUnusable, "ASR_PAYMENT_REQUIRED", "no"),
    (403, _deepgram("INSUFFICIENT_PERMISSIONS", "no"), ProviderUnusable, "INSUFFICIENT_PERMISSIONS", "no"),
    (429, _deepgram("TOO_MANY_REQUESTS", "slow"), TemporaryFailure, "TOO_MANY_REQUESTS", "slow"),
    (422, _deepgram("INCOMPLETE_UPLOAD", "cut"), TemporaryFailure, "INCOMPLETE_UPLOAD", "cut"),
    (422, _deepgram("INSUFFICIENT_CREDITS", "no"), ProviderUnusable, "INSUFFICIENT_CREDITS", "no"),
    (504, "", AmbiguousFailure, "http_504", "HTTP 504"),
]
ELEVENLABS = [
    (400, _elevenlabs("quota_exceeded"), ProviderUnusable, "quota_exceeded", "words"),
    (401, _elevenlabs("quota_exceeded"), ProviderUnusable, "quota_exceeded", "words (check its account's"),
    (401, _elevenlabs("invalid_api_key"), ProviderUnusable, "invalid_api_key", "words"),
    (400, _elevenlabs("invalid_api_key"), ProviderUnusable, "invalid_api_key", "words"),
    (429, _elevenlabs("too_many_concurrent_requests"), TemporaryFailure, "too_many_concurrent_requests", "w"),
    (429, _elevenlabs("system_busy"), TemporaryFailure, "system_busy", "words"),
    (422, FASTAPI, RuleRejected, "http_422", "[{"),
]
AZURE = [
    (400, {"error": {"code": "InvalidLocale", "message": "x"}}, RuleRejected, "InvalidLocale", "x"),
    (400, {"error": {"code": "InvalidRequest", "message": "x"}}, AudioRejected, "InvalidRequest", "x"),
    (400, _azure("InvalidRequest", "InvalidLocale"), RuleRejected, "InvalidLocale", "inner"),
    (400, _azure("InvalidRequest", "InvalidAudioFormat"), AudioRejected, "InvalidAudioFormat", "inner"),
    (400, {"error": _azure("InvalidRequest", "InvalidLocale")}, RuleRejected, "InvalidLocale", "inner"),
    (401, {"error": {"code": "401", "message": "denied"}}, ProviderUnusable, "401", "denied"),
    (429, {"error": {"code": "429", "message": "slow"}}, TemporaryFailure, "429", "slow"),
]
WHISPER_ASR = [
    (422, FASTAPI, RuleRejected, "http_422", "[{"),
    (500, "Internal Server Error", TemporaryFailure, "http_500", "Internal Server Error"),
]
BY_VENDOR = {
    "pulse": PULSE,
    "reson8": RESON8,
    "openai": OPENAI,
    "deepgram": DEEPGRAM,
    "elevenlabs": ELEVENLABS,
    "azure": AZURE,
    "whisper-asr": WHISPER_ASR,
}
ROWS = [(vendor, row) for vendor, rows in BY_VENDOR.items() for row in rows]


@pytest.mark.parametrize(("vendor", "row"), ROWS)
async def test_row(bench_of, vendor, row):
    """The documented error is of the documented kind, and keeps the vendor's code and words."""
    status, body, kind, code, reason = row
    bench = bench_of(vendor)
    bench.emulator.fail(Fault(status=status, body=body, headers={"x-request-id": "req-7"}))
    with pytest.raises(ProviderError) as caught:
        await bench.provider().transcribe(bench.audio(), {})
    error = caught.value
    assert type(error) is kind
    assert error.code == code
    assert error.reason.startswith(reason)
    assert error.request_id == (body.get("request_id", "req-7") if isinstance(body, dict) else "req-7")


@pytest.mark.parametrize(
    ("vendor", "status", "body", "maybe"),
    [
        ("pulse", 400, {"errors": "x"}, False),
        ("pulse", 400, {"error": "x"}, True),
        ("reson8", 400, {"code": "INVALID_REQUEST"}, True),
        ("reson8", 413, {"code": "PAYLOAD_TOO_LARGE"}, False),
        ("openai", 400, _openai_error("x"), True),
        ("openai", 400, _openai_error("x", param="file"), False),
        ("openai", 422, _openai_error("x"), True),
        ("openai", 415, "", False),
    ],
)
async def test_only_what_could_be_the_rule_says_so(bench_of, vendor, status, body, maybe):
    """A rejection that its code explains does not count towards holding the rule."""
    bench = bench_of(vendor)
    bench.emulator.fail(Fault(status=status, body=body))
    with pytest.raises(AudioRejected) as caught:
        await bench.provider().transcribe(bench.audio(), {})
    assert caught.value.maybe_rule is maybe


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"object": "error", "message": "x", "type": "BadRequestError", "code": 400}, AudioRejected),
        ({"object": "error", "message": "x", "type": "InternalServerError", "code": 500}, TemporaryFailure),
        ({"error": {"message": "x", "code": "429"}}, TemporaryFailure),
        ({"error": {"message": "x", "code": 401}}, ProviderUnusable),
        ({"error": "x", "status": 504}, AmbiguousFailure),
        ({"error": "x", "status_code": 503}, TemporaryFailure),
        ({"error": {"message": "x", "code": 400, "param": "language"}}, RuleRejected),
        ({"error": "x", "code": 7}, AudioRejected),
        ({"error": "x"}, AudioRejected),
    ],
)
async def test_an_error_in_a_success_has_the_kind_of_the_status_that_it_names(bench_of, body, kind):
    """A server that is overloaded and answers 200 is no fault of the file."""
    bench = bench_of("openai")
    bench.emulator.fail(Fault(body=body))
    with pytest.raises(ProviderError) as caught:
        await bench.provider().transcribe(bench.audio(), {})
    assert type(caught.value) is kind


async def test_a_probe_tells_of_a_page(bench_of):
    """A proxy may answer with a 400, as a provider refuses a request without audio."""
    bench = bench_of("pulse")
    page = "<html><head><title>400 {}</title></head></html>"
    for title in ("Request Header Or Cookie Too Large", "No required SSL certificate was sent"):
        bench.emulator.fail(Fault(status=400, body=page.format(title), headers={"Content-Type": "text/html"}))
    learned = await bench.provider().probe()
    assert learned.endswith("an HTML page: 400 Request Header Or Cookie Too Large")
    assert "takes the key" not in learned
    with pytest.raises(ProviderUnusable, match="an HTML page: 400 No required SSL certificate was sent"):
        await bench.provider().probe()


@pytest.mark.parametrize(
    ("vendor", "status", "body", "kind"),
    [
        ("elevenlabs", 400, _elevenlabs("invalid_api_key"), ProviderUnusable),
        ("elevenlabs", 422, {"detail": "Insufficient balance"}, ProviderUnusable),
        ("pulse", 401, "", ProviderUnusable),
        ("openai", 200, "<!DOCTYPE html><html>log in</html>", TemporaryFailure),
        ("whisper-asr", 200, "<html>log in</html>", TemporaryFailure),
    ],
)
async def test_a_probe_hears_a_refusal_in_every_form(bench_of, vendor, status, body, kind):
    """A 400 may be about the key in place of the missing audio; a login page is not of the provider."""
    bench = bench_of(vendor)
    bench.emulator.fail(Fault(status=status, body=body))
    with pytest.raises(kind):
        await bench.provider().probe()


@pytest.mark.parametrize(
    ("vendor", "params", "kind"),
    [
        ("pulse", {"nonsense": 1}, RuleRejected),
        ("reson8", {"nonsense": 1}, AudioRejected),
        ("reson8", {"custom_model_id": "unknown"}, RuleRejected),
        ("openai", {"nonsense": 1}, RuleRejected),
        ("elevenlabs", {"nonsense": 1}, RuleRejected),
        ("azure", {"locales": ["en"]}, RuleRejected),
        ("whisper-asr", {"nonsense": 1}, RuleRejected),
        ("openai", {"model": "gpt-4o-transcribe", "response_format": "verbose_json"}, RuleRejected),
    ],
)
async def test_a_rules_wrong_parameter(bench_of, vendor, params, kind):
    """A parameter that the vendor refuses is told from a bad file wherever its answer allows."""
    bench = bench_of(vendor)
    with pytest.raises(kind):
        await bench.provider().transcribe(bench.audio(), params)
