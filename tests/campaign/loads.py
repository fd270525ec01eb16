"""Load every model and adapter of `hostile_models.py` as a study does, and hold the outcome against the promise.

Promised: an error of one line that is the user's to mend, or a model whose logits are numbers; no code of the folder's
is run, nothing is imported from it, and no case goes on for ever.
"""

from __future__ import annotations

import logging
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from hostile_models import CASES, MARK, Edit, module
from inputs import Hang, escaped, limited
from record import Part, options, say

from alignment_core.config import LoraSettings, ModelSettings
from alignment_core.errors import UserError

LIMIT = 60
"""Seconds that one case may take, the imports of the first one of its kind among them."""


def good(place: Path) -> None:
    """A whole model of some ten thousand weights, and an adapter for it that is not zero."""
    import torch

    from alignment_core.models import load, lora, miniature

    model = ModelSettings(name=str(miniature.build(place / "model", hidden=16, layers=1)), device="cpu")
    torch.manual_seed(0)
    settings = LoraSettings(r=2, alpha=4, dropout=0.0, targets=("q_proj", "v_proj"))
    tuned = lora.add_adapter(load.load(model, trainable=True).model, settings)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    lora.save_adapter(tuned, place / "adapter", load.identity(model)["weights"])


def loaded(place: Path) -> str:
    """`read` where the adapter on its model gives logits that are numbers, `not finite` where it does not."""
    import torch

    from alignment_core.models import load

    held = load.load(ModelSettings(name=str(place / "model"), device="cpu"), place / "adapter")
    with torch.no_grad():
        logits = held.model(torch.tensor([held.tokenizer("Hello there")["input_ids"]])).logits
    return "read" if bool(torch.isfinite(logits).all()) else "not finite"


def case(good_place: Path, place: Path, edit: Edit) -> tuple[str, str]:
    """One case: `(outcome, finding)`; the finding is empty where the promise held."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(good_place, place)
    module(place)
    edit(place)
    sure = place / "model" / "config.json"
    if sure.is_file() and (place / "adapter" / "base.json").is_file() and "model" in _changed(good_place, place):
        (place / "adapter" / "base.json").unlink()  # else the identity refuses every changed model
    try:
        with limited(LIMIT):
            outcome, wrong = loaded(place), ""
        wrong = "" if outcome == "read" else "loaded, and its logits are not finite"
    except Hang:
        outcome, wrong = "finding", f"no end after {LIMIT} s"
    except UserError as error:
        text = str(error)
        outcome, wrong = "refused", "" if text.strip() and "\n" not in text else f"not one line: {text!r:.200}"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - whatever escapes is the finding, Rust's panics too
        outcome, wrong = "finding", escaped(error)
    if (place / MARK).exists() or any("evil" in name for name in sys.modules):
        wrong = "code that came with it was run"
    return ("finding", wrong) if wrong else (outcome, "")


def _changed(one: Path, two: Path) -> set[str]:
    """The folders of a case that differ from the good ones."""
    ours = {f.relative_to(two) for f in two.rglob("*") if f.is_file() and f.name != "evil.py"}
    theirs = {f.relative_to(one) for f in one.rglob("*") if f.is_file()}
    same = {f for f in ours & theirs if (one / f).read_bytes() == (two / f).read_bytes()}
    return {f.parts[0] for f in (ours | theirs) - same}


def main() -> int:
    given = options(__doc__ or "", cases=len(CASES))
    logging.getLogger("alignment_core").setLevel(logging.CRITICAL)
    chosen = [n * len(CASES) // given.cases for n in range(given.cases)]
    part = Part("loads", given.out, cases=given.cases)
    counted: Counter[str] = Counter()
    findings: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "good"
        good(whole)
        if loaded(whole) != "read":
            raise RuntimeError("the whole model does not load")
        for number in chosen[len(part.rows) :]:
            name, edit = CASES[number]
            outcome, wrong = case(whole, Path(folder) / "case", edit)
            part.add({"outcome": outcome, "finding": f"{name}: {wrong}" if wrong else ""})
            if wrong:
                say(part.rows[-1]["finding"])
    for row in part.rows:
        counted[row["outcome"]] += 1
        findings += [row["finding"]] if row["finding"] else []
    part.finish(ran=len(part.rows), outcomes=dict(sorted(counted.items())), findings=findings)
    say(f"loads: {len(part.rows)} cases, {len(findings)} findings")
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
