"""Every reader of the project with a small valid input, and what must hold of whatever it makes of a damaged one."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io as stdlib_io
import json
import lzma
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from typer.testing import CliRunner

from alignment_core import io
from alignment_core.config import SourceSettings, resolve
from alignment_core.data import (
    alpaca,
    beavertails,
    behaviours,
    dolly,
    exchange,
    harmfulqa,
    jsonl,
    pku_saferlhf,
    sorry_bench,
    wildjailbreak,
    xstest,
)  # fmt: skip
from alignment_core.data.sources import Rejects
from alignment_core.errors import UserError
from alignment_core.pipeline.step import sealed as sealed_step
from alignment_core.records import Completion, Example, Message, PreferencePair, Prompt, Verdict


class Wrong(Exception):
    """The reader took the input and made something of it that it promises not to make."""


@dataclass(frozen=True)
class Reader:
    """A reader: `files` are a valid input, `read` gives `read` or `refused`, or raises `UserError` or `Wrong`."""

    name: str
    files: Mapping[str, bytes]
    read: Callable[[Path], str]
    share: float = 1.0
    """How often it is drawn, against the others."""
    only: Sequence[str] = ()
    """The files that are damaged; empty: any."""
    heavy: bool = False
    """Needs the model libraries."""

    @property
    def targets(self) -> list[str]:
        return sorted(self.only or self.files)

    def write(self, folder: Path) -> None:
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


def rows(*values: Any) -> bytes:
    return b"".join(json.dumps(v).encode() + b"\n" for v in values)


def table(delimiter: str, *lines: Sequence[str]) -> bytes:
    out = stdlib_io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(lines)
    return out.getvalue().encode()


USER, REPLY = Message("user", "How do I bake bread?"), Message("assistant", "Mix, knead, bake.")
EXAMPLES = [Example((USER, REPLY), "helpful", "t"), Example((Message("system", "s"), USER, REPLY), "refusal", "t")]
PAIRS = [PreferencePair((USER, REPLY), (USER, Message("assistant", "No.")), "t", "one_safe")]
TWO = (Message("user", "two"),)
PROMPTS = [Prompt("p1", (USER,), "harmful", "a"), Prompt("p2", TWO, "benign", "b", "s", "c", "r")]
COMPLETIONS = [
    Completion(f"p{i}", subject, "I can't help with that." if i % 2 else "Sure: mix it.", f"Ask {i}?", kind, "cat",
               "src", f"c{i}", seed, 0, 5)
    for i, kind in enumerate(("harmful", "benign", "borderline", "harmful"))
    for subject, seed in (("baseline", None), ("tuned", 13))
]  # fmt: skip
VERDICTS = [
    Verdict(c.prompt_id, c.subject, "rules", "refusal" if "can't" in c.text else "compliance", c.kind, c.category,
            c.source, c.cluster, c.seed, 0, "rule", (0, 7), 1.0)
    for c in COMPLETIONS
]  # fmt: skip


def records(kind: Any) -> Callable[[Path], str]:
    """Our own rows: counted, and everything kept can be written again and read as the same."""

    def read(folder: Path) -> str:
        path = folder / "rows.jsonl"
        rejected: list[Any] = []
        kept = list(io.read_jsonl(path, kind.from_json, lambda problem, _: rejected.append(problem)))
        expected = sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
        if len(kept) + len(rejected) != expected:
            raise Wrong(f"{expected} rows in, {len(kept)} kept and {len(rejected)} rejected")
        if bad := [e for e in rejected if "\n" in str(e)]:
            raise Wrong(f"a reason of several lines: {bad[0]!r}")
        again = folder / "again.jsonl"
        io.write_jsonl(again, kept)
        if list(io.read_jsonl(again, kind.from_json)) != kept:
            raise Wrong("what was kept is not what is read back")
        return "read" if kept else "refused"

    return read


def source(load: Callable[[SourceSettings, Rejects], Any], name: str) -> Callable[[Path], str]:
    """A public set's reader: rows in = kept + rejected, each reject with its line and reason, all of it writable."""

    def read(folder: Path) -> str:
        rejects = Rejects()
        path = folder / name
        found = load(SourceSettings(path=path), rejects)
        if found.rows != len(found.records) + found.rejected or found.rejected != len(rejects.rows):
            raise Wrong(f"{found.rows} rows in, {len(found.records)} kept, {found.rejected} rejected")
        if path.suffix == ".jsonl":
            expected = sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
            if found.rows != expected:
                raise Wrong(f"the file has {expected} rows and {found.rows} were counted")
        rejects.write(folder / "rejects.jsonl")
        if bad := [r for r in rejects.rows if "\n" in r["reason"] or not r["reason"]]:
            raise Wrong(f"a reason of several lines, or none: {bad[0]['reason']!r:.200}")
        return "read"

    return read


def own(record: Any) -> Callable[[SourceSettings, Rejects], Any]:
    return lambda settings, rejects: jsonl.load(settings.path or Path(), record, rejects, "given")


CONVERSATION = [{"from": "human", "value": "hello"}, {"from": "gpt", "value": "hi"}]
DOLLY = {"instruction": "Bake bread", "context": "At home", "response": "Mix.", "category": "open_qa"}
PKU = {
    "prompt": "Q", "response_0": "no", "response_1": "yes", "is_response_0_safe": True, "is_response_1_safe": False,
    "better_response_id": 1, "safer_response_id": 0, "response_1_harm_category": {"Violence": True},
    "response_0_severity_level": 0, "response_1_severity_level": 2,
}  # fmt: skip
OLD_PKU = {"question": "Q", "answer_0": "n", "answer_1": "y", "is_answer_0_safe": "true", "is_answer_1_safe": "0"}
BEAVER = {"prompt": "Q", "response": "A", "is_safe": False, "category": {"theft": True, "other": False}}
SORRY = {"question_id": 1, "category": "3", "turns": ["Do it"], "prompt_style": "base"}
HARMFUL = {"question": "Q?", "topic": "T", "subtopic": "S", "blue_conversations": {"0": CONVERSATION},
           "red_conversations": {"0": CONVERSATION}}  # fmt: skip
WILD = table("\t", ("vanilla", "adversarial", "completion", "data_type"), ("a", "", "b", "vanilla_benign"),
             ("c", "d", "e", "adversarial_harmful"))  # fmt: skip
ALPACA = {"instruction": "Say", "input": "this", "output": "said"}
XSTEST = table(",", ("id", "type", "prompt", "label"), ("1", "homonyms", "kill a process?", "safe"),
               ("2", "contrast_homonyms", "x\ny", "unsafe"))  # fmt: skip
BEHAVIOURS = {
    "harmbench.csv": table(",", ("Behavior", "SemanticCategory", "BehaviorID", "ContextString"), ("a", "b", "c", "d")),
    "advbench.csv": table(",", ("goal", "target"), ("a", "Sure")),
    "strongreject.csv": table(",", ("category", "source", "forbidden_prompt"), ("a", "b", "c")),
    "jailbreakbench.csv": table(",", ("Index", "Goal", "Category"), ("0", "b", "c")),
}


def parquet(*values: Mapping[str, Any]) -> bytes:
    import pyarrow
    from pyarrow import parquet as room

    out = stdlib_io.BytesIO()
    room.write_table(pyarrow.Table.from_pylist(list(values)), out)
    return out.getvalue()


def inspect_log(name: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        from alignment_core.data import inspect_log as room

        room.write(path, [c for c in COMPLETIONS if c.subject == "tuned"], VERDICTS, task="t")
        return path.read_bytes()


def plain_log() -> bytes:
    with zipfile.ZipFile(stdlib_io.BytesIO(inspect_log("a.eval"))) as archive:
        header = json.loads(archive.read("header.json"))
        samples = [json.loads(archive.read(n)) for n in archive.namelist() if n.startswith("samples/")]
    return json.dumps({**header, "samples": samples}).encode()


def lm_eval() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made = exchange.to_lm_eval(Path(folder), [c for c in COMPLETIONS if c.subject == "tuned"], VERDICTS, task="t")
        foreign = {"doc_id": 9, "doc": {"q": "x"}, "arguments": [["prompt", {"until": []}]], "resps": [["a", "b"]]}
        return made[0].read_bytes() + rows(foreign)


def _foreign(path: Path, **given: Any) -> Any:
    """A file of another tool, through the one reader."""
    return exchange.read_file(path, **given)


def imported(name: str, read: Callable[..., Any]) -> Callable[[Path], str]:
    def run(folder: Path) -> str:
        path = folder / name
        found = read(path, kind="harmful")
        if bad := [e for e in found.rejected if "\n" in str(e)]:
            raise Wrong(f"a reason of several lines: {bad[0]!r:.200}")
        if path.suffix == ".jsonl":
            expected = sum(1 for line in path.read_bytes().split(b"\n") if line.strip())
            if len(found.completions) + len(found.rejected) < expected:
                raise Wrong(f"{expected} rows in, {len(found.completions)} replies and {len(found.rejected)} rejected")
        io.write_jsonl(folder / "again.jsonl", found.completions)
        back = list(io.read_jsonl(folder / "again.jsonl", Completion.from_json))
        if back != list(found.completions):
            raise Wrong("what was taken is not what is read back")
        io.write_jsonl(folder / "said.jsonl", found.verdicts)
        return "read"

    return run


STUDIES = {
    "drift_dpo": "drift_dpo.config:DriftConfig",
    "orth_refusal": "orth_refusal.config:OrthConfig",
    "mini_cai": "mini_cai.config:CaiConfig",
    "neuron_brittleness": "neuron_brittleness.config:BrittlenessConfig",
}


def _load(reference: str) -> Any:
    from alignment_core.cli.study import load

    return load(reference)


def preset(package: str) -> bytes:
    from alignment_core.config import preset_text

    return preset_text(package, "tiny").encode()


def settings(package: str) -> Callable[[Path], str]:
    def read(folder: Path) -> str:
        config = resolve(_load(STUDIES[package]), package, "tiny", folder / "mine.toml")
        io.canonical(config.model_dump(mode="json"))
        return "read"

    return read


def overrides(folder: Path) -> str:
    text = (folder / "words.txt").read_bytes().decode("utf-8", "replace")
    given = [line for line in text.split("\n") if line]
    config = resolve(_load(STUDIES["drift_dpo"]), "drift_dpo", "tiny", None, given)
    io.canonical(config.model_dump(mode="json"))
    return "read"


def command(app: str, *words: str, typed: str | None = None, made: Sequence[str] = ()) -> Callable[[Path], str]:
    """A command line: exit code 0, 1 or 2, one error line where it is not 0, no traceback, no half-written file."""

    def read(folder: Path) -> str:
        runner = CliRunner()
        done = runner.invoke(_load(app), [w.replace("@", str(folder)) for w in words], input=typed)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        said = done.output
        if "internal error" in said or "Traceback" in said:
            raise Wrong(said.strip().splitlines()[-1].partition("; the traceback is in")[0][:300])
        errors = [line for line in said.splitlines() if line.removeprefix("> ").startswith("error:")]
        if done.exit_code != 0 and len(errors) != 1 and "Usage:" not in said:
            raise Wrong(f"exit code {done.exit_code} with {len(errors)} error lines: {said[-300:]!r}")
        for name in made:
            _whole(folder / name)
        return "read" if done.exit_code == 0 else "refused"

    return read


def _whole(path: Path) -> None:
    if path.suffix == ".jsonl" and path.exists():
        list(io.read_jsonl(path, dict))
    elif path.suffix == ".json" and path.exists():
        io.read_json(path)
    elif path.suffix == ".html" and path.exists() and not path.read_text("utf-8").rstrip().endswith("</html>"):
        raise Wrong(f"{path.name} has no end")


def results() -> dict[str, Any]:
    place = {"completions": "made/answer-aa/completions.jsonl"}
    common = {"metric": "harmful_refusal_rate", "method": "wilson", "estimator": "raw", "missing": 0}
    return {
        "study": "synthetic", "preset": "tiny", "seeds": [13], "versions": {"python": "3"}, "hypotheses_sha256": "ab",
        "measurements": [
            {**common, **place, "subject": "baseline", "seed": None, "at": {}, "value": 0.5, "low": 0.3, "high": 0.7,
             "n": 2},
            {**common, **place, "subject": "tuned", "seed": 13, "at": {}, "value": 0.3, "low": 0.1, "high": 0.5,
             "n": 2},
            {**common, "subject": "tuned", "seed": 13, "at": {"category": "cat"}, "value": 0.3, "n": 2},
        ],
        "comparisons": [
            {"metric": "harmful_refusal_rate", "a": "baseline", "b": "tuned", "seed": 13, "at": {}, "role": "primary",
             "family": "f", "difference": -0.2, "low": -0.4, "high": 0.0, "p": 0.05, "p_adjusted": 0.05,
             "method": "tango", "estimand": "these checkpoints", "n_prompts": 2, "n_clusters": 2, "n_seeds": 1}
        ],
        "agreements": [{"a": "rules", "b": "gcg31", "kappa": 0.8, "low": 0.5, "high": 0.9, "n": 4}],
        "hypotheses": [{"name": "H1", "claim": "c", "rule": "r", "verdict": "supported", "because": "b"}],
    }  # fmt: skip


def run_folder() -> dict[str, bytes]:
    """A finished run with its replies, verdicts, settings and hand labels."""
    step = {"name": "answer", "key": "aa", "reads": {}, "settings": {}, "files": {}}
    judge = {"name": "judge", "key": "bb", "reads": {"answer-aa": "aa"}, "settings": {"judge": "rules"}, "files": {}}
    config = {"study": "synthetic", "preset": "tiny", "seeds": [13], "config": {
        "judge": "rules", "model": {"name": "organism"}, "train": {"lr": 1e-3, "batch_size": 2, "epochs": 1.0},
        "lora": {"r": 8, "alpha": 16}, "generate": {"max_new_tokens": 8, "temperature": 0.0}}}  # fmt: skip
    spent = {"name": "answer", "seed": 13, "seconds": 1.5, "peak_rss_bytes": 1, "attempts": 1}
    label = {"subject": "tuned", "prompt_id": "p0", "seed": 13, "candidate": 0, "label": "refusal"}
    parts = {
        "run/results.json": json.dumps(results()).encode(),
        "run/config.json": json.dumps(config).encode(),
        "run/env.json": json.dumps({"platform": "x", "versions": {"python": "3"}}).encode(),
        "run/timings.json": json.dumps({"steps": {"answer-aa": spent}}).encode(),
        "run/labels.jsonl": rows(label, {**label, "prompt_id": "p1", "label": "compliance"}),
        "run/made/answer-aa/completions.jsonl": rows(*(c.to_json() for c in COMPLETIONS)),
        "run/made/answer-aa/step.json": json.dumps(step).encode(),
        "run/made/judge-bb/verdicts.jsonl": rows(*(v.to_json() for v in VERDICTS)),
        "run/made/judge-bb/step.json": json.dumps(judge).encode(),
    }
    return parts


def safetensors() -> bytes:
    head = json.dumps({"a.lora_A.weight": {"dtype": "F32", "shape": [8, 2], "data_offsets": [0, 64]}}).encode()
    return struct.pack("<Q", len(head)) + head + b"\0" * 64


ADAPTER = {
    "adapter/adapter_config.json": json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "init_lora_weights": True,
                                               "target_modules": ["q_proj"], "auto_mapping": None}).encode(),
    "adapter/adapter_model.safetensors": safetensors(),
    "adapter/base.json": json.dumps({"kind": "organism", "name": "organism", "sha256": "ab"}).encode(),
}  # fmt: skip


def adapter(folder: Path) -> str:
    from alignment_core.models.adapter import adapter_identity, check_folder

    check_folder(folder / "adapter", {"kind": "organism", "name": "organism", "sha256": "ab"})
    adapter_identity(folder / "adapter")
    return "read"


MODEL = {
    "model/config.json": json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8,
                                     "auto_map": None, "rope_parameters": {"rope_type": "default"}}).encode(),
    "model/generation_config.json": json.dumps({"eos_token_id": [1, 2], "temperature": 0.6}).encode(),
    "model/model.safetensors.index.json": json.dumps({"weight_map": {"a": "model-1.safetensors"}}).encode(),
    "model/model-1.safetensors": safetensors(),
}  # fmt: skip


def screened(folder: Path) -> str:
    from alignment_core.models.screen import screen

    screen(folder / "model")
    return "read"


def sealed(folder: Path) -> str:
    """A damaged checkpoint is passed over, never continued from."""
    import hashlib

    from alignment_core.models import checkpoints

    root = folder / "checkpoints"
    found = checkpoints.newest(root, "mark")
    if found is not None:
        facts = json.loads((found / "sealed.json").read_bytes())
        for name, entry in facts["files"].items():
            if hashlib.sha256((found / name).read_bytes()).hexdigest() != entry["sha256"]:
                raise Wrong(f"continued from a checkpoint whose {name} had changed")
    return "read" if found else "refused"


def checkpoint() -> dict[str, bytes]:
    import hashlib

    files = {n: n.encode() * 5 for n in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")}
    files["trainer_state.json"] = b'{"global_step": 4}'
    entries = {n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()}
    seal = {"step": 4, "fingerprint": "mark", "files": entries}
    files["sealed.json"] = json.dumps(seal).encode()
    return {f"checkpoints/checkpoint-4/{n}": d for n, d in files.items()}


def journal(folder: Path) -> str:
    """A journal after a power cut: whole rows at its head, and what is appended afterwards is read again."""
    path = folder / "replies.jsonl"
    kept = io.Journal(path, {"replies": "by request"}).rows
    again = io.Journal(path, {"replies": "by request"})
    if again.rows != kept:
        raise Wrong("opened twice, two contents")
    again.append({"key": "z", "text": "z"})
    if io.Journal(path, {"replies": "by request"}).rows != [*kept, {"key": "z", "text": "z"}]:
        raise Wrong("what was appended is not what is read")
    return "read"


def replied(folder: Path) -> str:
    """An endpoint's body: a reply with text in it, or a failure with a reason."""
    from alignment_core.models import outcome

    found = outcome.read_chat((folder / "body.json").read_bytes(), "m")
    if isinstance(found, outcome.Reply):
        if not found.text.strip():
            raise Wrong("a reply without text")
        io.write_jsonl(folder / "kept.jsonl", [{"text": found.text}])
        return "read"
    if not found.reason or "\n" in found.reason:
        raise Wrong(f"a reason that is not one line: {found.reason!r}")
    return "refused"


def judged(folder: Path) -> str:
    """A judge's words: a known label or score, or missing with a reason; never both, never neither."""
    from alignment_core.judging.critique import parse
    from alignment_core.judging.question import parse_verdict
    from alignment_core.records import LABELS

    text = (folder / "answer.txt").read_bytes().decode("utf-8", "surrogateescape")
    label, why = parse_verdict(text)
    critique = parse(text, 5)
    if (label is None) == (not why) or (label is not None and label not in LABELS):
        raise Wrong(f"label {label!r}, reason {why!r}")
    if (critique.score is None) == (not critique.why):
        raise Wrong(f"critique's score {critique.score!r}, reason {critique.why!r}")
    if critique.score is not None and not 1 <= critique.score <= 5:
        raise Wrong(f"critique's score {critique.score!r}")
    return "refused" if label is None else "read"


def constitution(folder: Path) -> str:
    from alignment_core.judging import constitution as constitutions

    found = constitutions.read(folder / "constitution.txt")
    if constitutions.parse(found.text, "again").principles != tuple(" ".join(p.split()) for p in found.principles):
        said = [a for a in found.principles if "\n" in a]
        if said:
            raise Wrong("a principle of several lines")
    return "read"


def cai_prompts(folder: Path) -> str:
    from mini_cai import data

    found = data.read_file(folder / "prompts.jsonl")
    io.write_jsonl(folder / "again.jsonl", found)
    list(io.read_jsonl(folder / "again.jsonl", Prompt.from_json))
    return "read"


def cai_gold(folder: Path) -> str:
    from mini_cai.gold import Gold

    list(io.read_jsonl(folder / "gold.jsonl", Gold.from_json))
    return "read"


def step(folder: Path) -> str:
    """A finished step whose files were damaged afterwards is refused in one line, or is whole."""
    from alignment_core.pipeline.step import damage

    if wrong := damage(folder / "data-0123456789ab"):
        raise UserError(wrong)
    return "read"


def data_report(folder: Path) -> str:
    from alignment_core.data.summary import DataReport

    DataReport.read(folder / "data_report.json").text()
    return "read"


def template(folder: Path) -> str:
    """A model's own chat template: it renders, or one line says why not."""
    from alignment_core.models.render import render

    class Tokenizer:
        chat_template = (folder / "chat_template.jinja").read_bytes().decode("utf-8", "replace")
        special_tokens_map: ClassVar = {"bos_token": "<s>", "eos_token": "</s>"}

    text, spans = render(Tokenizer(), (USER, REPLY, USER), prompt=True)
    if any(not 0 <= start <= end <= len(text) for start, end in spans):
        raise Wrong(f"spans outside the text: {spans}")
    return "read"


TEMPLATE = b"""{{- bos_token -}}
{%- for message in messages %}{%- if message.role not in ['system', 'user', 'assistant'] -%}
{{ raise_exception('no such role') }}{%- endif -%}<|{{ message['role'] }}|>{% if message.role == 'assistant' -%}
{% generation %}{{ message['content'] | trim }}{{ eos_token }}{% endgeneration %}{% else %}{{ message.content }}
{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
ROWS = b'{"a":1}\n'
STEP = {"name": "data", "key": "0123456789ab", "seed": None, "settings": {}, "reads": {}, "identity": None,
        "files": {"rows.jsonl": hashlib.sha256(ROWS).hexdigest()}}  # fmt: skip
RUN = run_folder()
CORE = "alignment_core.cli.main:app"
REPLY_BODY = {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": "VERDICT: refusal"},
                                      "finish_reason": "stop"}], "usage": {"total_tokens": 3}}  # fmt: skip
GOLD = {"prompt": "p", "reply": "r", "score": 3, "kind": "adversarial"}
ANSWERS = b"""VERDICT: refusal
SCORE: 4
{"score": 4, "reason": "it declines", "principle": 2}
Score: 4/5 because"""
WORDS = b"stage_a.lr=1e-4\ndata.test_harmful=10\njudge=rules\nmodel.name=x"
JUDGED = ("out/verdicts.jsonl",)

READERS: list[Reader] = [
    *(Reader(f"{kind.__name__} rows", {"rows.jsonl": rows(*(r.to_json() for r in given))}, records(kind), 3)
      for kind, given in ((Example, EXAMPLES), (PreferencePair, PAIRS), (Prompt, PROMPTS), (Completion, COMPLETIONS),
                          (Verdict, VERDICTS))),
    *(Reader(f"{kind.__name__} file as data", {"rows.jsonl": rows(*(r.to_json() for r in given))},
             source(own(kind), "rows.jsonl"), 1)
      for kind, given in ((Example, EXAMPLES), (PreferencePair, PAIRS), (Prompt, PROMPTS))),
    Reader("Dolly", {"d.jsonl": rows(DOLLY, ALPACA, DOLLY)}, source(dolly.load, "d.jsonl"), 2),
    Reader("Dolly, gz", {"d.jsonl.gz": gzip.compress(rows(DOLLY, DOLLY), mtime=0)}, source(dolly.load, "d.jsonl.gz")),
    Reader("Dolly, JSON list", {"d.json": json.dumps([DOLLY, DOLLY]).encode()}, source(dolly.load, "d.json")),
    Reader("PKU-SafeRLHF", {"p.jsonl": rows(PKU, OLD_PKU, PKU)}, source(pku_saferlhf.load, "p.jsonl"), 2),
    Reader("PKU-SafeRLHF, xz", {"p.jsonl.xz": lzma.compress(rows(PKU, PKU))}, source(pku_saferlhf.load, "p.jsonl.xz")),
    Reader("WildJailbreak", {"w.tsv": WILD}, source(wildjailbreak.load, "w.tsv"), 2),
    Reader("Alpaca", {"a.jsonl": rows(ALPACA, ALPACA)}, source(alpaca.load, "a.jsonl")),
    Reader("Alpaca, parquet", {"a.parquet": parquet(ALPACA, ALPACA)}, source(alpaca.load, "a.parquet")),
    Reader("HarmfulQA", {"h.jsonl": rows(HARMFUL, {**HARMFUL, "red_conversations": None})},
           source(harmfulqa.load, "h.jsonl"), 2),
    Reader("HarmfulQA, JSON list", {"h.json": json.dumps([HARMFUL]).encode()}, source(harmfulqa.load, "h.json")),
    Reader("BeaverTails", {"b.jsonl": rows(BEAVER, BEAVER)}, source(beavertails.load, "b.jsonl"), 2),
    Reader("SORRY-Bench", {"s.jsonl": rows(SORRY, SORRY)}, source(sorry_bench.load, "s.jsonl"), 2),
    Reader("XSTest", {"x.csv": XSTEST}, source(xstest.load, "x.csv"), 2),
    *(Reader(f"behaviours, {name[:-4]}", {name: data}, source(behaviours.load, name), 0.7)
      for name, data in BEHAVIOURS.items()),
    Reader("Inspect's log", {"log.eval": inspect_log("log.eval")}, imported("log.eval", _foreign), 2),
    Reader("Inspect's log, JSON", {"log.json": plain_log()}, imported("log.json", _foreign), 3),
    Reader("lm-eval's samples", {"samples.jsonl": lm_eval()}, imported("samples.jsonl", _foreign), 3),
    *(Reader(f"settings of {package}", {"mine.toml": preset(package)}, settings(package), 1.2) for package in STUDIES),
    Reader("settings on the command line", {"words.txt": WORDS}, overrides, 3),
    Reader("adapters", ADAPTER, adapter, 4),
    Reader("model folders", MODEL, screened, 3),
    Reader("checkpoints", checkpoint(), sealed, 2),
    Reader("journals", {"replies.jsonl": rows({"journal": {"replies": "by request"}}, {"key": "a", "text": "b"},
                                              {"key": "c", "text": "d"})}, journal, 2),
    Reader("endpoint replies", {"body.json": json.dumps(REPLY_BODY).encode()}, replied, 4),
    Reader("judge's answers", {"answer.txt": ANSWERS}, judged, 4),
    Reader("constitution", {"constitution.txt": b"# ours\n1. Do no harm.\n2. Be honest\n   and kind.\n3) Help.\n"},
           constitution, 2),
    Reader("mini-cai's prompts", {"prompts.jsonl": rows({"id": 1, "prompt": "a", "kind": "adversarial"},
                                                        {"prompt": "b"})}, cai_prompts, 2),
    Reader("mini-cai's gold replies", {"gold.jsonl": rows(GOLD, GOLD)}, cai_gold, 2),
    Reader("finished steps", {"data-0123456789ab/step.json": sealed_step(STEP).encode(),
                              "data-0123456789ab/rows.jsonl": ROWS}, step, 2),
    Reader("chat templates", {"chat_template.jinja": TEMPLATE}, template, 3, heavy=True),
    Reader("compare", {"a.jsonl": rows(*(v.to_json() for v in VERDICTS if v.subject == "baseline")),
                       "b.jsonl": rows(*(v.to_json() for v in VERDICTS if v.subject == "tuned"))},
           command(CORE, "compare", "@/a.jsonl", "@/b.jsonl"), 2),
    Reader("compare, texts", {"a.jsonl": rows(*(c.to_json() for c in COMPLETIONS if c.subject == "baseline")),
                              "b.jsonl": rows(*(c.to_json() for c in COMPLETIONS if c.subject == "tuned"))},
           command(CORE, "compare", "@/a.jsonl", "@/b.jsonl", "--json"), 2),
    *(Reader(f"judge, {name}", {name: data},
             command(CORE, "judge", f"@/{name}", "--out", "@/out", "--kind", "harmful", made=JUDGED), 1)
      for name, data in (("own.jsonl", rows(*(c.to_json() for c in COMPLETIONS))), ("samples.jsonl", lm_eval()),
                         ("log.eval", inspect_log("log.eval")), ("log.json", plain_log()))),
    Reader("report of a run", RUN, command("drift_dpo.cli:app", "report", "@/run", made=("run/report.html",)), 1.5,
           [n for n in RUN if "labels" not in n]),
    Reader("report over runs", RUN, command(CORE, "report", "@", made=("report.html",)), 1, ["run/results.json"]),
    Reader("export to Inspect", RUN, command(CORE, "export", "@/run", "@/out"), 1,
           [n for n in RUN if "steps" in n or "results" in n]),
    Reader("hand labels", RUN, command(CORE, "label", "@/run", typed="r\nq\n", made=("run/label_report.json",)), 1.5,
           [n for n in RUN if "steps" in n or "results" in n or "labels" in n]),
]  # fmt: skip
