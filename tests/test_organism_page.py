"""The page of the embedded models' figures is what their cards say."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from alignment_core.io import read_json
from alignment_core.organism import weights

ROOT = Path(__file__).parents[1]


def test_the_page_is_what_the_cards_say() -> None:
    spec = importlib.util.spec_from_file_location("organism_page", ROOT / "tests" / "campaign" / "organism.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    large = read_json(made.LARGE) if made.LARGE.exists() else {}
    written = made.page({seed: weights.card(seed) for seed in weights.SEEDS}, large)
    assert made.PAGE.read_text(encoding="utf-8") == written, "run tests/campaign/organism.py"
