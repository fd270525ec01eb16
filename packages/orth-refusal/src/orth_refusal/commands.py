"""The commands beside the steps: sorry-bench, synthesize, push, pull. Nothing heavy before one needs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignment_core.cli.build import command
from alignment_core.cli.guard import guarded
from alignment_core.cli.study import Options, Study, settings, target

if TYPE_CHECKING:
    from orth_refusal.config import OrthConfig

_ADAPTERS = Annotated[list[str], typer.Option("--adapter", help="NAME=FOLDER, for example vanilla=runs/.../adapter.")]
_NAMESPACE = Annotated[str, typer.Option(help="Your user or organisation on the hub.")]
_PUBLIC = Annotated[bool, typer.Option("--public", help="Make the repositories public; private without it.")]
_WEAKENED = Annotated[
    bool,
    typer.Option(
        "--publish-weakened",
        help="Second consent: also an adapter trained to weaken refusals may be public; it is tagged and gated.",
    ),
]
_RESULTS = Annotated[Path | None, typer.Option(help="A results.json, whose figures go into the model card.")]
_PRESET = Annotated[str, typer.Option(help="Settings to start from.")]
_OVERRIDES = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")]
_NAMES = Annotated[list[str], typer.Option("--name", help="Adapter to fetch, for example vanilla.")]
_INTO = Annotated[Path, typer.Option("--into", help="Folder for the adapters, a subfolder each.")]
_REVISION = Annotated[str | None, typer.Option(help="Commit to fetch; without it the newest.")]


def _prepared(options: Options, study: Study) -> tuple[OrthConfig, Path, Any]:
    """The settings, the run folder, and the log of a command beside the steps."""
    from alignment_core.cli.live import quiet_level, terminal_log
    from alignment_core.pipeline.environment import prepare_process

    config, folder = target(study, options)
    prepare_process()
    return config, folder, terminal_log(("alignment_core", study.package), quiet_level(options, first=True))


def sorry_bench(study: Study, options: Options) -> None:
    """Ask every endpoint that is named, judge, and print the table."""
    from orth_refusal import sorry_bench as bench

    config, folder, log = _prepared(options, study)
    if options.dry_run:
        typer.echo(bench.plan(config))
        return
    with log:
        typer.echo(bench.run(config, folder / "sorry_bench", accept_missing=options.accept_missing))


def synthesize(study: Study, options: Options) -> None:
    """Make more attack pairs and say where they are."""
    config, folder, log = _prepared(options, study)
    if options.dry_run:
        typer.echo(f"{config.synthesize.rows} requests to {config.model.name}, kept in {folder / 'synthetic'}")
        return
    from orth_refusal import synthesize as synthesis

    with log:
        typer.echo(synthesis.run(config, folder / "synthetic"))


def add(app: typer.Typer, study: Study) -> None:
    """Put this study's own commands on its app."""

    @guarded
    def push(
        namespace: _NAMESPACE,
        adapter: _ADAPTERS,
        public: _PUBLIC = False,
        publish_weakened: _WEAKENED = False,
        results: _RESULTS = None,
        preset: _PRESET = "tiny",
        overrides: _OVERRIDES = None,
    ) -> None:
        """Upload adapters with a generated model card; private by default. Token from HF_TOKEN."""
        from orth_refusal import hub

        config, _ = settings(study, preset, None, overrides or [])
        consent = hub.Consent(public, publish_weakened)
        for line in hub.push(config, namespace, adapter, consent, results):
            typer.echo(line)

    @guarded
    def pull(
        namespace: _NAMESPACE,
        name: _NAMES,
        into: _INTO,
        revision: _REVISION = None,
        preset: _PRESET = "tiny",
        overrides: _OVERRIDES = None,
    ) -> None:
        """Fetch adapters from the hub, safetensors only, checked before they are kept."""
        from orth_refusal import hub

        config, _ = settings(study, preset, None, overrides or [])
        for line in hub.pull(config, namespace, name, into, revision):
            typer.echo(line)

    def body(function: Any) -> Any:
        return lambda options: function(study, options)

    text = "Ask base, vanilla and orthogonal endpoints SORRY-Bench, judge by another, and tabulate by category."
    app.command("sorry-bench")(command(study, body(sorry_bench), text))
    text = "Make more attack pairs with a model, de-duplicated against every evaluation set; written locally only."
    app.command("synthesize")(command(study, body(synthesize), text))
    app.command("push")(push)
    app.command("pull")(pull)
