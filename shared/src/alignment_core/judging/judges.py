"""The judges by name: what each is, how it is opened before a run, what decides its verdicts, and how it is run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.config import EndpointSettings, ModelSettings
from alignment_core.errors import UserError, nearest
from alignment_core.judging import critics
from alignment_core.judging.critics import CriticJudge
from alignment_core.judging.detectors import DETECTORS
from alignment_core.judging.model_judges import EndpointJudge, ModelJudge
from alignment_core.judging.question import QUESTION
from alignment_core.judging.settings import CriticSettings, JudgeSettings
from alignment_core.judging.text_judges import DetectorJudge, RulesJudge
from alignment_core.judging.verdicts import Judge, NoVerdicts, require_verdicts, source_hash
from alignment_core.pipeline.process_group import process_group
from alignment_core.records import Completion, Verdict

if TYPE_CHECKING:
    from alignment_core.models.load import Loaded

__all__ = [
    "JUDGES",
    "CriticSettings",
    "Judge",
    "JudgeSettings",
    "NoVerdicts",
    "check_judges",
    "judge_all",
    "judge_names",
    "judges_identity",
    "make_judges",
    "require_verdicts",
]

RULES_FILES = ("refusal.py", "refusal_phrases.py", "refusal_languages.py", "reading.py", "coherence.py")


@dataclass(frozen=True)
class Entry:
    """One judge of the registry; every function takes the judges' settings."""

    about: str
    """What it is, in one line."""
    make: Callable[[JudgeSettings], Judge]
    """The judge; loads no model."""
    identity: Callable[[JudgeSettings], Any]
    """What decides its verdicts, as JSON for a step's key; loads no weights, and holds no address or key."""
    check: Callable[[JudgeSettings], None] = lambda _: None
    """`UserError` when it could not judge; loads no weights."""
    together: bool = False
    """Whether all processes of a group work on it."""


def _question_identity(settings: JudgeSettings, how: str) -> str:
    """What decides the judging question and its reading."""
    asked = f"{how}{QUESTION}{settings.max_chars}{settings.max_new_tokens}{source_hash('question.py')}"
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def _model_identity(settings: JudgeSettings) -> dict[str, Any]:
    from alignment_core.models.load import identity

    return {"model": identity(settings.model), "question": _question_identity(settings, settings.reads)}


def _endpoint_identity(settings: JudgeSettings) -> dict[str, Any]:
    of = settings.endpoint.model_dump(mode="json", include={"model", "max_tokens", "tokens_field", "temperature"})
    return {"model": of, "question": _question_identity(settings, "generate")}


def _critic_identity(settings: JudgeSettings) -> dict[str, Any]:
    return critics.identity(settings.critic, critics.own_constitution(settings.critic))


def _check_model(model: ModelSettings) -> None:
    from alignment_core.models.load import identity

    identity(model)


def _check_endpoint(settings: EndpointSettings, setting: str) -> None:
    if not settings.model:
        raise UserError(f"{setting}.model is empty: name the model as the server at {settings.base_url} knows it")
    from alignment_core.models.endpoint import check

    check(settings)


def _check_critic(settings: JudgeSettings) -> None:
    how = settings.critic
    critics.own_constitution(how)
    if how.via == "endpoint":
        return _check_endpoint(how.endpoint, "judging.critic.endpoint")
    if how.style == "organism" and how.model.revision is not None:
        raise UserError("critic.style=organism is the embedded model's own question: set critic.style=instruct")
    _check_model(how.model)


def _model_judge(settings: JudgeSettings) -> Judge:
    def load() -> Loaded:
        from alignment_core.models import load

        return load.load(settings.model)

    return ModelJudge(load, settings)


def _detector(name: str) -> Entry:
    about = (DETECTORS[name].__doc__ or name).split("\n")[0]
    return Entry(about, lambda _: DetectorJudge(name), lambda _: source_hash("detectors.py"))


JUDGES: dict[str, Entry] = {
    "rules": Entry(
        "The core's refusal rules: how a reply opens, and what it goes on to do.",
        lambda _: RulesJudge(),
        lambda _: source_hash(*RULES_FILES),
    ),
    **{name: _detector(name) for name in DETECTORS},
    "model": Entry(
        "A local model that gives one of four labels (judging.model).",
        _model_judge,
        _model_identity,
        lambda settings: _check_model(settings.model),
        together=True,
    ),
    "critic": Entry(
        "A model that scores replies from 1 to 5 against a constitution (judging.critic).",
        lambda settings: CriticJudge(settings.critic),
        _critic_identity,
        _check_critic,
        together=True,
    ),
    "endpoint": Entry(
        "A model behind an OpenAI-compatible URL that gives one of four labels (judging.endpoint).",
        EndpointJudge,
        _endpoint_identity,
        lambda settings: _check_endpoint(settings.endpoint, "judging.endpoint"),
    ),
}
"""Name on the command line to judge."""


def judge_names(names: str) -> list[str]:
    """`"rules, gcg31"` to its parts; `UserError` for an unknown or repeated name, with the nearest one or a way on."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in JUDGES:
            hint = nearest(name, JUDGES) or (
                f"; a model behind a URL is judge=endpoint judging.endpoint.model={name}, a local one is judge=model "
                f"judging.model.name={name}"
            )
            raise UserError(f"no judge {name!r}{hint}; there are {', '.join(JUDGES)}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise UserError(f"judge={names!r}: name each judge once, for example rules,gcg31")
    return wanted


def check_judges(names: str, settings: JudgeSettings) -> None:
    """Open each judge before a run, without loading weights; `UserError` says which could not judge, and why.

    An endpoint is asked for one tiny completion; a local model's folder and settings are resolved.
    """
    for name in judge_names(names):
        try:
            JUDGES[name].check(settings)
        except UserError as error:
            raise UserError(f"judge {name}: {error}") from error


def make_judges(names: str, settings: JudgeSettings | None = None) -> list[Judge]:
    """Judges by name, in that order. Loads no model yet."""
    how = settings or JudgeSettings()
    return [JUDGES[name].make(how) for name in judge_names(names)]


def judges_identity(names: str, settings: JudgeSettings | None = None) -> dict[str, Any]:
    """What decides the verdicts, as JSON for a step's key; no weights are loaded, and no key is in it."""
    how = settings or JudgeSettings()
    return {name: JUDGES[name].identity(how) for name in judge_names(names)}


def judge_all(
    names: str,
    completions: Sequence[Completion],
    folder: Path,
    settings: JudgeSettings | None = None,
    *,
    accept_missing: bool = False,
) -> list[Verdict]:
    """Verdicts of every named judge, the first judge's first; each judge's own stand in `folder` as
    `verdicts_<judge>.jsonl`. Of several processes all work on a local model's, the first on the others.

    Raises `NoVerdicts` when all of a judge's are missing, and `Unfinished` when calls to a server failed in passing,
    unless `accept_missing`.
    """
    out: list[Verdict] = []
    for judge in make_judges(names, settings):
        file = folder / f"verdicts_{judge.name}.jsonl"
        work = partial(judge.judge, completions, file, accept_missing=accept_missing)
        given = work() if JUDGES[judge.name].together else process_group().broadcast(work)
        require_verdicts(given)
        out += given
    return out
