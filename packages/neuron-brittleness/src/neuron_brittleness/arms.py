"""The study's arms, and the names of its groups of weights."""

from __future__ import annotations

ARMS = ("free", "frozen", "matched_frozen")
"""The fine-tuning arms: with nothing held, with the group held, with its matched random group held."""
ORIGINAL = ("top_safety", "set_diff", "top_utility", "random")
"""The original's groups, by the names its writer gave them."""
MATCHED = {g: f"{g}_matched" for g in ("set_diff", "top_safety", "top_utility")}
"""Each group's matched random group."""
GROUPS = (*ORIGINAL, *MATCHED.values())
"""Every group of the base."""
