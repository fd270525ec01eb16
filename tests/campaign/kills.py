"""Kill real runs of the four studies with SIGKILL, start them again, and compare what they made with unbroken runs.

Two sizes: `reduced` (a run of seconds, five kills each until the number is reached, the studies in turn) and `tiny`
(the preset as shipped, five kills in one run of each study). A third of the kills fall at any moment, a third just
before a file operation, a third while a file is being written. Compared byte by byte: every file of the run and of its
study's steps but those that hold times.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import forks
from forks import When
from record import Part, options, say

from alignment_core.pipeline.runlist import LIST
from alignment_core.pipeline.step import is_exempt

KILLS_A_RUN = 5
HOWS = ("moment", "operation", "writing")
TIMED = {"env.json", "report.html", ".lock", ".results.lock"}
"""Files that hold times or a process's number, beside logs and timings: they differ between any two runs."""
REDUCED: dict[str, str] = {
    "drift-dpo": "data.stage_a_size=32 data.stage_b_size=32 data.dpo_limit=32 data.test_harmful=8 data.test_benign=6 "
    "data.test_borderline=4 stage_a.max_steps=2 stage_a.save_steps=1 stage_a.batch_size=4 stage_b.max_steps=2 "
    "stage_b.save_steps=1 stage_b.batch_size=4 dpo.max_steps=2 dpo.save_steps=1 dpo.batch_size=4 "
    "generate.max_new_tokens=8 generate.batch_size=4",
    "orth-refusal": "points=2 data.refusal_limit=32 data.attack_limit=32 data.benign_limit=16 data.test_harmful=8 "
    "data.test_benign=6 data.test_borderline=4 data.test_attack=8 refusal.max_steps=2 refusal.save_steps=1 "
    "refusal.batch_size=4 attack.max_steps=2 attack.save_steps=1 attack.batch_size=4 generate.max_new_tokens=8 "
    "generate.batch_size=8",
    "mini-cai": "prompts.harmful=8 prompts.benign=6 prompts.borderline=4 prompts.test_harmful=6 prompts.test_benign=6 "
    "prompts.test_borderline=4 candidates.candidates=2 candidates.max_new_tokens=8 candidates.batch_size=8 "
    "critic.max_new_tokens=8 critic.batch_size=16 calibration.items=8 calibration.attacks=4 calibration.repeats=2 "
    "calibration.repeat_items=2 calibration.force=true selection.min_score=1 train.max_steps=2 train.save_steps=1 "
    "train.batch_size=4 compare.generate.candidates=1 compare.generate.max_new_tokens=8 compare.generate.batch_size=8",
    "neuron-brittleness": "drift_every=1 draws=100 loss_examples=4 doses=[0.5,1.0] data.samples=8 data.tune_size=16 "
    "data.test_harmful=8 data.test_benign=6 train.max_steps=2 train.save_steps=1 train.batch_size=4 "
    "generate.max_new_tokens=8 generate.batch_size=8",
}
LONGER: dict[str, str] = {
    "drift-dpo": "stage_a.save_steps=10 stage_b.save_steps=10 dpo.save_steps=10",
    "orth-refusal": "refusal.save_steps=10 attack.save_steps=10",
    "mini-cai": "train.save_steps=10",
    "neuron-brittleness": "train.save_steps=10",
}
"""The tiny preset itself, with checkpoints, so that training continues from them too."""


def contents(run: Path) -> dict[str, str]:
    """Every file of a run and of its study's steps that holds no times, by name, as the hash of its bytes."""
    out = {}
    files = sorted(p for p in run.parent.rglob("*") if p.is_file())
    for path in [p for p in files if p.name not in TIMED and not is_exempt(p.name)]:
        data = path.read_bytes()
        if path.name == LIST:  # it lists the hashes of files that hold times, too
            data = json.dumps(json.loads(data)["steps"], sort_keys=True).encode()
        out[path.relative_to(run.parent).as_posix()] = hashlib.sha256(data).hexdigest()
    return out


def left(runs: Path) -> dict[str, Any]:
    """What a kill left: the step that was being made, and what stood there half-written."""
    partial = sorted(p.name.split(".")[1].rsplit("-", 1)[0] for p in runs.glob("*/steps/.*.partial"))
    unfinished = [p for p in runs.rglob("*") if p.name.endswith(".tmp")]
    unsealed = [p for p in runs.rglob("checkpoint-*") if p.is_dir() and not (p / "sealed.json").exists()]
    return {"during": partial[0] if partial else "", "half_written": bool(unfinished or unsealed)}


class Campaign:
    """One size of run, with its unbroken runs and its broken ones."""

    def __init__(self, part: Part, settings: dict[str, str], seed: int) -> None:
        self.part, self.settings, self.seed = part, settings, seed
        self.place = part.folder / f"{part.name}-runs"
        if not part.rows:  # a new journal: what an earlier campaign left is of other code
            shutil.rmtree(self.place, ignore_errors=True)

    def arguments(self, study: str, runs: Path) -> list[str]:
        return ["run", "--preset", "tiny", "--quiet", *self.settings[study].split(), "--runs", str(runs)]

    def unbroken(self, study: str) -> dict[str, Any]:
        """The study's run that nothing disturbs: its contents, seconds and number of file operations."""
        known = [r for r in self.part.rows if r.get("unbroken") == study]
        if known:
            return known[0]
        runs = self._new(f"{study}-whole")
        out, count = runs / "out.txt", runs / "count.txt"
        ended = forks.run(study, self.arguments(study, runs), out, count=count)
        if ended.code != 0:
            raise RuntimeError(f"{study} does not run: {out.read_text(errors='replace')[-2000:]}")
        (run,) = (p.parent for p in runs.glob("*/*/results.json"))
        made = {"unbroken": study, "seconds": round(ended.seconds, 1), "operations": int(count.read_text())}
        self.part.add({**made, "contents": contents(run)})
        say(f"{self.part.name}: {study} unbroken, {ended.seconds:.1f} s, {made['operations']} file operations")
        return self.part.rows[-1]

    def _new(self, name: str) -> Path:
        runs = self.place / name / "runs"
        shutil.rmtree(runs.parent, ignore_errors=True)
        runs.mkdir(parents=True)
        return runs

    def case(self, number: int, study: str, kills: int) -> None:
        """One run killed `kills` times, then left to end; what was done before this process began is kept."""
        rows = [r for r in self.part.rows if r.get("case") == number]
        if any("different" in r for r in rows):
            return
        whole = self.unbroken(study)
        runs = self.place / f"{number:03d}-{study}" / "runs"
        if not runs.is_dir():
            runs = self._new(f"{number:03d}-{study}")
        done = sum(r.get("kill", 0) for r in rows)
        rng = random.Random(f"{self.seed} {number}")
        whens = [self._when(rng, (number + k) % 3, whole, kills) for k in range(kills)]
        tries = 0
        while done < kills and tries < 4 * kills:
            tries += 1
            ended = forks.run(study, self.arguments(study, runs), runs / "out.txt", whens[done])
            if ended.code is not None:  # it ended before its moment came: the rest of the kills fall elsewhere
                break
            self.part.add({"case": number, "kill": 1, "how": whens[done].how, **left(runs)})
            done += 1
        self._compare(number, study, runs, whole)

    def _when(self, rng: random.Random, turn: int, whole: dict[str, Any], kills: int) -> When:
        """The next kill, such that all of a run's spread over its whole length."""
        how, share = HOWS[turn], 1.6 / kills
        if how == "moment":
            return When(how, rng.uniform(0.02, share) * whole["seconds"])
        return When(how, max(1, int(rng.uniform(0, share) * whole["operations"])))

    def _compare(self, number: int, study: str, runs: Path, whole: dict[str, Any]) -> None:
        ended = forks.run(study, self.arguments(study, runs), runs / "out.txt")
        (run, *others) = sorted(p.parent for p in runs.glob("*/*/config.json"))
        found = contents(run)
        names = sorted(n for n in found.keys() | whole["contents"].keys() if found.get(n) != whole["contents"].get(n))
        different = [*names, *(["exit code"] if ended.code != 0 else []), *map(str, others)]
        self.part.add({"case": number, "study": study, "files": len(found), "different": different})
        if different:
            say(f"{self.part.name}: case {number}, {study}: DIFFERENT {different[:5]}")
            say((runs / "out.txt").read_text(errors="replace")[-1500:])
        else:
            shutil.rmtree(runs.parent)


def campaign(part: Part, settings: dict[str, str], kills: int, seed: int) -> dict[str, Any]:
    """Cases, the studies in turn, until so many kills have fallen."""
    runs = Campaign(part, settings, seed)
    number, fallen = 0, 0
    while fallen < kills and number < kills:
        study = forks.STUDIES[number % len(forks.STUDIES)]
        runs.case(number, study, min(KILLS_A_RUN, kills - fallen))
        fallen = sum(r.get("kill", 0) for r in part.rows if r.get("case", 0) <= number)
        number += 1
        found(part)
        say(f"{part.name}: {fallen} of {kills} kills, {number} runs")
    return found(part)


def found(part: Part) -> dict[str, Any]:
    """The part's record as far as it has come."""
    cases = [r for r in part.rows if "different" in r]
    fell = [r for r in part.rows if r.get("kill")]
    unbroken = {r["unbroken"]: r["seconds"] for r in part.rows if "unbroken" in r}
    return part.finish(
        kills=len(fell),
        runs=len(cases),
        by_study=dict(Counter(c["study"] for c in cases for r in fell if r["case"] == c["case"])),
        by_moment=dict(Counter(r["how"] for r in fell)),
        half_written=sum(r["half_written"] for r in fell),
        steps=len({r["during"] for r in fell if r["during"]}),
        files=sum(c["files"] for c in cases),
        different=[f"{c['study']}, run {c['case']}: {name}" for c in cases for name in c["different"]],
        unbroken_seconds=unbroken,
    )


def main() -> int:
    given = options(__doc__ or "", reduced=200, tiny=20)
    forks.prepare()
    records = []
    for name, kills, settings in (("kills", given.reduced, REDUCED), ("kills-tiny", given.tiny, LONGER)):
        if kills:
            part = Part(name, given.out, seed=given.seed, wanted=kills)
            records.append(campaign(part, settings, kills, given.seed))
    for record in records:
        text = f"{record['kills']} kills in {record['runs']} runs, {len(record['different'])} differences"
        say(f"{record['part']}: {text}")
    return int(any(record["different"] for record in records))


if __name__ == "__main__":
    sys.exit(main())
