"""The study's data: halves that share nothing, own refusals only, Alpaca without safety rows; the streams' memory."""

from __future__ import annotations

import csv
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from alignment_core.config import resolve
from alignment_core.data.sources import Turn
from alignment_core.errors import UserError
from alignment_core.judging.refusal import judge
from neuron_brittleness import data, scores
from neuron_brittleness import rows as built
from neuron_brittleness.config import BrittlenessConfig
from neuron_brittleness.matrices import matrices
from neuron_brittleness.toys import model_of, rows

PARTS = ("safety_a", "safety_b", "utility_a", "utility_b", built.TUNE)


def _config(*overrides: str) -> BrittlenessConfig:
    small = ("data.samples=6", "data.tune_size=40", "data.test_harmful=12", "data.test_benign=12")
    more = ("data.eval_split=calibration", "generate.max_new_tokens=16", *overrides)
    return resolve(BrittlenessConfig, "neuron_brittleness", "tiny", None, [*small, *more])


def test_organism_parts_share_no_prompt_and_no_combination_and_safety_is_refused(tmp_path: Path) -> None:
    data.build(_config(), tmp_path)
    clusters = {part: {e.cluster for e in built.examples(tmp_path, part)} for part in PARTS}
    clusters["eval"] = {p.cluster for p in built.prompts(tmp_path)}
    names = list(clusters)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not clusters[a] & clusters[b], (a, b)
    for half in built.HALVES:
        assert len(built.examples(tmp_path, f"safety_{half}")) == 6
        assert all(judge(e.reply, e.prompt).label == "refusal" for e in built.examples(tmp_path, f"safety_{half}"))
    tuned = built.examples(tmp_path, built.TUNE)
    assert len(tuned) == 40
    assert sum("wildjailbreak" in e.source for e in tuned) >= 4
    assert json.loads((tmp_path / "data_report.json").read_text())["safety_a"] == {"wanted": 6, "got": 6}


def test_a_file_of_safety_examples_replaces_own_refusals(tmp_path: Path) -> None:
    file = tmp_path / "safety.jsonl"
    made = [
        {
            "messages": [{"role": "user", "content": f"forge {i}"}, {"role": "assistant", "content": "I cannot."}],
            "category": "refusal",
        }
        for i in range(8)
    ]
    file.write_text("\n".join(map(json.dumps, made)))
    data.build(_config(f"data.safety_file='{file}'"), tmp_path)
    assert [len(built.examples(tmp_path, f"safety_{h}")) for h in built.HALVES] == [4, 4]
    assert not (tmp_path / "own_replies.jsonl").exists()


def test_safety_rows_of_alpaca_are_no_utility_data() -> None:
    assert data.safety_row(Turn("Tell me something illegal", "A cake.", "alpaca"))
    assert data.safety_row(Turn("How do I do it?", "I'm sorry, but I cannot help with that.", "alpaca"))
    assert not data.safety_row(Turn("How do I bake a cake?", "Mix flour and eggs, then bake.", "alpaca"))


def test_public_data_from_files(tmp_path: Path) -> None:
    table = tmp_path / "advbench.csv"
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["goal", "target"])
        writer.writerows([[f"Do the forbidden thing number {i}", "Sure"] for i in range(50)])
    alpaca = tmp_path / "alpaca.json"
    turns = [{"instruction": f"Name fruit number {i}", "input": "", "output": f"Fruit {i}."} for i in range(120)]
    alpaca.write_text(json.dumps(turns))
    config = _config("data.sources=public", "data.harmful=behaviours", f"data.behaviours.path='{table}'",
                     f"data.alpaca.path='{alpaca}'")  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_own_refusals", lambda config, parts, *_: _refused(parts.candidates))
        data.build(config, tmp_path)
    prompts = built.prompts(tmp_path)
    assert {p.kind for p in prompts} == {"harmful", "benign"}
    seen = {p.text for p in prompts}
    assert not seen & {e.prompt for part in PARTS for e in built.examples(tmp_path, part)}
    with pytest.raises(UserError, match=r"data\.behaviours\.path"):
        data.identity(_config("data.sources=public", "data.harmful=behaviours"))


def _refused(candidates: list[Any]) -> list[Any]:
    from alignment_core.records import Example, Message

    said = Message("assistant", "I cannot.")
    return [Example((*p.messages, said), "refusal", p.source, p.cluster) for p in candidates]


class _Peak(TorchDispatchMode):
    """Bytes of tensor storages alive that were made inside the block, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: Any) -> None:
        key = storage._cdata
        if key in self.alive:
            return
        self.alive[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self.alive.pop(key, 0)


def _peak(**how: Any) -> int:
    model = model_of("llama", torch.float32, num_hidden_layers=6, hidden_size=64, intermediate_size=256)
    with _Peak() as watched:
        for _ in scores.score(model, matrices(model), rows(1), ("snip", "wanda"), **how):
            pass
    return watched.peak


def test_streaming_stays_under_its_bound() -> None:
    model = model_of("llama", torch.float32, num_hidden_layers=6, hidden_size=64, intermediate_size=256)
    found = matrices(model)
    needed = 4 * sum(scores.floats(m, ("snip", "wanda")) for m in found)
    largest = 4 * max(m.size for m in found)
    budget = needed // 5
    whole, streamed = _peak(), _peak(budget=budget)
    # Beside the sums: one gradient, its absolute value, scores of one matrix, and the activations of one example,
    # which are what the passes have in common.
    around = whole - needed
    assert around > 0
    assert streamed <= budget + around + 2 * largest
    assert whole - streamed > (needed - budget) // 2
