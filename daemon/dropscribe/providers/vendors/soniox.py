"""Soniox, async: a file in a form, a job on it, its transcript fetched (docs/design/providers.md)."""

from __future__ import annotations

from dropscribe.providers import values
from dropscribe.providers.answers import ErrorBody, error_of
from dropscribe.providers.jobs import JobVendor
from dropscribe.providers.statuses import Kind
from dropscribe.providers.words import segments_of
from dropscribe.transcripts.line_breaks import joined, pieces_of
from dropscribe.transcripts.model import Transcript, Word
from dropscribe.transcripts.paragraphs import SENTENCE_ENDS, split_runs

_MILLISECONDS = 0.001


class Soniox(JobVendor):
    """Soniox's API; see :class:`dropscribe.providers.jobs.JobVendor`."""

    type = "soniox"
    host = "https://api.soniox.com"
    upload_path = "/v1/files"
    audio_field = "file"
    file_name = ("id", "file_id")
    jobs_path = "/v1/transcriptions"
    result_path = "{jobs}/{id}/transcript"
    delete_upload_path = "/v1/files/{id}"  # the account has room for a limited number of files
    probe_path = "/v1/models"
    length_field = ("audio_duration_ms", _MILLISECONDS)
    errors = {(None, "internal_error"): Kind.TEMPORARY}

    def job_failure(self, polled: values.Item) -> ErrorBody:
        """The error's type and words."""
        return error_of({"message": polled.get("error_message"), "code": polled.get("error_type")})

    def transcript(self, parsed: values.Item, params: values.Params) -> Transcript:
        """Tokens are parts of words, or Chinese and Japanese characters. Times are milliseconds.

        With `translation` in the parameters there are tokens of the translation too, which were not spoken.
        """
        heard = values.objects(parsed.get("tokens"))
        tokens = [token for token in heard if token.get("translation_status") != "translation"]
        words = tuple(word for run in split_runs(tokens, _begins_word) if (word := _word(run)).word)
        text = values.told_text(parsed.get("text"), parts=words)
        return Transcript(
            # The vendor's own text has the translation between the spoken sentences.
            text if len(tokens) == len(heard) else "".join(map(_text, tokens)),
            language=values.language(
                *(token.get("language") for token in tokens[:1]),
                *values.elements(params.get("language_hints")),
            ),
            segments=segments_of(words),
            words=words,
        )


def _begins_word(run: list[values.Item], token: values.Item) -> bool:
    """Whether a word begins with *token*: after a space, at another speaker, and where Chinese may break."""
    text, before = _text(token), run[-1]
    is_new = text[:1].isspace() or token.get("speaker") != before.get("speaker")
    border = _text(before)[-1:] + text[:1]
    # A segment of its words gets spaces as joined() sets them: none is made within a sentence.
    has_no_space = joined((border[:1], border[1:])) == border or border.startswith(SENTENCE_ENDS)
    return is_new or (len(pieces_of(border)) > 1 and has_no_space)


def _word(tokens: list[values.Item]) -> Word:
    start, end = values.span(tokens[0].get("start_ms"), tokens[-1].get("end_ms"), _MILLISECONDS)
    confidence = values.mean(values.probability(token.get("confidence")) for token in tokens)
    text = "".join(map(_text, tokens)).strip()
    return Word(text, start, end, confidence, values.counted_speaker(tokens[0].get("speaker"), "1"))


def _text(token: values.Item) -> str:
    return values.text_of(token.get("text"))
