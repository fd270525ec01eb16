"""Reply loss and first-token distributions: against the model called by hand, one text at a time."""

from __future__ import annotations

import math

import pytest
import torch

from alignment_core.config import ModelSettings
from alignment_core.errors import UserError
from alignment_core.models import miniature
from alignment_core.models.load import load
from alignment_core.models.score import choice_logprobs, first_token_logprobs, reply_loss
from alignment_core.models.template import encode_example, encode_prompt
from alignment_core.records import Message, Prompt


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = miniature.build(tmp_path_factory.mktemp("model"))
    return load(ModelSettings(name=str(folder), template="own", device="cpu", dtype="float32"))


PROMPTS = [
    Prompt(id=f"p{i}", messages=(Message("user", "ask " * (1 + 3 * i % 7) + str(i)),), kind="benign", reference=r)
    for i, r in enumerate(["short", "a rather longer reply", "", "mid size", "x"])
]


def test_reply_loss_is_the_mean_over_reply_tokens_alone(loaded):
    got = reply_loss(loaded, PROMPTS, batch_size=3)
    assert [row.prompt_id for row in got] == [p.id for p in PROMPTS]
    for prompt, row in zip(PROMPTS, got, strict=True):
        if not prompt.reference:
            assert math.isnan(row.loss)
            assert row.tokens == 0
            continue
        ids, mask = encode_example(loaded.tokenizer, (*prompt.messages, Message("assistant", prompt.reference)))
        prefix = encode_prompt(loaded.tokenizer, prompt.messages)
        assert ids[: len(prefix)] == prefix
        assert row.tokens == len(prompt.reference) + 1  # one token a byte, and the end of turn
        with torch.no_grad():
            scores = torch.log_softmax(loaded.model(torch.tensor([ids])).logits[0], dim=-1)
        losses = [-float(scores[t - 1, ids[t]]) for t in range(len(ids)) if mask[t]]
        assert row.loss == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_reply_loss_does_not_depend_on_the_batch(loaded):
    one, many = reply_loss(loaded, PROMPTS, batch_size=1), reply_loss(loaded, PROMPTS, batch_size=5)
    for a, b in zip(one, many, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=1e-5, nan_ok=True)


def test_replies_may_be_given(loaded):
    given = reply_loss(loaded, PROMPTS[:1], ["short"])
    assert given[0].loss == pytest.approx(reply_loss(loaded, PROMPTS[:1])[0].loss, abs=1e-6)
    with pytest.raises(ValueError, match="1 prompts, 2 replies"):
        reply_loss(loaded, PROMPTS[:1], ["a", "b"])


def test_first_token_distributions_match_one_by_one(loaded):
    got = first_token_logprobs(loaded, PROMPTS, batch_size=4)
    assert torch.allclose(got.exp().sum(-1), torch.ones(len(PROMPTS)), atol=1e-5)
    for prompt, row in zip(PROMPTS, got, strict=True):
        with torch.no_grad():
            logits = loaded.model(torch.tensor([encode_prompt(loaded.tokenizer, prompt.messages)])).logits[0, -1]
        assert torch.allclose(row, torch.log_softmax(logits, -1), atol=1e-5)


def test_texts_beyond_the_context_are_named(loaded):
    long = Prompt(id="long", messages=(Message("user", "x" * 2000),), kind="benign", reference="y")
    with pytest.raises(UserError, match=r"1 of 1 texts .* 1024 tokens.*'long'"):
        reply_loss(loaded, [long])
    with pytest.raises(UserError, match="'long'"):
        first_token_logprobs(loaded, [long])


def test_choices_are_weighed_against_each_other_after_the_prefix(loaded):
    asked = [(Message("user", "Rate this from one to five, please: " + "x" * n),) for n in (3, 40, 0, 12)]
    long = (Message("user", "x" * 2000),)
    got = choice_logprobs(loaded, [*asked, long], "SCORE: ", "123", batch_size=3)
    assert got[4] is None
    for question, row in zip(asked, got, strict=False):
        ids = [*encode_prompt(loaded.tokenizer, question), *loaded.tokenizer("SCORE: ")["input_ids"]]
        with torch.no_grad():
            logits = loaded.model(torch.tensor([ids])).logits[0, -1]
        digits = [loaded.tokenizer(d)["input_ids"][0] for d in "123"]
        assert torch.allclose(row, torch.log_softmax(logits[digits], -1), atol=1e-5)


def test_choices_that_share_a_first_token_are_weighed_whole(loaded):
    asked = [(Message("user", "Rate this from ten to twelve."),)]
    (row,) = choice_logprobs(loaded, asked, "SCORE: ", ["10", "12"])
    whole = []
    for choice in ("10", "12"):
        tokens = loaded.tokenizer(choice)["input_ids"]
        ids = [*encode_prompt(loaded.tokenizer, asked[0]), *loaded.tokenizer("SCORE: ")["input_ids"]]
        with torch.no_grad():
            logits = loaded.model(torch.tensor([[*ids, *tokens]])).logits[0, len(ids) - 1 : -1].log_softmax(-1)
        whole.append(sum(logits[i, token] for i, token in enumerate(tokens)))
    assert len(tokens) > 1
    assert torch.allclose(row, torch.log_softmax(torch.stack(whole), -1), atol=1e-4)
