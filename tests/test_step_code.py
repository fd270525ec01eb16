"""What code of ours each step's work can reach: a training reaches no judge and no metric, a judge no other judge.

The steps of a study are made again when code that they can reach changes, so what stands here decides how much an edit
costs.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from alignment_core.judging.judges import entry, judge_code
from alignment_core.judging.registry import JUDGES
from alignment_core.pipeline.provenance import code_of

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(p.relative_to(src).with_suffix("").parts).removesuffix(".__init__"): p
    for src in (ROOT / "shared/src", *(ROOT / "packages").glob("*/src"))
    for p in src.rglob("*.py")
}


def closure(*names: str) -> set[str]:
    """These modules, all that they import, and onward; packages without code are left out."""
    return {name for name in code_of(*names).modules if FILES[name].name != "__init__.py"}


def within(found: set[str], *places: str) -> list[str]:
    """The modules that stand in one of these packages, or are one of these modules."""
    return sorted(n for n in found if any(n == place or n.startswith(f"{place}.") for place in places))


CORE = "alignment_core"
TRAININGS = (
    "drift_dpo.training",
    "drift_dpo.dpo_training",
    "neuron_brittleness.training",
    "orth_refusal.tuning",
    "orth_refusal.attack",
    "mini_cai.training",
)
ANSWERS = (
    "drift_dpo.answering",
    "drift_dpo.own_replies",
    "neuron_brittleness.answers",
    "neuron_brittleness.levels",
    "orth_refusal.answering",
    "mini_cai.answering",
)
DATA = ("drift_dpo.embedded", "orth_refusal.embedded", "mini_cai.data")
"""Not the public sets of drift-dpo and orth-refusal nor neuron-brittleness's data: their work counts or chooses
refusals by the rules."""
REFUSALS = tuple(f"{CORE}.judging.{name}" for name in ("refusal", "refusal_phrases", "refusal_languages"))


@pytest.mark.parametrize("work", TRAININGS)
def test_a_training_reaches_no_judge_no_metric_and_nothing_that_answers(work: str) -> None:
    found = closure(work)
    assert f"{CORE}.models.loop" in found
    models = ("generate", "endpoint", "remote", "calls", "score", "sampling", "serving")
    away = (*(f"{CORE}.models.{name}" for name in models), f"{CORE}.organism.world", f"{CORE}.organism.grading")
    assert not within(found, f"{CORE}.judging", f"{CORE}.evaluation", f"{CORE}.report", f"{CORE}.cli", *away)


@pytest.mark.parametrize("work", [*TRAININGS, *ANSWERS])
def test_a_training_and_an_answer_reach_neither_the_run_nor_the_settings_of_a_study(work: str) -> None:
    package = work.partition(".")[0]
    run = tuple(f"{CORE}.pipeline.{name}" for name in ("run", "step", "environment"))
    own = tuple(f"{package}.{name}" for name in ("study", "stages", "config", "metrics", "data", "public", "embedded"))
    assert not within(closure(work), *run, *own)


@pytest.mark.parametrize("work", [*TRAININGS, *ANSWERS, *DATA])
def test_the_refusal_rules_are_in_no_data_no_training_and_no_answer(work: str) -> None:
    assert not within(closure(work), *REFUSALS)


@pytest.mark.parametrize("work", ANSWERS)
def test_an_answer_reaches_no_judge_and_no_analysis(work: str) -> None:
    found = closure(work)
    assert f"{CORE}.models.generate" in found
    analysis = ("results", "state", "metrics", "analysis", "hypotheses", "rates")
    assert not within(found, f"{CORE}.judging", *(f"{CORE}.evaluation.{name}" for name in analysis))


@pytest.mark.parametrize(
    ("science", "only"),
    [
        ("drift_dpo.drift", {"drift_dpo.answering"}),
        ("drift_dpo.dpo", {"drift_dpo.dpo_training"}),
        ("neuron_brittleness.ablation", {"neuron_brittleness.answers", "neuron_brittleness.levels"}),
        ("neuron_brittleness.scores", set()),
        ("orth_refusal.steering", {"orth_refusal.attack"}),
    ],
)
def test_an_edit_of_the_science_reaches_its_own_steps_alone(science: str, only: set[str]) -> None:
    assert {work for work in (*TRAININGS, *ANSWERS, *DATA) if science in closure(work)} == only


def test_the_step_that_judges_reaches_no_judge_that_it_does_not_name() -> None:
    work = closure(f"{CORE}.evaluation.judging")
    assert not within(work, *JUDGES.values(), *REFUSALS, f"{CORE}.judging.critics", f"{CORE}.pipeline.run")
    assert not within(work, f"{CORE}.models", f"{CORE}.evaluation.results", f"{CORE}.evaluation.state")


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_reaches_no_other_judge(name: str) -> None:
    (module,) = judge_code(name)
    others = {one for one in JUDGES.values() if one != module}
    found = closure(module)
    assert not found & others
    assert name in __import__(module, fromlist=["ENTRIES"]).ENTRIES
    if name != "critic":
        assert not within(found, f"{CORE}.judging.critics", f"{CORE}.judging.critique")
    if name != "rules":
        assert not within(found, *REFUSALS)
    if name not in ("critic", "model"):
        assert not within(found, f"{CORE}.models.load", f"{CORE}.models.generate")
    if name not in ("critic", "model", "endpoint"):
        assert not within(found, f"{CORE}.models", f"{CORE}.config")


def test_named_judges_code_is_each_module_once_in_order() -> None:
    found = judge_code("gcg31, rules,xstest")
    assert found == [f"{CORE}.judging.detectors", f"{CORE}.judging.rules_judge"]


def test_looking_a_judge_up_imports_no_other() -> None:
    code = (
        "import sys\n"
        "from alignment_core.judging.judges import check_judges, judge_names\n"
        "from alignment_core.judging.settings import JudgeSettings\n"
        "check_judges('rules', JudgeSettings())\n"
        "print([m for m in sys.modules if m.startswith('alignment_core.judging.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "rules_judge" in done.stdout
    assert "critic" not in done.stdout
    assert "endpoint" not in done.stdout
    assert "detectors" not in done.stdout
    assert entry("rules").about.startswith("The core's refusal rules")


@pytest.mark.parametrize("package", ["drift_dpo", "neuron_brittleness", "orth_refusal", "mini_cai"])
def test_a_study_imports_without_torch(package: str) -> None:
    code = f"import sys, {package}.study; print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[-2] == "[]"


@pytest.mark.parametrize("package", ["drift_dpo", "neuron_brittleness", "orth_refusal", "mini_cai"])
def test_a_dry_run_imports_no_torch_where_no_driver_is(package: str, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        f"from {package}.cli import app\n"
        "app(standalone_mode=False)\n"
        "from alignment_core.models.device import driver\n"
        "print('driver' if driver() else [m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, "run", "--dry-run", "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if done.stdout.endswith("driver\n"):
        pytest.skip("torch is asked for the device that the driver gives")
    assert "steps: " in done.stdout
    assert done.stdout.endswith("[]\n")
