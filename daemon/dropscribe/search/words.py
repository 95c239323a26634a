"""Words as they are indexed and searched for: without case and accents. Pure.

The index holds folded words: a change of :func:`fold` needs another version of the index, and in a cluster
other tables.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache

from dropscribe.transcripts.paragraphs import split_runs

Phrase = tuple[str, ...]  # Words that follow each other
MOST_QUERY_WORDS = 16
LONGEST_WORD = 64

# Thai, Lao, Burmese, kana and Han letters: their words have no spaces, so each letter is a word.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"


_MARKS = frozenset({"Mn", "Mc"})  # Unicode's categories of signs that belong to the letter before them
_OF_VOWELS = frozenset({0, 103, 118})  # Combining classes of vowel signs: none, and those of Thai and Lao
# Marks without a sound: joiners, and selectors of a form.
_IGNORED_MARKS = frozenset(chr(code) for code in (0x34F, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)))
_BASE_LETTERS = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "\u0131": "i"}
    | {"æ": "ae", "œ": "oe", "þ": "th"}
)
"""Letters that have no decomposition in Unicode, as they are typed on keyboards without them."""

_QUERY_PART = re.compile(r'"([^"]*)"?|([^\s"]+)')


@cache
def _word() -> re.Pattern[str]:
    """One word; made at the first search, because it takes as long as a twentieth of the daemon's start."""
    # Accents, and the vowel signs of Indic scripts; the marks beyond only choose a form of a letter.
    codes = [code for code in range(0x300, 0x20000) if unicodedata.category(chr(code)) in _MARKS]
    runs = split_runs(codes, lambda run, code: code > run[-1] + 1)
    marks = "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in runs)
    letters = rf"[^\W_{_UNSPACED}]"
    return re.compile(rf"[{_UNSPACED}]|{letters}+(?:[{marks}]+{letters}*)*")


@lru_cache(maxsize=8192)
def fold(word: str) -> str:
    """*word* in letters, digits and vowel signs: without case and accents."""
    plain = unicodedata.normalize("NFKD", word).casefold().translate(_BASE_LETTERS)
    return "".join(sign for sign in plain if sign.isalnum() or _is_vowel_sign(sign))[:LONGEST_WORD]


def _is_vowel_sign(sign: str) -> bool:
    # Accents, and the vowel points of Arabic and Hebrew, which most texts leave out, have other classes.
    is_mark = unicodedata.category(sign) in _MARKS
    return is_mark and unicodedata.combining(sign) in _OF_VOWELS and sign not in _IGNORED_MARKS


def words_in(text: str) -> Iterator[tuple[str, int, int]]:
    """(folded word, its first letter, past its last letter) of *text*, which should be in NFC."""
    for match in _word().finditer(text):
        if folded := fold(match[0]):
            yield folded, match.start(), match.end()


def folded_words(text: str) -> list[str]:
    """The words of :func:`words_in`, without their places."""
    return [word for word, _, _ in words_in(text)]


def parse_query(query: str) -> list[Phrase]:
    """Words and quoted phrases of *query*; all other signs are ignored."""
    phrases: list[Phrase] = []
    left = MOST_QUERY_WORDS
    for match in _QUERY_PART.finditer(unicodedata.normalize("NFC", query)):
        phrase = tuple(folded_words(match[1] or match[2] or ""))[:left]
        if phrase and phrase not in phrases:
            phrases.append(phrase)
            left -= len(phrase)
    return phrases


def find_phrases(text: str, phrases: Sequence[Phrase]) -> dict[Phrase, list[tuple[int, int]]]:
    """Positions in *text* of each of *phrases* that it has: (first letter, past the last letter)."""
    found: dict[Phrase, list[tuple[int, int]]] = {}
    if not may_hold(text, phrases):
        return found
    words = list(words_in(text))
    for phrase in phrases:
        for first in range(len(words) - len(phrase) + 1):
            place = words[first : first + len(phrase)]
            if tuple(word for word, _, _ in place) == phrase:
                found.setdefault(phrase, []).append((place[0][1], place[-1][2]))
    return found


def may_hold(text: str, phrases: Sequence[Phrase]) -> bool:
    """False where *text* lacks the first words of all *phrases*: most passages, at a tenth of the cost."""
    return not text.isascii() or any(phrase[0] in text.lower() for phrase in phrases)
