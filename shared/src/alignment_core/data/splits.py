"""ShardedTrainer prompts to parts: each prompt once, grouped by normalised prompt, by stated quotas, in a stated order.

A group is everything that shares a cluster or a normalised prompt. Groups are ordered by a hash of the seed and the
group's own key, so the deal depends on neither the order of the rows nor any global random state. When a source is
short, what is left after the held-out set is shared in proportion to the quotas: no stage empties another, and every
shortfall is on record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, Protocol, TypeVar

from alignment_core.records import Shortfall, fingerprint


class Groupable(Protocol):
    """Anything with a prompt and a cluster."""

    @property
    def prompt(self) -> str: ...

    @property
    def cluster(self) -> str: ...


T = TypeVar("T", bound=Groupable)
_name = lru_cache(maxsize=1 << 18)(fingerprint)  # a prompt is looked up several times on its way through a deal
Group = Sequence[T]


def rank(seed: int, *parts: str) -> bytes:
    """A hash to order by: a fixed shuffle that depends on nothing but the seed and the text."""
    return hashlib.blake2b("\x1f".join((str(seed), *parts)).encode("utf-8", "surrogatepass"), digest_size=12).digest()


def hash_of(item: object) -> Hashable:
    """The item itself, where it is hashable: equal items are duplicates."""
    if not isinstance(item, Hashable):
        raise TypeError(f"{type(item).__name__} cannot be told apart from its copies: give `same`")
    return item


def shuffled(items: Iterable[T], seed: int, text: Callable[[T], str] = lambda item: item.prompt) -> list[T]:
    """`items` in the order of `rank`, the same whatever order they came in."""
    return sorted(items, key=lambda item: rank(seed, text(item)))


def three_way(n: int, share: float = 0.05) -> tuple[int, int, int]:
    """Sizes of train, validation and test: `share` each to validation and test, at least 1 each from 3 items on."""
    held = max(1, round(share * n)) if n >= 3 else 0
    return n - 2 * held, held, held


@dataclass(frozen=True, slots=True)
class Quota(Generic[T]):
    """How many groups of a source a part is to have."""

    part: str
    wanted: int
    first: bool = False
    """Served in full before the others share what is left (the held-out evaluation set)."""
    most: float = 1.0
    """At most this share of the source's groups."""
    keep: bool = False
    """Gets at least one group where there are enough (a training set)."""
    takes: Callable[[Sequence[T]], bool] | None = None
    """Which groups the part can use; None: all."""


@dataclass
class Drops:
    """What became of a source's items that are in no part."""

    duplicates: int = 0
    """Same prompt and same reply as another item."""
    elsewhere: int = 0
    """The prompt was dealt from an earlier source."""
    unused: int = 0
    """In groups that no part needed."""


def apportion(
    wanted: Sequence[int], available: int, keep: Sequence[bool], most: Sequence[int] | None = None
) -> list[int]:
    """`wanted` where there is enough, else `available` shared in proportion (largest remainders); those that `keep`
    get at least 1 while it lasts, and none gets more than its `most`."""
    limits = [min(w, m) for w, m in zip(wanted, most or wanted, strict=True)]
    if sum(limits) <= available:
        return limits
    ideal: dict[int, float] = {}
    open_ = {i for i, m in enumerate(limits) if m}
    while open_:  # parts at their limit leave the sharing, until none is over it
        rest = available - sum(ideal.values())
        weight = sum(wanted[i] for i in open_)
        shares = {i: rest * wanted[i] / weight for i in open_}
        full = {i for i in open_ if shares[i] >= limits[i]}
        ideal |= {i: limits[i] for i in full} if full else shares
        open_ = open_ - full if full else set()
    out = [int(ideal.get(i, 0)) for i in range(len(limits))]
    room = [i for i in range(len(limits)) if out[i] < limits[i]]
    for i in sorted(room, key=lambda i: (out[i] - ideal[i], i))[: available - sum(out)]:
        out[i] += 1
    for i, kept in enumerate(keep):
        if kept and limits[i] and not out[i] and max(out) > 1:
            out[out.index(max(out))] -= 1
            out[i] = 1
    return out


def group(items: Iterable[T]) -> dict[str, list[T]]:
    """Items by group: those that share a cluster or a normalised prompt, directly or through others, are together.

    The key of a group is the smallest name in it, so that it does not depend on the order of the items.
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (up := parent.setdefault(name, name)) != name:
            parent[name] = parent[up]
            name = up
        return name

    placed = []
    for item in items:
        a, b = root(item.cluster), root(_name(item.prompt))
        if a != b:
            parent[max(a, b)] = min(a, b)
        placed.append(item)
    out: dict[str, list[T]] = {}
    for item in placed:
        out.setdefault(root(item.cluster), []).append(item)
    return out


@dataclass
class Splitter:
    """Deals source after source and remembers every prompt, so that none is dealt twice."""

    seed: int
    home: dict[str, str] = field(default_factory=dict)
    """Part of every cluster and prompt fingerprint dealt so far."""
    shortfalls: list[Shortfall] = field(default_factory=list)
    drops: dict[str, Drops] = field(default_factory=dict)

    def reserve(self, items: Iterable[Groupable], part: str) -> None:
        """Take prompts out of the game, for example those of an evaluation file."""
        for item in items:
            self.home[item.cluster] = self.home[_name(item.prompt)] = part

    def split(
        self,
        source: str,
        items: Sequence[T],
        quotas: Sequence[Quota[T]],
        same: Callable[[T], Hashable] = hash_of,
    ) -> dict[str, list[list[T]]]:
        """Groups of `items` to the parts of `quotas`, in their order; `same` tells duplicates.

        Returns the groups of each part. The items of a group come in a fixed shuffled order.
        """
        drops = self.drops.setdefault(source, Drops())
        unique = {same(item): item for item in shuffled(items, self.seed, text=repr)}
        drops.duplicates += len(items) - len(unique)
        groups: list[list[T]] = []
        for _, members in sorted(group(unique.values()).items(), key=lambda entry: rank(self.seed, entry[0])):
            if any(m.cluster in self.home or _name(m.prompt) in self.home for m in members):
                drops.elsewhere += len(members)
            else:
                groups.append(members)
        sizes = _sizes(quotas, groups)
        out: dict[str, list[list[T]]] = {}
        for quota in quotas:
            taken, groups = _take(groups, quota, sizes[quota.part])
            for members in taken:
                self.reserve(members, quota.part)
            out[quota.part] = taken
            self.shortfalls.append(Shortfall(quota.part, source, quota.wanted, len(taken)))
        drops.unused += sum(map(len, groups))
        return out


def _sizes(quotas: Sequence[Quota[T]], groups: Sequence[Group[T]]) -> dict[str, int]:
    """How many groups each part gets."""
    available = len(groups)
    usable = {q.part: available if q.takes is None else sum(map(q.takes, groups)) for q in quotas}
    # the held-out set asks for at least one prompt where something is left to train on
    caps = {q.part: min(usable[q.part], max(min(1, available - 1), int(q.most * usable[q.part]))) for q in quotas}
    sizes: dict[str, int] = {}
    for quota in quotas:
        if quota.first:
            sizes[quota.part] = min(quota.wanted, caps[quota.part], available - sum(sizes.values()))
    rest = [q for q in quotas if not q.first]
    open_ = available - sum(sizes.values())
    left = apportion([q.wanted for q in rest], open_, [q.keep for q in rest], [caps[q.part] for q in rest])
    return sizes | {q.part: n for q, n in zip(rest, left, strict=True)}


def _take(groups: list[list[T]], quota: Quota[T], n: int) -> tuple[list[list[T]], list[list[T]]]:
    """The first `n` groups that the part can use, and the others."""
    taken: list[list[T]] = []
    others: list[list[T]] = []
    for members in groups:
        fits = len(taken) < n and (quota.takes is None or quota.takes(members))
        (taken if fits else others).append(members)
    return taken, others


def shortfall_table(shortfalls: Iterable[Shortfall]) -> str:
    """The shortfalls as text, one part of one source a line."""
    lines = [f"{'part':<14} {'source':<22} {'wanted':>7} {'got':>7} {'short':>7}"]
    for s in shortfalls:
        if s.wanted or s.got:
            short = str(s.short) if s.short else ""
            lines.append(f"{s.part:<14} {s.source:<22} {s.wanted:>7} {s.got:>7} {short:>7}  {s.note}".rstrip())
    return "\n".join(lines)


def shared_prompts(parts: Mapping[str, Iterable[Groupable]]) -> list[tuple[str, str, str]]:
    """Prompts that stand in two parts: (prompt fingerprint, part, other part). An empty list is the invariant."""
    seen: dict[str, str] = {}
    out = []
    for part, items in parts.items():
        for item in items:
            name = _name(item.prompt)
            if (other := seen.setdefault(name, part)) != part:
                out.append((name, other, part))
    return out
