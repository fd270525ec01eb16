"""Time to build, deduplicate, split and contamination-check 50,000 records (asked: at most 10 s).

    python tests/benchmarks/bench_data.py [RECORDS]

The rows are made up, in the shape and the length distribution of Dolly, PKU-SafeRLHF and WildJailbreak. Times are
printed, never asserted: they depend on the machine.
"""

from __future__ import annotations

import csv
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from alignment_core.config import SourceSettings
from alignment_core.data import dolly, pku_saferlhf, wildjailbreak
from alignment_core.data.sources import Rejects
from alignment_core.data.summary import check_overlaps
from drift_dpo import public, rows
from drift_dpo.config import DataConfig
from drift_dpo.rows import EVAL
from drift_dpo.sets import TRAINING

WORDS = [f"w{i}" for i in range(30_000)]


def sentence(rng: random.Random, median: float) -> str:
    """Words with a long-tailed length and Zipf-like frequencies."""
    n = min(400, max(3, int(rng.lognormvariate(0, 0.7) * median)))
    return " ".join(WORDS[int(len(WORDS) * rng.random() ** 4)] for _ in range(n))


def write(folder: Path, records: int) -> DataConfig:
    """Rows whose sum is `records`: 30% Dolly, 40% PKU, 30% WildJailbreak, a tenth of them with repeated prompts."""
    rng = random.Random(0)
    prompts = [sentence(rng, 14) for _ in range(int(records * 0.9))]
    files = {name: folder / name for name in ("dolly.jsonl", "pku.jsonl", "wild.tsv")}
    with files["dolly.jsonl"].open("w") as stream:
        for _ in range(int(records * 0.3)):
            row = {"instruction": rng.choice(prompts), "context": "", "response": sentence(rng, 60), "category": "qa"}
            stream.write(json.dumps(row) + "\n")
    with files["pku.jsonl"].open("w") as stream:
        for _ in range(int(records * 0.4)):
            row = {"prompt": rng.choice(prompts), "response_0": sentence(rng, 60), "response_1": sentence(rng, 60)}
            for i in (0, 1):
                row[f"is_response_{i}_safe"] = rng.random() < 0.5
            stream.write(json.dumps(row | {"better_response_id": 0, "safer_response_id": 1}) + "\n")
    with files["wild.tsv"].open("w", newline="") as stream:
        table = csv.writer(stream, delimiter="\t")
        table.writerow(["vanilla", "adversarial", "completion", "data_type"])
        for _ in range(int(records * 0.3)):
            kind = rng.choice(wildjailbreak.TYPES)
            dressed = "" if kind.startswith("vanilla") else sentence(rng, 80)
            table.writerow([rng.choice(prompts), dressed, sentence(rng, 60), kind])
    paths = [SourceSettings(path=path) for path in files.values()]
    return DataConfig(sources="public", dolly=paths[0], pku=paths[1], wildjailbreak=paths[2])


def main(records: int) -> None:
    """Print the time of each piece and of the whole."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write(folder, records)
        size = sum(f.stat().st_size for f in folder.iterdir()) / 1e6
        print(f"{records} rows, {size:.0f} MB")

        start = time.perf_counter()
        for module, settings in (
            (dolly, config.dolly),
            (pku_saferlhf, config.pku),
            (wildjailbreak, config.wildjailbreak),
        ):
            module.load(settings, Rejects())
        print(f"read alone           {time.perf_counter() - start:6.2f} s")

        start = time.perf_counter()
        report = public.build(config, folder / "built")
        whole = time.perf_counter() - start
        prompts = {part: [e.prompt for e in rows.examples(folder / "built", part)] for part in TRAINING[:2]}
        prompts["dpo_train"] = [p.prompt for p in rows.pairs(folder / "built")]
        prompts[EVAL] = [p.text for p in rows.prompts(folder / "built")]
        start = time.perf_counter()
        check_overlaps(prompts, [(EVAL, part) for part in TRAINING])
        print(f"held-out set checked {time.perf_counter() - start:6.2f} s")
        print(f"whole build          {whole:6.2f} s for {sum(report.files.values())} records written")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
