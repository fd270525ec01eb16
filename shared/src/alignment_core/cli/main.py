"""`alignment-core`: the core's own command. Nothing here imports torch before a command needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignment_core.cli.guard import guarded
from alignment_core.errors import UserError

app = typer.Typer(
    help="Paired statistics and verdicts on anyone's completions, power, reports, and the embedded model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
organism = typer.Typer(help="The embedded model.", no_args_is_help=True)
app.add_typer(organism, name="organism")

_Rows = Annotated[Path, typer.Argument(help="JSON Lines of completions or verdicts.")]


@app.command()
@guarded
def compare(
    a: _Rows,
    b: _Rows,
    metric: Annotated[
        str, typer.Option(help="refusal, partial, compliance, incoherent, or the name of a numeric field.")
    ] = "refusal",
    names: Annotated[str, typer.Option("--map", help="Our field=the file's: prompt_id=qid,text=output.")] = "",
    judge: Annotated[str, typer.Option(help="rules: judge the text again; auto: only where no row has a verdict.")] = (
        "auto"
    ),
    positive: Annotated[str, typer.Option(help="Foreign verdicts that count as 1, by commas.")] = "",
    where_a: Annotated[str, typer.Option(help="Only rows of A with field=value,...")] = "",
    where_b: Annotated[str, typer.Option(help="Only rows of B with field=value,...")] = "",
    name_a: Annotated[str, typer.Option(help="What to call A.")] = "",
    name_b: Annotated[str, typer.Option(help="What to call B.")] = "",
    margin: Annotated[float | None, typer.Option(help="Also test equivalence and non-inferiority of B.")] = None,
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    shared_prompts: Annotated[bool, typer.Option("--shared-prompts", help="Compare the prompts both have.")] = False,
    seeds: Annotated[str, typer.Option(help="auto, shared (the seeds both have) or unpaired.")] = "auto",
    average: Annotated[bool, typer.Option("--average", help="Average several rows of a prompt and seed.")] = False,
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="For non-inferiority.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare B with A on the same prompts: paired, clustered, over seeds where there are several."""
    from alignment_core import io
    from alignment_core.cli import compare as comparing
    from alignment_core.text import visible

    _one_of("--judge", judge, ("auto", "rules"))
    _one_of("--seeds", seeds, ("auto", "shared", "unpaired"))
    found = comparing.compare_files(
        a,
        b,
        comparing.Reading(metric, comparing.field_map(names), tuple(filter(None, positive.split(","))), judge),
        where=(comparing.pairs(where_a, "--where-a"), comparing.pairs(where_b, "--where-b")),
        names=(name_a, name_b),
        margin=margin,
        level=level,
        prompts="shared" if shared_prompts else "same",
        seeds=seeds,
        repeats="average" if average else "refuse",
        higher_is_better=not lower_is_better,
    )
    if as_json:
        typer.echo(io.dumps(comparing.to_json(found)))
        return
    for line in comparing.lines(found, metric):
        typer.echo(visible(line))


def _one_of(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{option} {value}: one of {', '.join(known)}")


@app.command()
@guarded
def judge(
    file: Annotated[Path, typer.Argument(help="An Inspect log (.eval), lm-eval's samples, or completions (JSONL).")],
    out: Annotated[Path, typer.Option(help="Folder for verdicts.jsonl.")] = Path("judged"),
    judges: Annotated[str, typer.Option("--judge", help="Judges by commas: rules, xstest, gcg31, ...")] = "rules",
    kind: Annotated[str, typer.Option(help="What the prompts are, where the file does not say.")] = "",
    subject: Annotated[str, typer.Option(help="What to call the model; default: as the file says.")] = "",
) -> None:
    """Judge the replies of an evaluation that another tool ran, and print its rates."""
    from alignment_core.cli import exchange as exchanging
    from alignment_core.text import visible

    for line in exchanging.judge(file, out, judges, kind, subject):
        typer.echo(visible(line))


@app.command()
@guarded
def export(
    run: Annotated[Path, typer.Argument(help="A finished run, such as runs/drift-dpo/tiny.")],
    out: Annotated[Path, typer.Argument(help="Folder for the files.")],
    form: Annotated[str, typer.Option("--format", help="inspect or lm-eval.")] = "inspect",
) -> None:
    """Write a run's replies and verdicts as Inspect logs or lm-eval samples."""
    from alignment_core.cli import exchange as exchanging

    _one_of("--format", form, exchanging.FORMATS)
    for path in exchanging.export(run, out, form):
        typer.echo(path)


@app.command()
@guarded
def power(
    discordant: Annotated[float, typer.Option(help="Share of prompts whose verdict differs between the two.")] = 0.2,
    prompts: Annotated[int | None, typer.Option(help="Prompts, one to a cluster.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Training seeds; 1 speaks of two checkpoints only.")] = None,
    difference: Annotated[float | None, typer.Option(help="True difference of the rates.")] = None,
    target: Annotated[float | None, typer.Option("--power", help="Chance to find it at .05.")] = None,
    seed_sd: Annotated[float, typer.Option(help="Spread over seeds of the true difference.")] = 0.024,
) -> None:
    """Plan an evaluation: leave out one of --prompts, --seeds, --difference and --power, and it is solved for."""
    from alignment_core.stats.power import plan

    try:
        design = plan(
            prompts=prompts, seeds=seeds, difference=difference, power=target, discordant=discordant, seed_sd=seed_sd
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    typer.echo(
        f"{design.prompts} prompts, {design.seeds} seed{'s' if design.seeds != 1 else ''}: a difference of "
        f"{design.difference:.3f} is found with power {design.power:.2f} at {design.alpha:g} "
        f"({design.method}; speaks of {design.estimand})"
    )


@app.command()
@guarded
def label(
    run: Annotated[Path, typer.Argument(help="A finished run, such as runs/drift-dpo/tiny.")],
    size: Annotated[int, typer.Option(help="Replies to label, stratified by state, kind of prompt and verdict.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
    judge: Annotated[str, typer.Option(help="Whose verdicts are checked; default: the deciding judge's.")] = "",
) -> None:
    """Label replies by hand, blind to the verdict, and see the detector's error on this run; q leaves, and resumes."""
    from rich.console import Console

    from alignment_core.evaluation.label import label_run

    if size < 1:
        raise UserError(f"--size {size}: at least 1")
    label_run(run, Console(), size=size, seed=seed, judge=judge)


@app.command()
@guarded
def report(folder: Annotated[Path, typer.Argument(help="A folder with runs in it.")] = Path("runs")) -> None:
    """One page over every finished run under FOLDER: FOLDER/report.html."""
    from alignment_core import io
    from alignment_core.cli.study import installed, report_spec
    from alignment_core.evaluation import results
    from alignment_core.report import overview as joint
    from alignment_core.text import visible

    found = sorted(p for p in folder.glob("**/results.json") if "steps" not in p.relative_to(folder).parts)
    if not found:
        raise UserError(f"{folder}: no finished run (no results.json) in it")
    runs = []
    for path in found:
        run = results.read(path)
        runs.append(joint.JointRun(path.parent, run, report_spec(installed(run.study), run)))
        typer.echo(
            visible(
                f"{path.parent.relative_to(folder).as_posix()}: {run.study}, seeds {', '.join(map(str, run.seeds))}"
            )
        )
    io.write_text(folder / "report.html", joint.render(runs, folder / "report.html"))
    typer.echo(f"report: {folder / 'report.html'}")


@app.command()
@guarded
def headlines(
    studies: Annotated[Path, typer.Argument(help="Folder with the studies' records.")] = Path("studies"),
    write: Annotated[Path | None, typer.Option(help="A page with the markers to write between.")] = None,
) -> None:
    """The studies' measured headlines as a Markdown table."""
    from alignment_core.cli import headlines as room

    if write is None:
        typer.echo(room.table(studies))
    else:
        room.write(studies, write)


@app.command()
@guarded
def selfcheck(
    runs: Annotated[int, typer.Option(help="Simulated data sets a figure; at least 200.")] = 10_000,
    rng_seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 20_260,
) -> None:
    """Does the instrument find a planted effect, and nothing where nothing is? Exit code 1 when it does not."""
    from alignment_core.stats import selfcheck as check

    if runs < 200:
        raise UserError(f"--runs {runs}: at least 200")
    raise typer.Exit(check.main(["--runs", str(runs), "--rng-seed", str(rng_seed)], typer.echo))


@app.command()
@guarded
def doctor(
    runs: Annotated[Path, typer.Option(help="Folder that is to hold the run folders.")] = Path("runs"),
) -> None:
    """Check what every run needs here; `<study> doctor --preset P` checks one preset. Exit code 1 when one fails."""
    from alignment_core import doctor as checks
    from alignment_core.config import Settings
    from alignment_core.pipeline.environment import prepare_process

    prepare_process()
    found = checks.examine(Settings(), runs)
    for line in checks.lines(found):
        typer.echo(line)
    if any(check.state == "fails" for check in found):
        raise typer.Exit(1)


@organism.command("path")
@guarded
def organism_path() -> None:
    """Print the folder of the shipped model."""
    from alignment_core.organism import weights

    typer.echo(weights.path())


@organism.command("info")
@guarded
def organism_info() -> None:
    """Print what the shipped model is: identity, recipe, and its figures on the calibration prompts."""
    import json

    from alignment_core.organism import weights

    typer.echo(f"identity {weights.identity()}")
    typer.echo(json.dumps(weights.card(), indent=1))


@organism.command("build")
@guarded
def organism_build(
    out: Annotated[Path, typer.Argument(help="Folder for the model; must be empty or absent.")],
    seed: Annotated[int | None, typer.Option(help="Seed of the recipe; default: the shipped model's.")] = None,
) -> None:
    """Train the model again from its recipe (minutes on a CPU)."""
    from alignment_core.organism import weights
    from alignment_core.pipeline.environment import prepare_process

    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; name a new folder")
    chosen = int(weights.card()["recipe"]["seed"]) if seed is None else seed
    prepare_process()
    from alignment_core.organism import recipe

    recipe.build(out, chosen, say=typer.echo)
    same = weights.identity(out) == weights.identity()
    typer.echo(f"built: {out} (seed {chosen}; {'identical to' if same else 'not bit-equal to'} the shipped model)")
