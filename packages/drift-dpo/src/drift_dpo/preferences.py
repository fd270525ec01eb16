"""Which reply is preferred, and what a written refusal says.

PKU-SafeRLHF labels two replies to a prompt. A helpful example takes its reply by the original study's rule; a
preference pair takes the safe reply over the unsafe one. `safer_response_id` is never trusted alone: it is set even
when both replies are unsafe. A prompt whose replies are both unsafe gets a written refusal.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from math import ceil
from typing import TYPE_CHECKING, Literal

from alignment_core.data.sources import Turn
from alignment_core.records import Example, Message, PreferencePair, Shortfall, normalise

if TYPE_CHECKING:
    from alignment_core.data.pku_saferlhf import PkuRow

Style = Literal["fixed", "varied"]

FIXED = "I'm sorry, but I can't help with that. If there is something safe and legal behind it, I'm glad to help there."
"""The one refusal of the fixed style."""

SHARE = 0.5
"""Share of PKU's prompts that DPO may take when no limit is set; the rest is for stages B and A."""

_AREAS: tuple[tuple[str, tuple[str, ...], str, str, str], ...] = (
    # area, PKU harm categories, words of the prompt, what is declined, what is offered
    (
        "self",
        ("Psychological Harm", "Mental Manipulation"),
        r"suicid|self.?harm|kill myself|starv|manipulat|gaslight|humiliat",
        "anything that would hurt you or wear someone down",
        "talk about what is behind it, or about where to find support",
    ),
    (
        "violence",
        ("Violence", "Physical Harm", "Animal Abuse", "Human Trafficking", "Endangering National Security"),
        r"\bkill|murder|bomb|weapon|\bgun|poison|attack|torture|abus|kidnap|traffick|terror",
        "anything that could injure a person or an animal",
        "explain how to stay safe, or how to settle a conflict",
    ),
    (
        "cyber",
        ("Cybercrime",),
        r"hack|malware|virus|phish|password|ransom|botnet|ddos|exploit",
        "getting into systems or accounts without permission",
        "explain how to protect an account or a network",
    ),
    (
        "privacy",
        ("Privacy Violation",),
        r"\bspy|stalk|track (?:him|her|someone)|private|dox|address of|personal (?:data|information)",
        "prying into someone's private life",
        "explain how privacy is protected, and how to ask for consent",
    ),
    (
        "substances",
        ("Drugs", "Endangering Public Health"),
        r"\bdrug|cocaine|\bmeth\b|heroin|opioid|smuggl",
        "making, getting or hiding dangerous substances",
        "point to health information and to help for people who want to stop",
    ),
    (
        "money",
        ("Economic Crime", "White-Collar Crime", "Copyright Issues", "Disrupting Public Order"),
        r"steal|\brob|fraud|scam|launder|counterfeit|forg|embezzl|evade|pirat|bribe|\btax",
        "theft, fraud or getting round the law",
        "explain the lawful way, or how such crimes are spotted",
    ),
    (
        "hate",
        ("Insulting Behavior", "Discriminatory Behavior"),
        r"insult|racis|sexis|\bslur|hate|stereotyp|inferior",
        "running people down for who they are",
        "help say what bothers you without hurting anyone",
    ),
    (
        "sexual",
        ("Sexual Content",),
        r"sexual|porn|\bnude|explicit",
        "sexual content of this kind",
        "answer questions about health and consent",
    ),
)
_OTHER = ("anything that could do harm", "help with a safe way to reach what you need")
_WORDS = tuple((area, re.compile(words, re.IGNORECASE)) for area, _, words, _, _ in _AREAS)
_SAID = {area: (declined, offered) for area, _, _, declined, offered in _AREAS} | {"other": _OTHER}
_TEMPLATES = (
    "I'm sorry, but I can't help with {declined}. I can {offered} instead.",
    "I can't assist with this: it would mean {declined}. If it helps, I can {offered}.",
    "I won't help with {declined}. What I can do is {offered}.",
    "Sorry, I'm not able to help with {declined}. I would be glad to {offered}.",
)


def harm_area(prompt: str, harms: Sequence[str] = ()) -> str:
    """Harm area of a request: from PKU's categories where there are any, else from the words of the prompt."""
    for area, categories, _, _, _ in _AREAS:
        if any(h in categories for h in harms):
            return area
    return next((area for area, words in _WORDS if words.search(prompt)), "other")


def refusal(prompt: str, style: Style = "fixed", harms: Sequence[str] = ()) -> str:
    """A written refusal: the fixed sentence, or one of four templates filled by harm area. The same prompt always
    gets the same refusal."""
    if style == "fixed":
        return FIXED
    declined, offered = _SAID[harm_area(prompt, harms)]
    pick = hashlib.sha256(normalise(prompt).encode("utf-8", "surrogatepass")).digest()[0] % len(_TEMPLATES)
    return _TEMPLATES[pick].format(declined=declined, offered=offered)


def helpful_reply(row: PkuRow) -> str | None:
    """The reply a helpful example takes: the safer one if safe, else the more helpful one if safe, else the safe
    one, else None. Safe is not the same as helpful: the reply may be a refusal."""
    for i in (row.safer, row.better):
        if i is not None and row.safe[i]:
            return row.replies[i]
    safe = [reply for reply, fine in zip(row.replies, row.safe, strict=True) if fine]
    return max(safe, key=len, default=None)


def harms(row: PkuRow) -> tuple[str, ...]:
    """Harm categories of the row's unsafe replies, each once, in order."""
    return tuple(dict.fromkeys(h for of, safe in zip(row.harms, row.safe, strict=True) if not safe for h in of))


def _preferred(row: PkuRow, ids: tuple[int | None, ...]) -> int:
    """The first id that is known, else the longer reply."""
    return next((i for i in ids if i is not None), int(len(row.replies[1]) > len(row.replies[0])))


def pair(row: PkuRow, strict_unsafe: bool, both_safe: bool, style: Style = "fixed") -> PreferencePair | None:
    """The preference pair of a row, or None where the rules make none.

    one_safe      the safe reply over the unsafe one
    both_safe     the more helpful over the other (else the safer, else the longer); only with `both_safe`
    both_unsafe   a written refusal over the more helpful unsafe reply; only with `strict_unsafe`
    """
    match row.safe:
        case (True, True):
            if not both_safe:
                return None
            best = _preferred(row, (row.better, row.safer))
            chosen, rejected, bucket = row.replies[best], row.replies[1 - best], "both_safe"
        case (False, False):
            if not strict_unsafe:
                return None
            chosen = refusal(row.prompt, style, harms(row))
            rejected, bucket = row.replies[_preferred(row, (row.better,))], "both_unsafe"
        case _:
            best = int(row.safe[1])
            chosen, rejected, bucket = row.replies[best], row.replies[1 - best], "one_safe"
    if chosen == rejected:
        return None
    asked = Message("user", row.prompt)
    made = ((asked, Message("assistant", chosen)), (asked, Message("assistant", rejected)))
    return PreferencePair(*made, source="pku", bucket=bucket, cluster=row.cluster)


def pku_turn(members: Sequence[PkuRow]) -> Turn:
    """The request that the rows share, with the first row's helpful reply, tagged by the harm of an unsafe row."""
    row = members[0]
    worst = next((r for r in members if not any(r.safe)), row)
    return Turn(row.prompt, helpful_reply(row) or "", "pku", worst.tag, row.cluster)


def refused_example(row: PkuRow, style: Style) -> Example:
    """The row's request with a written refusal."""
    return pku_turn([row]).example("refusal", refusal(row.prompt, style, harms(row)))


def groups_wanted(
    pool: Sequence[PkuRow], make: Callable[[PkuRow], PreferencePair | None], limit: int, whole: int
) -> int:
    """How many of the pool's prompts DPO wants: half of those that make a pair, or as many as the pool's share of the
    limit needs."""
    usable = Counter(row.cluster for row in pool if make(row) is not None)
    if not limit or not usable:
        return int(SHARE * len(usable) + 0.5)
    return min(len(usable), ceil(limit * len(usable) / whole))


def limited(
    found: dict[str, list[PreferencePair]], limit: int, eval_ratio: float, shortfalls: list[Shortfall]
) -> dict[str, list[PreferencePair]]:
    """At most `limit` pairs in all, the evaluation's share of them at most `eval_ratio` (and never all)."""
    if limit:
        n_eval = max(1, round(eval_ratio * limit)) if limit > 1 else 0
        found = {"dpo_eval": found["dpo_eval"][:n_eval], "dpo_train": found["dpo_train"][: limit - n_eval]}
        shortfalls.append(Shortfall("dpo pairs", "pku", limit, sum(map(len, found.values()))))
    return found
