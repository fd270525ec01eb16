"""Which chat template a model gets: its tokenizer's own, unless one of ours writes the same or is asked for by name.

A template that is not the model's own puts every figure off the model's distribution without a word. So `auto` renders
probe conversations by the tokenizer's own template, takes one of ours (which mark replies for training) only where it
writes the same text, and says so where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.embedded import embedded_seed
from alignment_core.errors import UserError
from alignment_core.models import probes
from alignment_core.models.template import FAMILIES, TOKENS, Template, source, with_bos

if TYPE_CHECKING:
    from alignment_core.config import ModelSettings

_CHAT = tuple(family for family in FAMILIES if family != "plain")
_CHOICES = f"set model.template=plain for a base model, or to the model's family ({', '.join(_CHAT)})"


def own_text(tokenizer: Any) -> str | None:
    """The tokenizer's own chat template; of several the one named `default`; None where there is none."""
    own = tokenizer.chat_template
    return own.get("default") if isinstance(own, dict) else own


def template_for(settings: ModelSettings, tokenizer: Any) -> Template:
    """The template for a model. Raises `UserError` where `auto` or `own` is asked of a tokenizer that has none, or a
    family of a tokenizer that lacks the family's special tokens."""
    own, name, shown = own_text(tokenizer), settings.template, _named(settings)
    if name == "organism" and not embedded_seed(settings.name):
        raise UserError(f"model.template=organism belongs to the embedded models, not to {settings.name}; try auto")
    if embedded_seed(settings.name) and own is not None and name in ("auto", "organism"):
        return Template("own", own, (tokenizer.eos_token,))
    if name in FAMILIES:
        return _by_name(name, own, tokenizer, shown)
    if own is None:
        raise UserError(f"{settings.name}: its tokenizer has no chat template; {_CHOICES}")
    given = _with(tokenizer, own)
    if name == "auto":
        return _automatic(given, shown)
    found = _own(given, shown, probes.renderings(given))
    return found if found.notes[0] != _plainly(shown) else replace(found, notes=())


def _named(settings: ModelSettings) -> str:
    """The model's name in a sentence that results keep: of a folder its last part."""
    folder = Path(settings.name).expanduser()
    return folder.resolve().name if folder.is_dir() else settings.name


def _with(tokenizer: Any, text: str) -> Any:
    """The tokenizer with another chat template; the given one is not changed."""
    other = copy(tokenizer)
    other.chat_template = text
    return other


def _lacking(name: str, tokenizer: Any) -> str:
    """The first special token of a family's template that the tokenizer lacks; empty where it has them all."""
    vocabulary = tokenizer.get_vocab()
    if lacks := next((token for token in TOKENS[name] if token not in vocabulary), ""):
        return lacks
    if "bos_token" in source(name) and tokenizer.bos_token is None:
        return "a beginning-of-text token"
    return "" if TOKENS[name] or tokenizer.eos_token is not None else "an end-of-text token"


def _family(name: str, tokenizer: Any) -> Template:
    """Our template of a family, for a tokenizer that lacks none of its tokens."""
    text = source(name)
    ends = TOKENS[name][-1:] or (tokenizer.eos_token,)
    return Template(name, with_bos(text) if name == "plain" and adds_bos(tokenizer) else text, ends)


def adds_bos(tokenizer: Any) -> bool:
    """True when the tokenizer itself opens a text with BOS, which is how its model was trained."""
    ids = tokenizer("x")["input_ids"]
    return bool(ids) and tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


def _by_name(name: str, own: str | None, tokenizer: Any, shown: str) -> Template:
    """A family's template that settings name; where it is not the tokenizer's own, a note says so."""
    if lacks := _lacking(name, tokenizer):
        raise UserError(
            f"model.template={name} writes {lacks}, which the tokenizer of {shown} does not have; set "
            "model.template=auto, own or plain"
        )
    found = _family(name, tokenizer)
    if own is None or own == found.text:
        return found
    try:
        told = _told(_different(probes.renderings(_with(tokenizer, own)), tokenizer, found))
    except UserError as error:
        told = str(error)
    note = f"{shown}: model.template={name} is not the tokenizer's own chat template: {told}."
    return Template(name, found.text, found.ends, (note,)) if told else found


def _automatic(given: Any, shown: str) -> Template:
    """The one of ours that writes what the own template writes, or the own one with a note."""
    theirs = probes.renderings(given)
    tried = [_family(name, given) for name in _CHAT if not _lacking(name, given)]
    different = {found.name: _different(theirs, given, found) for found in tried}
    for found in tried:
        if not different[found.name]:
            return found
    nearest = min(different, key=lambda name: len(different[name]), default=None)
    if nearest is None or len(different[nearest]) == len(probes.PROBES):
        return _own(given, shown, theirs)
    return _own(given, shown, theirs, f"ours for {nearest} is another: {_told(different[nearest])}")


def _different(theirs: Mapping[str, str | None], tokenizer: Any, found: Template) -> list[str]:
    """Names of the probe conversations that `found` writes otherwise than the own template wrote them."""
    return probes.differences(theirs, probes.renderings(_with(tokenizer, found.text)))


def _told(different: list[str]) -> str:
    if not different:
        return ""
    return f"{len(different)} of {len(probes.PROBES)} probe conversations differ, first {different[0]!r}"


def _plainly(shown: str) -> str:
    """The note where there is nothing to say of the own template; settings that ask for it need none."""
    return f"{shown}: the tokenizer's own chat template is used."


def _own(given: Any, shown: str, theirs: Mapping[str, str | None], *reasons: str) -> Template:
    """The tokenizer's own template, with a note on what it does."""
    obstacle = probes.obstacle(given)
    refused = [f"no reply can be trained by it: {obstacle}"] if obstacle else []
    said = "; ".join((*reasons, *probes.remarks(given, theirs), *refused))
    note = f"{_plainly(shown)[:-1]}: {said}." if said else _plainly(shown)
    ends = (*probes.ends(given), *filter(None, [given.eos_token]))
    return Template("own", given.chat_template, tuple(dict.fromkeys(ends)), (note,), obstacle)
