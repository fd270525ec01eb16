"""The replies behind the figures: paired by prompt across states, prompts that flipped first, evidence marked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from alignment_core import io
from alignment_core.evaluation.files import VERDICTS
from alignment_core.evaluation.state import StateFiles, texts
from alignment_core.records import KINDS, LABELS, Completion, Kind, Verdict
from alignment_core.report.spec import ReportSpec

FILTERS = ("flips", *LABELS, "missing", "no-reply")
"""What the replies can be narrowed to, beside all of them."""
LONGEST = 4000
"""Characters of one reply on the page."""
Judged = tuple[list[Completion], list[Verdict]]
"""Completions, and every judge's verdicts on them."""


@dataclass(frozen=True)
class Replies:
    """What the page shows: for each kind its prompts, each with the states' replies and their verdicts."""

    subjects: tuple[str, ...]
    seed: int | None
    """The training seed whose replies are shown; None where there are no seeds."""
    judges: tuple[str, ...]
    """The first decides."""
    prompts: dict[Kind, list[list[Completion]]]
    left_out: dict[Kind, int]
    counts: dict[Kind, tuple[int, int]]
    """Prompts, and the replies of one state to them."""
    verdicts: dict[tuple[str, str, int, str], Verdict]
    """By prompt, subject, candidate and judge."""

    def verdict(self, c: Completion, judge: str = "") -> Verdict | None:
        """One judge's verdict, by default the deciding one's; None where that judge was not asked."""
        name = judge or next(iter(self.judges), "")
        return self.verdicts.get((c.prompt_id, c.subject, c.candidate, name))

    def others(self, c: Completion) -> Iterator[Verdict]:
        """The verdicts of the judges that do not decide."""
        found = (self.verdict(c, judge) for judge in self.judges[1:])
        return (v for v in found if v is not None)

    def label(self, c: Completion) -> str:
        """The deciding judge's label; `missing` where there is none, `no-reply` where there is nothing to judge."""
        found = self.verdict(c)
        return "no-reply" if c.failure else "missing" if found is None or found.label is None else found.label

    def flipped(self, group: Sequence[Completion]) -> bool:
        """Whether the states' labels differ on this prompt; a missing verdict is no label."""
        return len({self.label(c) for c in group} - {"missing", "no-reply"}) > 1

    def flips(self, kind: Kind) -> int:
        """How many of the kind's prompts flipped."""
        return sum(map(self.flipped, self.prompts[kind]))

    def has(self, group: Sequence[Completion]) -> list[str]:
        """By what a prompt is found with the page's filters: the labels among its replies, and whether they differ."""
        return sorted({self.label(c) for c in group} | ({"flips"} if self.flipped(group) else set()))

    def found(self) -> dict[str, int]:
        """How many prompts there are, under `any`, and with each filter."""
        groups = [group for kind in KINDS for group in self.prompts[kind]]
        has = [self.has(group) for group in groups]
        return {"any": len(groups)} | {f: sum(f in h for h in has) for f in FILTERS}

    def question(self, group: Sequence[Completion]) -> str:
        """The prompt's text."""
        return cut(group[0].prompt)

    def parts(self, c: Completion) -> tuple[str, str, str]:
        """The reply's text before, within and after the words that decided the verdict."""
        found = self.verdict(c)
        return cut_around(c.text, found.evidence if found is not None else None)


def of_state(files: StateFiles) -> Judged:
    """A state's completions and verdicts, under the state's own subject and seed."""
    subject, seed = files.subject, files.seed
    verdicts = io.read_jsonl(files.judged / VERDICTS, Verdict.from_json)
    return (
        [replace(c, subject=subject, seed=seed) for c in texts(files)],
        [replace(v, subject=subject, seed=seed) for v in verdicts],
    )


def of_run(states: Iterable[StateFiles], seed: int | None) -> Judged:
    """The same of the states that stand for themselves: of each subject those of `seed`, else of its first seed."""
    chosen: dict[str, StateFiles] = {}
    for one in (s for s in states if not s.at):
        if one.subject not in chosen or one.seed == seed:
            chosen[one.subject] = one
    found = [of_state(one) for one in chosen.values()]
    return [c for completions, _ in found for c in completions], [v for _, verdicts in found for v in verdicts]


def gather(
    completions: Iterable[Completion],
    verdicts: Iterable[Verdict],
    spec: ReportSpec,
    *,
    seed: int | None = None,
    limit: int = 250,
) -> Replies:
    """Pair the replies of one seed by prompt; a state that has no replies of that seed shows its first ones.

    At most `limit` prompts of a kind, those whose label differs between states first. The judges keep the order in
    which they appear; the first one's labels decide what flipped.
    """
    given = list(completions)
    seeds: dict[str, int | None] = {}
    for c in given:
        if c.seed == seed or c.subject not in seeds:
            seeds[c.subject] = c.seed
    kept = [c for c in given if c.seed == seeds[c.subject]]
    order = {s.key: i for i, s in enumerate(spec.subjects)}
    subjects = sorted({c.subject for c in kept}, key=lambda s: (order.get(s, len(order)), s))
    found = {(v.prompt_id, v.subject, v.candidate, v.judge): v for v in verdicts if v.seed == seeds.get(v.subject)}
    judges = tuple(dict.fromkeys(judge for *_, judge in found))
    out = Replies(tuple(subjects), seed, judges, {}, {}, {}, found)
    for kind in KINDS:
        mine = [c for c in kept if c.kind == kind]
        grouped: dict[str, list[Completion]] = {}
        for c in sorted(mine, key=lambda c: (subjects.index(c.subject), c.candidate)):
            grouped.setdefault(c.prompt_id, []).append(c)
        paired = sorted(grouped.values(), key=lambda group: not out.flipped(group))
        out.prompts[kind], out.left_out[kind] = paired[:limit], max(0, len(paired) - limit)
        if mine:
            out.counts[kind] = len(grouped), max(sum(c.subject == s for c in mine) for s in subjects)
    return out


def cut_around(text: str, evidence: tuple[int, int] | None) -> tuple[str, str, str]:
    """A text before, within and after its evidence (code points, end exclusive), each cut where it is too long."""
    start, end = evidence if evidence is not None else (len(text), len(text))
    if not 0 <= start < end <= len(text):
        return cut(text), "", ""
    return cut(text[:start]), cut(text[start:end]), cut(text[end:])


def cut(text: str) -> str:
    """A text that is too long as its beginning and how much more there is."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text) - LONGEST} characters more)"
