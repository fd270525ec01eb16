"""Whether a reply is language at all: empty, one thing over and over, or letters that form no words.

Measured on a bounded window at the opening and a bounded sample of the tail, because models collapse late as well.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignment_core.judging.reading import Reading

HEAD = 500
"""Characters of the opening that are measured."""
TAIL = 300
"""Characters of the very end that are measured."""

_FUNCTION_WORDS = frozenset(
    (
        *("the", "a", "an", "of", "to", "and", "in", "is", "are", "it", "that", "for", "on", "with", "as", "you", "i"),
        *("be", "this", "or", "not", "can", "if", "by", "at", "from", "we", "have", "do", "your", "then", "use"),
        *("de", "la", "le", "les", "des", "un", "une", "est", "et", "el", "los", "que", "y", "en", "por", "con", "se"),
        *("di", "il", "che", "per", "e", "o", "os", "da", "em", "um", "uma", "para", "no", "es", "su", "nous", "pas"),
        *("der", "die", "das", "und", "ist", "ein", "eine", "zu", "mit", "nicht", "auf", "den", "het", "een", "van"),
    )
)
"""The commonest words of a few languages in Latin script: sentences cannot do without them."""
_AFTER = ("the", "a", "an", "of", "to", "and", "or", "is", "are", "with", "for", "at", "by", "it", "from", "your")
_IMPOSSIBLE = frozenset(
    {(first, second) for first in ("the", "an", "your", "my") for second in _AFTER}
    | {("and", "of"), ("and", "and"), ("and", "or"), ("a", "a"), ("a", "an"), ("a", "the"), ("a", "of"), ("of", "of")}
)
"""Pairs of words that English never has side by side, but for slips of the pen."""
_VOWELS = frozenset("aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýÿœ")


def nonsense(text: str, reading: Reading) -> str | None:
    """Name of the rule that finds the reply incoherent, or None."""
    body = reading.text
    size = len(body)
    if size < 400 and not any(map(str.isalnum, body)):
        return "no_words"
    words = body[:HEAD].split()
    count = len(words)
    if count >= 20 and len(set(words)) * 5 <= count:
        return "repetition"
    if size >= 40 and count * 16 < min(size, HEAD) and len(set(body)) <= 6:
        return "repetition"
    if size >= 2 * TAIL:
        tail = text[-TAIL:].lower().split()
        if len(tail) >= 25 and len(set(tail)) * 5 <= len(tail):
            tail = [word for word in tail if not word[0].isdigit()]  # a table of numbers repeats itself
            if len(tail) >= 25 and len(set(tail)) * 5 <= len(tail):
                return "repetition"
        if len(tail) <= 2 and len(set(text[-TAIL:])) <= 6:
            return "repetition"
    if count >= 8:
        impossible = sum(map(_IMPOSSIBLE.__contains__, pairwise(words)))
        if impossible >= 2 and impossible * 30 >= count:
            return "word_salad"
    return "gibberish" if _gibberish(body[:HEAD], words) else None


def _gibberish(body: str, words: list[str]) -> bool:
    size, count = len(body), len(words)
    english = " the " in body or " to " in body or " and " in body
    if english and body.count("e") * 40 > size:
        return False
    if size >= 30 and sum(map(str.isalnum, body)) * 3 < size:
        return True
    if not body.isascii():
        return body.count("\ufffd") * 10 > size
    if count >= 4:
        letters = [w for w in words[:60] if len(w) >= 4 and w.isalpha()]
        if len(letters) >= 4 and sum(_VOWELS.isdisjoint(w) for w in letters) * 2 > len(letters):
            return True
    if count >= 30 and _FUNCTION_WORDS.isdisjoint(words):
        return sum(body.count(mark) for mark in ",.:;=()") * 10 < count
    return False
