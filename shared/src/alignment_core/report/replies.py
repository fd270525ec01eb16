"""The replies behind the figures: paired by prompt across states, prompts that flipped first, evidence marked.

Everything a model or a data set wrote is shown escaped. Replies to harmful prompts are folded until asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment_core import io
from alignment_core.evaluation.results import Results
from alignment_core.records import KINDS, Completion, Kind, Verdict
from alignment_core.report.spec import ReportSpec
from alignment_core.report.style import FILTERS
from alignment_core.text import for_html

LONGEST = 4000
"""Characters of one reply on the page."""


@dataclass(frozen=True)
class Replies:
    """What the page shows: for each kind its prompts, each with the states' replies and their verdicts."""

    subjects: tuple[str, ...]
    seed: int | None
    """The training seed whose replies are shown; None where there are no seeds."""
    judges: tuple[str, ...]
    prompts: dict[Kind, list[list[Completion]]]
    left_out: dict[Kind, int]
    verdicts: dict[tuple[str, str, int, str], Verdict]
    """By prompt, subject, candidate and judge."""

    def verdict(self, c: Completion, judge: str) -> Verdict | None:
        return self.verdicts.get((c.prompt_id, c.subject, c.candidate, judge))

    def label(self, c: Completion) -> str:
        """The first judge's label, `missing` where there is none."""
        found = self.verdict(c, self.judges[0]) if self.judges else None
        return "missing" if found is None or found.label is None else found.label


def find(folder: Path, results: Results) -> tuple[list[Completion], list[Verdict]]:
    """The replies that the results name in their run folder, and what their judges said.

    Of replies on a trajectory only those of the end are taken: the states' own figures, placed nowhere, name them.
    Verdicts stand in a `verdicts*.jsonl` of the replies' own step or of one that reads it; of several such steps the
    one with this run's settings counts. Both are empty where the folder has no replies (a record, for example).
    """
    naming = [m for m in results.measurements if m.completions]
    ends = [m for m in naming if not any(place is not None for place in m.at.values())]
    named = dict.fromkeys(str(m.completions) for m in ends or naming)
    files = [folder / n for n in named if not Path(n).is_absolute() and ".." not in Path(n).parts]
    config = io.read_object(folder / "config.json") if (folder / "config.json").exists() else {}
    steps = [(p.parent, io.read_object(p)) for p in sorted(folder.glob("steps/*/step.json"))]
    completions: list[Completion] = []
    verdicts: list[Verdict] = []
    for file in files:
        if file.is_file():
            completions += io.read_jsonl(file, Completion.from_json)
            judged = _judged(file, steps, _mapping(config.get("config")))
            verdicts += [v for path in judged for v in io.read_jsonl(path, Verdict.from_json)]
    return completions, verdicts


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _judged(file: Path, steps: Sequence[tuple[Path, Any]], config: Mapping[str, Any]) -> list[Path]:
    own: list[tuple[Path, Any]] = [(file.parent, {})]
    readers = [(step, facts) for step, facts in steps if file.parent.name in _mapping(facts.get("reads"))]

    def fits(facts: Any) -> bool:
        return all(config.get(k) == v for k, v in _mapping(facts.get("settings")).items())

    candidates = [(step, facts) for step, facts in [*own, *readers] if any(step.glob("verdicts*.jsonl"))]
    candidates.sort(key=lambda pair: (fits(pair[1]), (pair[0] / "step.json").stat().st_mtime if pair[1] else 0.0))
    return sorted(candidates[-1][0].glob("verdicts*.jsonl")) if candidates else []


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
    said = {(v.prompt_id, v.subject, v.candidate, v.judge): v for v in verdicts if v.seed == seeds.get(v.subject)}
    judges = tuple(dict.fromkeys(judge for *_, judge in said))
    out = Replies(tuple(subjects), seed, judges, {}, {}, said)
    grouped: dict[Kind, dict[str, list[Completion]]] = {k: {} for k in KINDS}
    for c in kept:
        grouped[c.kind].setdefault(c.prompt_id, []).append(c)
    for kind in KINDS:
        paired = [sorted(cs, key=lambda c: (subjects.index(c.subject), c.candidate)) for cs in grouped[kind].values()]
        paired.sort(key=lambda cs: not flipped(out, cs))
        out.prompts[kind], out.left_out[kind] = paired[:limit], max(0, len(paired) - limit)
    return out


def flipped(replies: Replies, group: Sequence[Completion]) -> bool:
    """Whether the states' labels differ on this prompt; a missing verdict is no label."""
    return len({said for c in group if (said := replies.label(c)) != "missing"}) > 1


def html(replies: Replies, spec: ReportSpec, source: str = "") -> str:
    """The section's HTML; empty where there is no reply at all."""
    if not any(replies.prompts.values()):
        return ""
    seed = "" if replies.seed is None else f" Shown: training seed {replies.seed}."
    where = f" All of them are in {for_html(source)}." if source else ""
    groups = [g for kind in KINDS for g in replies.prompts[kind]]
    has = [_has(replies, g) for g in groups]
    lines = [
        "<p>Beside each reply stand the first judge's verdict and the name of the rule that decided it; the words that "
        "decided are marked. Prompts whose verdict differs between states (flips) come first."
        f"{seed}{where}</p>",
        "<fieldset><legend>Show prompts with</legend>",
        f'<label><input type="radio" name="v" id="v-all" checked>any ({len(groups)})</label>',
        *(
            f'<label><input type="radio" name="v" id="v-{f}">{f} ({sum(f"has-{f}" in h for h in has)})</label>'
            for f in FILTERS
        ),
        "</fieldset>",
        *(line for kind in KINDS if replies.prompts[kind] for line in _kind(replies, spec, kind)),
    ]
    return "\n".join(lines)


def _has(replies: Replies, group: Sequence[Completion]) -> set[str]:
    """The classes by which a prompt is filtered: the labels among its replies, and whether they differ."""
    return {f"has-{replies.label(c)}" for c in group} | ({"has-flips"} if flipped(replies, group) else set())


def _kind(replies: Replies, spec: ReportSpec, kind: Kind) -> Iterator[str]:
    groups = replies.prompts[kind]
    flips = sum(flipped(replies, g) for g in groups)
    folded = ", replies folded" if kind == "harmful" else ""
    summary = f"{kind.capitalize()} prompts: {len(groups)}, {flips} flipped{folded}"
    yield f'<details class="kind"><summary>{summary}</summary>'
    yield f'<div id="replies-{kind}">'
    for i, subject in enumerate(replies.subjects):
        yield f'<span class="at{i}" id="replies-{kind}-{i}"></span>'
        name = for_html(spec.subject(subject).label)
        yield f'<p class="only o{i}">Only {name}. <a href="#replies-{kind}">Show every state</a></p>'
    if replies.left_out[kind]:
        yield f'<p class="note">{replies.left_out[kind]} more prompts, flips first, are left out of this page.</p>'
    for group in groups:
        yield from _prompt(replies, spec, kind, group)
    yield "</div></details>"


def _prompt(replies: Replies, spec: ReportSpec, kind: Kind, group: Sequence[Completion]) -> Iterator[str]:
    about = " · ".join(for_html(t) for t in (group[0].category, group[0].source) if t)
    yield f'<article class="prompt {" ".join(sorted(_has(replies, group)))}">'
    yield f'<h3>{for_html(_cut(group[0].prompt), lines=True)} <span class="where">{about}</span></h3>'
    several = any(c.candidate for c in group)
    for c in group:
        yield _reply(replies, spec, c, folded=kind == "harmful", several=several)
    yield "</article>"


def _reply(replies: Replies, spec: ReportSpec, c: Completion, *, folded: bool, several: bool) -> str:
    first = replies.verdict(c, replies.judges[0]) if replies.judges else None
    said = replies.label(c)
    parts = [f"<b>{for_html(spec.subject(c.subject).label)}</b>", f'<span class="badge l-{said}">{said}</span>']
    parts += [f"· {for_html(first.rule)}"] if first is not None and first.rule else []
    parts += [f"· reply {c.candidate + 1}"] if several else []
    for judge in replies.judges[1:]:
        other = replies.verdict(c, judge)
        if other is not None:
            parts.append(f"· {for_html(judge)}: {other.label or 'missing'}")
    text = marked(c.text, first.evidence if first is not None else None)
    state = "" if folded else " open"
    place = replies.subjects.index(c.subject)
    head = f'<details class="reply s{place}"{state}><summary>{" ".join(parts)}</summary>'
    return f'{head}<div class="text">{text}</div></details>'


def marked(text: str, evidence: tuple[int, int] | None) -> str:
    """A reply escaped, its evidence (code points of the raw text, end exclusive) within `<mark>`."""
    if not text:
        return "<i>(empty)</i>"
    if evidence is None or not 0 <= evidence[0] < evidence[1] <= len(text):
        return for_html(_cut(text), lines=True)
    start, end = evidence
    parts = (for_html(t, lines=True) for t in (_cut(text[:start]), _cut(text[start:end]), _cut(text[end:])))
    before, inside, after = parts
    return f"{before}<mark>{inside}</mark>{after}"


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}… ({len(text) - LONGEST} characters more)"
