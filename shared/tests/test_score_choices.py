"""Digits' probabilities with the questions' common beginning computed once: the same as without, in every family."""

from __future__ import annotations

import pytest
import torch

from alignment_core.config import ModelSettings
from alignment_core.errors import UserError
from alignment_core.models import score
from alignment_core.models.load import load
from alignment_core.models.score import choice_logprobs
from alignment_core.models.template import encode_prompt
from alignment_core.records import Message

OPENING = "Rate the reply by this constitution: do no harm, be kind to everyone, and say why. " * 2
FAMILIES = ("llama", "qwen3", "gemma", "gemma2", "phi", "gpt_neo", "gpt2")


def questions(count: int, opening: str = OPENING) -> list[tuple[Message, ...]]:
    """Questions of many lengths that begin alike."""
    return [(Message("user", opening + "x y z " * (i % 5) + str(i)),) for i in range(count)]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shared_beginning_changes_no_probability(family, tiny_model):
    loaded = load(ModelSettings(name=str(tiny_model(family)), template="own", device="cpu", dtype="float32"))
    asked = questions(11)
    shared = choice_logprobs(loaded, asked, "SCORE: ", "12345", 4)
    alone = choice_logprobs(loaded, asked, "SCORE: ", "12345", 4, share=False)
    for a, b in zip(shared, alone, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
        assert float(a.exp().sum()) == pytest.approx(1, abs=1e-5)


def test_probabilities_are_those_of_the_model_called_by_hand(tiny_model):
    loaded = load(ModelSettings(name=str(tiny_model()), template="own", device="cpu", dtype="float32"))
    asked = questions(3)
    digits = [loaded.tokenizer(f"SCORE: {d}", add_special_tokens=False)["input_ids"][-1] for d in "12345"]
    begin = loaded.tokenizer("SCORE: 1", add_special_tokens=False)["input_ids"][:-1]
    for q, got in zip(asked, choice_logprobs(loaded, asked, "SCORE: ", "12345", 2), strict=True):
        ids = torch.tensor([[*encode_prompt(loaded.tokenizer, q), *begin]])
        with torch.no_grad():
            logits = loaded.model(ids).logits[0, -1, digits]
        assert torch.allclose(got, torch.log_softmax(logits, -1), atol=1e-5)


def test_the_beginning_is_computed_once_and_leaves_every_row_a_token(tiny_model, monkeypatch):
    loaded = load(ModelSettings(name=str(tiny_model()), template="own", device="cpu", dtype="float32"))
    widths: list[tuple[int, int]] = []
    real = loaded.model.forward

    def counted(*args, **kwargs):
        widths.append(tuple(kwargs["input_ids"].shape))
        return real(*args, **kwargs)

    monkeypatch.setattr(loaded.model, "forward", counted)
    same = [questions(1)[0]] * 5
    choice_logprobs(loaded, same, "SCORE: ", "12345", 2)
    assert widths[0][0] == 1
    assert [w[1] for w in widths[1:]] == [1, 1, 1]  # equal questions: all but the last token are shared


def test_sliding_windows_and_short_beginnings_are_not_shared(tiny_model):
    sliding = load(ModelSettings(name=str(tiny_model("gemma2")), template="own", device="cpu", dtype="float32"))
    assert score._prefix_cache(sliding, [[*range(40), 1], [*range(40), 2]]) is None
    plain = load(ModelSettings(name=str(tiny_model()), template="own", device="cpu", dtype="float32"))
    assert score._prefix_cache(plain, [[1, 2, 3], [1, 2, 4]]) is None
    assert score._prefix_cache(plain, [[*range(40), 1]]) is None
    kept = score._prefix_cache(plain, [[*range(40), 1], [*range(40), 2, 3]])
    assert kept.get_seq_length() == 40


def test_a_question_beyond_the_context_is_none_and_the_rest_stay(tiny_model):
    loaded = load(ModelSettings(name=str(tiny_model()), template="own", device="cpu", dtype="float32"))
    asked = [*questions(2), (Message("user", OPENING + "x " * 2000),)]
    found = choice_logprobs(loaded, asked, "SCORE: ", "12345", 4)
    assert [row is None for row in found] == [False, False, True]


def by_hand(loaded, asked, text: str, tokens: int | None = None) -> float:
    """Log-probability of a reply's first tokens, one by one."""
    ids = encode_prompt(loaded.tokenizer, asked)
    reply = loaded.tokenizer(text, add_special_tokens=False)["input_ids"][:tokens]
    with torch.no_grad():
        rows = torch.log_softmax(loaded.model(torch.tensor([[*ids, *reply]])).logits[0], -1)
    return sum(float(rows[len(ids) + k - 1, token]) for k, token in enumerate(reply))


def test_choices_are_compared_by_their_first_token(tiny_model):
    loaded = load(ModelSettings(name=str(tiny_model()), template="own", device="cpu", dtype="float32"))
    asked, choices = questions(3), (" refusal", " partial", " compliance", " incoherent")
    coded = [loaded.tokenizer(f"VERDICT:{c}", add_special_tokens=False)["input_ids"] for c in choices]
    first = 1 + next(i for i, tokens in enumerate(zip(*coded, strict=False)) if len(set(tokens)) > 1)
    assert len({tuple(ids[:first]) for ids in coded}) == len(choices)
    for q, row in zip(asked, choice_logprobs(loaded, asked, "VERDICT:", choices, 2), strict=True):
        sums = torch.tensor([by_hand(loaded, q, f"VERDICT:{c}", first) for c in choices])
        assert torch.allclose(row, torch.log_softmax(sums, -1), atol=1e-3)


def test_choices_with_one_first_token_are_compared_whole(tiny_model):
    loaded = load(ModelSettings(name=str(tiny_model()), template="own", device="cpu", dtype="float32"))
    asked, choices = questions(3), (" abc", " abd", " xyz")  # two begin alike
    for q, row in zip(asked, choice_logprobs(loaded, asked, "VERDICT:", choices, 2), strict=True):
        sums = torch.tensor([by_hand(loaded, q, "VERDICT:" + c) for c in choices])
        assert torch.allclose(row, torch.log_softmax(sums, -1), atol=1e-3)


def test_a_choice_that_begins_another_is_refused(tiny_model):
    loaded = load(ModelSettings(name=str(tiny_model()), template="own", device="cpu", dtype="float32"))
    with pytest.raises(UserError, match="as the beginning of another"):
        choice_logprobs(loaded, questions(1), "SCORE: ", ("1", "10"), 4)
