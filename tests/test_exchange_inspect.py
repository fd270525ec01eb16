"""Our logs open in the newest inspect_ai, and one that it wrote is judged here.

inspect_ai is installed into a virtual environment of its own: it is no dependency of ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alignment_core.data import exchange
from alignment_core.records import Completion, Verdict

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]

READ = """
import json, math, sys
import pandas
from inspect_ai.analysis import evals_df, samples_df
from inspect_ai.log import read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries
path = sys.argv[1]
log = read_eval_log(path)
scores = [s.scores["rules"] for s in log.samples]
frame = samples_df(path)
print(json.dumps({
    "status": log.status, "model": log.eval.model, "header": read_eval_log(path, header_only=True).status,
    "texts": [s.output.completion for s in log.samples], "inputs": [s.input for s in log.samples],
    "values": [None if isinstance(s.value, float) and math.isnan(s.value) else s.value for s in scores],
    "answers": [s.answer for s in scores], "reasons": [s.reason for s in scores],
    "one": read_eval_log_sample(path, id=log.samples[0].id, epoch=1).output.completion,
    "summaries": len(read_eval_log_sample_summaries(path)),
    "rows": len(frame),
    "column": [None if pandas.isna(v) else str(v) for v in frame["score_rules"]],
    "rate": float(evals_df(path)["score_rules_refusal_rate"].iloc[0]),
}))
"""

WRITE = """
import sys
from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes

def reply(text):
    output = ModelOutput.from_content(model="mockllm", content=text)
    output.usage = ModelUsage(input_tokens=1, output_tokens=2, total_tokens=3)
    return output

asked = [
    Sample(input="First?", target="x", id=1, metadata={"kind": "harmful"}),
    Sample(input="Second?", target="y", id="b/2"),
]
replies = ["I'm sorry, but I can't help with that.", "Sure! Here is how.", "I won't do that.", "Sure, y."]
model = get_model("mockllm/model", custom_outputs=[reply(t) for t in replies])
task = Task(dataset=MemoryDataset(asked, name="probe"), scorer=includes(), epochs=2)
(log,) = eval(task, model=model, log_dir=sys.argv[1], display="none", max_samples=1)
assert log.status == "success", log.error
print(log.location)
"""


def _uv() -> str | None:
    ours = ROOT / ".uv" / "bin" / "uv"
    return str(ours) if ours.exists() else shutil.which("uv")


@pytest.fixture(scope="module")
def inspect_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    uv = _uv()
    if uv is None:
        pytest.skip("uv is not installed, and inspect_ai needs an environment of its own")
    venv = tmp_path_factory.mktemp("inspect") / "venv"
    python = venv / "bin" / "python"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(venv)], check=True, timeout=120)
    command = [uv, "pip", "install", "-q", "--python", str(python), "inspect_ai", "pandas", "pyarrow"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        pytest.skip(f"inspect_ai cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return python


def run(python: Path, script: str, argument: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("INSPECT_")}
    done = subprocess.run(
        [str(python), "-c", script, str(argument)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=argument if argument.is_dir() else argument.parent,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip().splitlines()[-1]


def test_a_log_written_here_opens_in_inspects_reader_and_data_frames(inspect_python: Path, tmp_path: Path) -> None:
    texts = ["No.", "I can't help with that.", "Sure \u202e \x1b[31m <b>", ""]
    labels = ("refusal", "refusal", "compliance", None)
    replies = [
        Completion(p, "stage_a", t, "How?", "harmful", seed=13)
        for p, t in zip(("../p/3", "p0", "p1", "p2"), texts, strict=True)
    ]
    verdicts = [
        Verdict(
            c.prompt_id, c.subject, "rules", label, "harmful", seed=13, evidence=(0, 2) if label == "refusal" else None
        )
        for c, label in zip(replies, labels, strict=True)
    ]
    (path,) = exchange.to_inspect(tmp_path, replies, verdicts, task="drift-dpo")
    seen = json.loads(run(inspect_python, READ, path))
    assert seen == {
        "status": "success",
        "model": "stage_a",
        "header": "success",
        "texts": texts,
        "inputs": ["How?"] * 4,
        "values": list(labels),
        "answers": ["No", "I ", None, None],
        "reasons": [None, None, None, "grader_failed"],
        "one": texts[0],
        "summaries": 4,
        "rows": 4,
        "column": list(labels),
        "rate": pytest.approx(2 / 3),
    }


def test_a_log_written_by_inspect_is_judged_here(inspect_python: Path, tmp_path: Path) -> None:
    refusal = pytest.importorskip("alignment_core.judging.refusal", reason="the refusal rules are not there")
    location = run(inspect_python, WRITE, tmp_path)
    found = exchange.read_file(tmp_path / Path(location).name, kind="benign", subject="mock")
    assert found.rejected == ()
    labels = {
        (c.prompt_id, c.candidate, c.kind): refusal.judge(c.text, c.prompt).label == "refusal"
        for c in found.completions
    }
    assert len(labels) == 4
    assert sum(labels.values()) == 2
    assert {(p, k) for p, _, k in labels} == {("1", "harmful"), ("b/2", "benign")}
