"""The pages for readers: every command, path, link and message they name exists, their tables are the generated ones,
and what can run here does."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from alignment_core.config import resolve
from alignment_core.pipeline.sweep import split_values

ROOT = Path(__file__).parents[1]
STUDIES = ("drift-dpo", "orth-refusal", "mini-cai", "neuron-brittleness")
PACKAGES = ("shared", *(f"packages/{study}" for study in STUDIES))
LIBRARY = [ROOT / folder / "README.md" for folder in PACKAGES]
PAGES = sorted(
    p
    for pattern in ("*.md", "docs/**/*.md", "shared/*.md", "packages/*/*.md", "studies/*/*.md")
    for p in ROOT.glob(pattern)
)
OTHERS = {
    "empty/bin/drift-dpo",
    "empty/bin/pip",
    "for",
    "git",
    "hf",
    "inspect",
    "lm_eval",
    "pip",
    "python3",
    "sbatch",
    "transformers",
    "uv",
    "vllm",
}
"""Commands that are not ours; the test against each real one stands elsewhere, or nowhere."""


def _name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The page's fenced blocks of one language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [text for spoken, text in fenced if spoken == language]


def commands(block: str) -> Iterator[list[str]]:
    """The words of each command in a block of shell, without comments, variables and what a pipe does."""
    for line in block.replace("\\\n", " ").splitlines():
        if re.match(r"[A-Z_]+=\$\(", line):
            continue
        for part in re.split(r"&&|;(?! do)|\||; do ", line.split(" #")[0].split("\t#")[0]):
            words = re.findall(r"\"[^\"]*\"|'[^']*'|\S+", part.strip())
            while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words = words[1:]
            if words and not words[0].startswith("#") and words[0] not in ("export", "done", "do", "cd"):
                yield words


COMMANDS = [
    pytest.param(words, id=f"{_name(page)}: {' '.join(words)[:60]}")
    for page in PAGES
    for block in blocks(page, "bash") + blocks(page, "sh")
    for words in commands(block)
]


@cache
def _app(command: str) -> Any:
    import typer

    module = "alignment_core.cli.main" if command == "alignment-core" else f"{command.replace('-', '_')}.cli"
    return typer.main.get_command(importlib.import_module(module).app)


def _check_ours(command: str, words: list[str]) -> None:
    """Subcommands and options exist, and settings on the line are settings."""
    group, place = _app(command), 0
    while place < len(words) and hasattr(group, "commands"):
        if words[place] == "--help":
            return
        assert words[place] in group.commands, f"{command} has no command {words[place]!r}"
        group, place = group.commands[words[place]], place + 1
    known = {name for parameter in group.params for name in getattr(parameter, "opts", [])}
    rest = words[place:]
    for word in rest:
        if word.startswith("--") and word != "--help":
            assert word.split("=")[0] in known, f"{command} {words[0]} has no option {word}"
    settings = [w for w in rest if re.match(r"[a-z_]+(\.[a-z_]+)*=", w)]
    if words[0] == "sweep":
        own = (word for before, word in zip(["", *rest], rest, strict=False) if before != "--slurm")
        pairs = [word.partition("=")[::2] for word in own if word in settings]
        settings = [f"{key}={value}" for key, text in pairs for value in split_values(text)]
    if settings and command in STUDIES:
        preset = rest[rest.index("--preset") + 1] if "--preset" in rest else "tiny"
        package = command.replace("-", "_")
        study = importlib.import_module(f"{package}.cli").STUDY
        module, _, name = study.config.partition(":")
        resolve(getattr(importlib.import_module(module), name), package, preset, None, settings)


def _targets() -> set[str]:
    text = (ROOT / "Makefile").read_text()
    return {*re.findall(r"^([a-z][\w-]*):", text, re.M), *STUDIES}


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_named_exists(words: list[str]) -> None:
    first = words[0].removeprefix(".venv/bin/")
    if first == "make":
        assert {w for w in words[1:] if "=" not in w} <= _targets()
    elif first in (*STUDIES, "alignment-core"):
        _check_ours(first, words[1:])
    elif first in ("torchrun", "accelerate", "pytest", "python", "pre-commit"):
        assert shutil.which(first, path=str(Path(sys.executable).parent)), (
            f"{first} is not installed with the workspace"
        )
        inner = [w.removeprefix(".venv/bin/") for w in words]
        for study in STUDIES:
            if study in inner:
                _check_ours(study, inner[inner.index(study) + 1 :])
        if first == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file()
    else:
        assert first in OTHERS, f"no such command here: {first}"


def _slug(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_resolve(page: Path) -> None:
    text = _prose(page)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|srcset)=\"([^\"]+)\"", text)
    for target in targets:
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{_name(page)}: {target}"
        if anchor:
            assert anchor in [_slug(h) for h in re.findall(r"^#+ (.*)$", _prose(file), re.M)], (
                f"{_name(page)}: {target}"
            )


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_paths_named_exist(page: Path) -> None:
    tops = {p.name for p in ROOT.iterdir() if p.name not in ("runs", "dist", "build")}
    for span in re.findall(r"`([^`\n]+)`", _prose(page)):
        path = span.split(" ")[0].rstrip("/").split("::")[0]
        if "/" in path and path.split("/")[0] in tops and not re.search(r"[<>*{}…]|^\.venv", path):
            assert (ROOT / path).exists(), f"{_name(page)} names {path}"


def test_the_tree_is_the_tree() -> None:
    (block,) = [b for b in blocks(ROOT / "README.md", "") if "shared/" in b]
    stack: list[tuple[int, Path]] = []
    for line in block.splitlines():
        indent = len(line) - len(line.lstrip())
        names = re.split(r"\s{2,}", line.strip())[0].split(" ")
        stack = [s for s in stack if s[0] < indent]
        above = stack[-1][1] if stack else ROOT
        for name in names:
            assert (above / name).exists(), f"the tree names {name} in {_name(above) if above != ROOT else 'the root'}"
        if names[0].endswith("/"):
            stack.append((indent, above / names[0]))


def _messages() -> str:
    """All source text, string literals that stand together joined."""
    files = [f for folder in PACKAGES for f in (ROOT / folder / "src").rglob("*.py")]
    return re.sub(r"\"\s*\n?\s*f?\"", "", "\n".join(f.read_text() for f in files))


def test_the_messages_of_the_failures_are_the_codes_own() -> None:
    section = (ROOT / "README.md").read_text().split("## When it fails")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 10
    source = _messages()
    for row in rows:
        (span,) = re.findall(r"`([^`]+)`", row[1])
        for fragment in re.split(r"…|; |: ", span):
            assert fragment.strip() in source, f"no message says {fragment!r}"


# Tables that a program writes


@pytest.fixture(scope="module")
def scale() -> Iterator[ModuleType]:
    folder = str(ROOT / "tests" / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("scale")
    finally:
        sys.path.remove(folder)


@pytest.mark.parametrize("page", ["docs/scale.md", "README.md"])
def test_the_tables_of_scale_are_the_programs(scale: ModuleType, page: str) -> None:
    text = (ROOT / page).read_text()
    made = scale.MADE[ROOT / page]()
    assert scale.placed(text, made) == text, "run .venv/bin/python tests/benchmarks/scale.py --write"


def test_what_scale_says_in_words_is_what_it_works_out(scale: ModuleType) -> None:
    from alignment_core.models import scale as paper

    text = (ROOT / "docs" / "scale.md").read_text()
    eight, seventy = (scale.shape_of(name) for name in scale.MODELS.values())
    lora = scale.LoraSettings()
    arithmetic = paper.training_flops(seventy, 2 * 2048, 2048, lora, True) / (0.4 * scale.H100.flops)
    gathered = 3 * 2 * seventy.linear
    for said in (
        f"{4 * eight.linear / 1e9:.0f} GB at 8B and {4 * seventy.linear / 1e9:.0f} GB at 70B",
        f"({paper.kv_bytes(eight):,} for 8B, {paper.kv_bytes(seventy):,} for 70B)",
        f"{gathered / 1e9:.0f} GB.",
        f"{gathered / 450e9:.1f} s beside {arithmetic:.1f} s",
        f"{gathered / 50e9:.1f} s, and the network",
        f"**70B in 16 bits** is {2 * seventy.weights / 1e9:.0f} GB",
        f"({4 * eight.adapter_parameters(lora) / 1e6:.0f} MB a step at 8B",
    ):
        assert said in text, said


def test_sixty_four_gpus_find_no_more_work_than_the_batch(scale: ModuleType) -> None:
    work = scale.drift_dpo()
    assert [work.processes(n) for n in (1, 3, 8, 64)] == [1, 2, 8, 32]
    one, eight = (sum(scale.parts(work, scale.scale.Machine(scale.H100), n).values()) for n in (1, 8))
    assert one / 8 < eight < one


# Examples


@pytest.mark.parametrize("page", [ROOT / "README.md", *LIBRARY], ids=_name)
def test_the_example_is_short_and_imports_what_exists(page: Path) -> None:
    (block,) = blocks(page, "python")
    tree = ast.parse(block)
    body = [line for line in block.splitlines() if line.strip() and not line.startswith(("from ", "import "))]
    assert len(body) <= 16
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for name in node.names:
                missing = not hasattr(module, name.name)
                assert not missing or importlib.util.find_spec(f"{node.module}.{name.name}"), (
                    f"{node.module}.{name.name}"
                )


def test_the_readmes_example_is_the_cores() -> None:
    assert blocks(ROOT / "README.md", "python") == blocks(ROOT / "shared" / "README.md", "python")


@pytest.mark.slow
@pytest.mark.parametrize("page", LIBRARY, ids=_name)
def test_the_example_runs(page: Path, tmp_path: Path) -> None:
    (block,) = blocks(page, "python")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()


# The README as a newcomer follows it


def test_the_plan_and_the_settings_file_as_the_readme_has_them(tmp_path: Path) -> None:
    (block,) = [b for b in blocks(ROOT / "README.md", "bash") if "--dry-run" in b]
    (planned,) = [words for words in commands(block) if "--dry-run" in words]
    here = Path(sys.executable).parent

    def run(*words: str) -> str:
        program = str(here / Path(words[0]).name)
        done = subprocess.run([program, *words[1:]], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run(*planned)
    assert "16.1 GB; gated: accept its licence on the hub, set HF_TOKEN" in said
    text = (ROOT / "README.md").read_text()
    assert "`drift-dpo show paper > mine.toml`" in text
    assert "`--config mine.toml`" in text
    (tmp_path / "mine.toml").write_text(run("drift-dpo", "show", "paper"))
    assert run("drift-dpo", "run", "--preset", "paper", "--config", "mine.toml", "--dry-run") == said


def _clone(folder: Path) -> Path:
    if subprocess.run(["git", "rev-parse", "--git-dir"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("not a git checkout")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    return folder


@pytest.mark.slow
def test_the_first_command_in_a_fresh_clone(tmp_path: Path) -> None:
    """`make drift-dpo`, the README's first block, as it stands, the machine's uv and cache at hand or not."""
    clone = _clone(tmp_path / "clone")
    (first, second, *_) = blocks(ROOT / "README.md", "bash")
    clean = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(["bash", "-euc", first], cwd=clone, env=clean, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode and re.search(r"failed to fetch|no matching distribution|network", said, re.I):
        pytest.skip(f"the packages cannot be fetched here: {said.strip().splitlines()[-1][:200]}")
    assert done.returncode == 0, said[-3000:]
    assert "report: runs/drift-dpo/tiny/report.html" in done.stdout
    assert (clone / "runs/drift-dpo/tiny/report.html").is_file()
    status = subprocess.run(["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == "", "the first command leaves the checkout as it was"
    planned = subprocess.run(["make", "--dry-run", second.split()[1]], cwd=clone, capture_output=True, text=True)
    assert planned.returncode == 0, planned.stderr


def test_the_citation_names_every_paper_the_pages_lean_on() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    titles = [reference["title"] for reference in cited["references"]]
    assert len(set(titles)) == len(titles)
    ours = {str(i["value"]) for r in cited["references"] for i in r.get("identifiers", [])}
    assert all(re.fullmatch(r"arXiv:\d{4}\.\d{5}", identifier) for identifier in ours)


# The batch job, and CI


def test_the_slurm_example_is_bash_and_its_options_are_real() -> None:
    path = ROOT / "examples" / "slurm" / "study.sbatch"
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True).returncode == 0
    text = path.read_text()
    directives = re.findall(r"^#SBATCH --([a-z-]+)", text, re.M)
    known = [
        "job-name",
        "nodes",
        "ntasks-per-node",
        "gpus-per-node",
        "cpus-per-task",
        "mem",
        "time",
        "output",
        "signal",
        "requeue",
    ]
    assert directives == known
    joined = text.replace("\\\n", " ")
    (launch,) = re.findall(r"^srun .*$", joined, re.M)
    options = re.findall(r" (--[a-z-]+)", launch.split(".venv/bin/torchrun")[1].split('.venv/bin/"$STUDY"')[0])
    from torch.distributed.run import get_args_parser

    assert options
    assert set(options) <= {o for action in get_args_parser()._actions for o in action.option_strings}
    for line in re.findall(r"\.venv/bin/\"\$STUDY\" (.*)$", joined, re.M):
        words = [w for w in line.replace('"', "").split() if not w.startswith("$@")]
        for study in STUDIES:
            _check_ours(study, [w for w in words if not w.startswith("$")])


def test_the_slurm_example_starts_one_process_a_gpu(tmp_path: Path) -> None:
    """The script itself, with stand-ins for srun and the workspace that print what they are given."""
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    for place in (tmp_path / "srun", bin_folder / "torchrun", bin_folder / "orth-refusal"):
        place.write_text('#!/bin/sh\necho "$(basename "$0") $*"\n')
        place.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_GPUS_ON_NODE": "2"}
    environment["SLURM_SUBMIT_DIR"] = str(tmp_path)
    script = ROOT / "examples" / "slurm" / "study.sbatch"
    words = ["bash", str(script), "orth-refusal", "small", "14", "attack.lr=1e-4"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "orth-refusal doctor --preset small --runs runs attack.lr=1e-4",
        "srun .venv/bin/torchrun --standalone --nproc-per-node 2 --no-python .venv/bin/orth-refusal run --preset small "
        "--seeds 14 --runs runs --quiet attack.lr=1e-4",
    ]


def test_ci_runs_every_package_on_every_python_and_only_commands_that_exist() -> None:
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    matrix = flow["jobs"]["package"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert matrix["package"] == ["alignment-core", *STUDIES]
    assert {i["package"]: i["folder"] for i in matrix["include"]} == dict(zip(matrix["package"], PACKAGES, strict=True))
    assert flow["jobs"]["wheels"]["strategy"]["matrix"]["study"] == list(STUDIES)
    runs = [step["run"] for job in flow["jobs"].values() for step in job["steps"] if "run" in step]
    assert "bash .ci/run" in runs
    targets = [
        word for run in runs for line in run.splitlines() if line.startswith("make ") for word in line.split()[1:]
    ]
    assert set(targets) <= _targets()
    assert {"lint", "types", "lowest", "wheels"} <= set(targets)
