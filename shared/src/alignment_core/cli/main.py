"""`alignment-core`: the core's own command. Nothing here imports torch before a command needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from alignment_core.cli.guard import guarded
from alignment_core.errors import UserError

T = TypeVar("T", bound=str)
KINDS = ("harmful", "benign", "borderline")
JUDGES = (
    "rules, xstest, gcg31, refusal_direction, jailbreakbench, drift15, brittleness, broad53, model, critic, endpoint"
)
SEEDS: tuple[Literal["auto", "shared", "unpaired"], ...] = ("auto", "shared", "unpaired")

app = typer.Typer(
    help="Paired statistics and verdicts on anyone's completions, power, reports, and the embedded model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
organism = typer.Typer(help="The embedded models.", no_args_is_help=True)
app.add_typer(organism, name="organism")

_Rows = Annotated[
    Path,
    typer.Argument(help="Completions or verdicts (JSON Lines, CSV), an Inspect log, lm-eval samples, or a run folder."),
]
_Map = Annotated[str, typer.Option("--map", help="Rename fields: OURS=THEIRS, for example prompt_id=qid,text=output.")]
_Kind = Annotated[str, typer.Option(help="Kind of prompt where a row does not say: harmful, benign or borderline.")]
_Run = Annotated[Path, typer.Argument(help="A finished run, such as runs/drift-dpo/tiny.")]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]


@app.command()
@guarded
def compare(
    a: _Rows,
    b: _Rows,
    metric: Annotated[
        str,
        typer.Option(
            help="refusal, partial, compliance or incoherent (each kind of prompt by itself), a full name such as "
            "harmful_refusal_rate, or a numeric field."
        ),
    ] = "refusal",
    names: _Map = "",
    judge: Annotated[
        str,
        typer.Option(
            help="Whose verdicts: a judge in the files, or rules, which judges the text again. auto: the first judge "
            "in the file, the rules where there is none."
        ),
    ] = "auto",
    positive: Annotated[str, typer.Option(help="Labels to count as positive (comma-separated).")] = "",
    kind: _Kind = "",
    where_a: Annotated[str, typer.Option(help="Use only rows of A with FIELD=VALUE,...")] = "",
    where_b: Annotated[str, typer.Option(help="Use only rows of B with FIELD=VALUE,...")] = "",
    name_a: Annotated[str, typer.Option(help="Name of A in the output.")] = "",
    name_b: Annotated[str, typer.Option(help="Name of B in the output.")] = "",
    margin: Annotated[float | None, typer.Option(help="Also test equivalence and non-inferiority of B.")] = None,
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    shared_prompts: Annotated[bool, typer.Option("--shared-prompts", help="Compare the prompts both have.")] = False,
    seeds: Annotated[str, typer.Option(help="auto, shared (the seeds both have) or unpaired.")] = "auto",
    average: Annotated[bool, typer.Option("--average", help="Average several rows of a prompt and seed.")] = False,
    lower_is_better: Annotated[
        bool, typer.Option("--lower-is-better", help="For non-inferiority of a numeric field.")
    ] = False,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            help="Fail when the difference B - A is shown to lie beyond a bound: harmful_refusal_rate<-0.05. May be "
            "given several times. Exit code 3: failed; 4: inconclusive."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare B with A on the same prompts: paired, clustered, over seeds where there are several."""
    from alignment_core import io
    from alignment_core.cli import compare as comparing
    from alignment_core.cli import reading
    from alignment_core.evaluation.align import Options
    from alignment_core.evaluation.fail_on import decide, exit_code, parse_rule
    from alignment_core.text import visible

    _one_of("--kind", kind, ("", *KINDS))
    rules = [parse_rule(text) for text in fail_on or ()]
    found = comparing.compare_files(
        a,
        b,
        reading.Reading(metric, reading.field_map(names, metric), _parts(positive), judge, kind),
        Options(
            margin=margin,
            level=level,
            prompts="shared" if shared_prompts else "same",
            seeds=_one_of("--seeds", seeds, SEEDS),
            repeats="average" if average else "refuse",
            higher_is_better=not lower_is_better,
        ),
        where=(reading.pairs(where_a, "--where-a"), reading.pairs(where_b, "--where-b")),
        names=(name_a, name_b),
    )
    decided = [decide(rule, found) for rule in rules]
    if as_json:
        typer.echo(io.dumps(comparing.to_json(found, decided)))
    else:
        for line in comparing.lines(found, decided):
            typer.echo(visible(line))
    raise typer.Exit(exit_code(decided))


def _one_of(option: str, value: str, known: tuple[T, ...]) -> T:
    for one in known:
        if one == value:
            return one
    raise UserError(f"{option} {value}: one of {', '.join(filter(None, map(str, known)))}")


def _parts(text: str) -> tuple[str, ...]:
    return tuple(filter(None, (part.strip() for part in text.split(","))))


@app.command()
@guarded
def judge(
    file: Annotated[
        Path,
        typer.Argument(
            help="Replies: JSON Lines or CSV (prompt and response), an Inspect log, lm-eval samples, or a run folder."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Settings of model judges: judging.endpoint.model=NAME judging.endpoint.base_url=URL.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for verdicts.jsonl and rejects.jsonl.")] = Path("judged"),
    judges: Annotated[
        str, typer.Option("--judge", help=f"Comma-separated; the first is primary. One of: {JUDGES}.")
    ] = "rules",
    names: _Map = "",
    kind: _Kind = "",
    subject: Annotated[str, typer.Option(help="Name of the model; default: as the file says.")] = "",
    accept_missing: Annotated[
        bool, typer.Option("--accept-missing", help="Count verdicts as missing whose calls failed.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other verdicts in the folder.")] = False,
) -> None:
    """Judge the replies of an evaluation that another tool ran, and print its rates."""
    from alignment_core.cli import exchange as exchanging
    from alignment_core.cli.reading import field_map
    from alignment_core.text import visible

    for line in exchanging.judge(
        file,
        out,
        judges,
        overrides=overrides or (),
        kind=kind,
        subject=subject,
        names=field_map(names),
        accept_missing=accept_missing,
        overwrite=overwrite,
    ):
        typer.echo(visible(line))


@app.command()
@guarded
def export(
    run: _Run,
    out: Annotated[Path, typer.Argument(help="Folder for the files.")],
    form: Annotated[str, typer.Option("--format", help="inspect or lm-eval.")] = "inspect",
    overwrite: _Overwrite = False,
) -> None:
    """Write a run's replies and verdicts as Inspect logs or lm-eval samples."""
    from alignment_core.cli import exchange as exchanging

    _one_of("--format", form, exchanging.FORMATS)
    for path in exchanging.export(run, out, form, overwrite=overwrite):
        typer.echo(path)


@app.command()
@guarded
def power(
    discordant: Annotated[float, typer.Option(help="Share of prompts whose verdict differs between the two.")] = 0.2,
    prompts: Annotated[int | None, typer.Option(help="Prompts, one to a cluster.")] = None,
    seeds: Annotated[
        int | None, typer.Option(help="Training seeds; 1 = inference about these two checkpoints only.")
    ] = None,
    difference: Annotated[float | None, typer.Option(help="True difference of the rates.")] = None,
    target: Annotated[float | None, typer.Option("--power", help="Power at alpha = .05.")] = None,
    seed_sd: Annotated[float, typer.Option(help="Standard deviation over seeds of the true difference.")] = 0.024,
) -> None:
    """Plan an evaluation: leave out one of --prompts, --seeds, --difference and --power, and it is solved for."""
    from alignment_core.cli.compare import inference
    from alignment_core.stats.power import plan

    try:
        design = plan(
            prompts=prompts, seeds=seeds, difference=difference, power=target, discordant=discordant, seed_sd=seed_sd
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    typer.echo(
        f"{design.prompts} prompts, {design.seeds} seed{'s' if design.seeds != 1 else ''}: power {design.power:.2f} "
        f"for a difference of {design.difference:.3f} at alpha = {design.alpha:g} "
        f"({design.method}; inference: {inference(design.estimand)})"
    )


@app.command()
@guarded
def label(
    run: _Run,
    size: Annotated[int, typer.Option(help="Replies to label; at least two of each state, kind and verdict.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    judge: Annotated[str, typer.Option(help="Whose verdicts are checked; default: the primary judge's.")] = "",
) -> None:
    """Label replies by hand, blind to the verdict, to measure the detector's error on this run; q quits; rerun to
    resume."""
    from rich.console import Console

    from alignment_core.cli.label import label_run

    if size < 1:
        raise UserError(f"--size {size}: at least 1")
    label_run(run, Console(width=None if sys.stdout.isatty() else 140), size=size, seed=seed, judge=judge)


@app.command()
@guarded
def report(folder: Annotated[Path, typer.Argument(help="A folder with runs in it.")] = Path("runs")) -> None:
    """One page over every finished run under FOLDER: FOLDER/report.html."""
    from alignment_core.cli.study import installed, report_spec
    from alignment_core.evaluation import results
    from alignment_core.pipeline.runlist import check_results
    from alignment_core.report import overview
    from alignment_core.text import visible

    found = sorted(p for p in folder.glob("**/results.json") if "steps" not in p.relative_to(folder).parts)
    if not found:
        raise UserError(f"{folder}: no finished run (no results.json) in it")
    runs = []
    for path in found:
        check_results(path.parent)
        run = results.read(path)
        runs.append(overview.OverviewRun(path.parent, run, report_spec(installed(run.study), run)))
        typer.echo(
            visible(
                f"{path.parent.relative_to(folder).as_posix()}: {run.study}, seeds {', '.join(map(str, run.seeds))}"
            )
        )
    typer.echo(f"report: {overview.write(folder, runs)}")


@app.command()
@guarded
def headlines(
    studies: Annotated[Path, typer.Argument(help="Folder with the studies' records.")] = Path("studies"),
    write: Annotated[Path | None, typer.Option(help="A page with the markers to write between.")] = None,
) -> None:
    """The studies' measured headlines as a Markdown table."""
    from alignment_core.cli import headlines as headline_table

    if write is None:
        typer.echo(headline_table.table(studies))
    else:
        headline_table.write(studies, write)


@app.command()
@guarded
def selfcheck(
    runs: Annotated[int, typer.Option(help="Simulated data sets a figure; at least 200.")] = 10_000,
    rng_seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 20_260,
) -> None:
    """Does the instrument find a planted effect, and nothing where nothing is? Exit code 3 when it does not."""
    from alignment_core.stats import selfcheck as check

    if runs < 200:
        raise UserError(f"--runs {runs}: at least 200")
    raise typer.Exit(check.main(["--runs", str(runs), "--rng-seed", str(rng_seed)], typer.echo))


@app.command()
@guarded
def doctor(
    runs: Annotated[Path, typer.Option(help="Folder that is to hold the run folders.")] = Path("runs"),
) -> None:
    """Check what every run needs here; `<study> doctor --preset P` checks one preset. Exit code 3 when one fails."""
    from alignment_core import doctor as checks
    from alignment_core.config import Settings
    from alignment_core.pipeline.environment import prepare_process

    prepare_process()
    found = checks.examine(Settings(), runs)
    for line in checks.lines(found):
        typer.echo(line)
    if any(check.state == "fails" for check in found):
        raise typer.Exit(3)


@organism.command("list")
@guarded
def organism_list() -> None:
    """List the shipped models with their main figures on the calibration prompts."""
    from alignment_core.organism import weights

    typer.echo("model       harmful  benign  borderline  critic   (refused; critic: right scores, unseen principles)")
    for seed in weights.SEEDS:
        found = weights.card(seed)["calibration"]
        rates = (found[f"{kind}_refusal_rate"] for kind in ("harmful", "benign", "borderline"))
        typer.echo("organism:{}  {:7.2f} {:7.2f} {:11.2f} {:7.2f}".format(seed, *rates, found["critic_unseen"]))


Seed = Annotated[int, typer.Option(help="Pretraining seed.", min=1, max=9999)]


@organism.command("path")
@guarded
def organism_path(seed: Seed = 1) -> None:
    """Print the folder of a shipped model."""
    from alignment_core.organism import weights

    typer.echo(weights.path(seed))


@organism.command("info")
@guarded
def organism_info(seed: Seed = 1) -> None:
    """Print what a shipped model is: identity, recipe, and its figures on the calibration prompts."""
    import json

    from alignment_core.organism import weights

    typer.echo(f"identity {weights.identity(weights.path(seed))}")
    typer.echo(json.dumps(weights.card(seed), indent=1))


@organism.command("build")
@guarded
def organism_build(
    out: Annotated[Path | None, typer.Argument(help="Empty or absent folder; default: build/organism-s1.")] = None,
    seed: Seed = 1,
    size: Annotated[Literal["s", "m"], typer.Option(help="s: 0.6 million parameters; m: 5 million.")] = "s",
) -> None:
    """Train a model from its recipe (minutes on a CPU; size m: an hour)."""
    folder = out or Path("build") / f"organism-{size}{seed}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; name another")
    from alignment_core.pipeline.environment import prepare_process

    prepare_process()
    from alignment_core.organism import recipe, weights

    recipe.build(folder, recipe.recipe_for(seed, size), say=typer.echo)
    if size == "s" and seed in weights.SEEDS:
        same = weights.identity(folder) == weights.identity(weights.path(seed))
        said = "identical to" if same else "not bit-equal to"
        typer.echo(f"built: {folder} ({said} the shipped organism:{seed})")
    else:
        typer.echo(f"built: {folder} (model.name={folder})")
