"""Batched generation: the same text as one prompt at a time, through kills, shares and sampling."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignment_core.config import GenerateSettings
from alignment_core.errors import UserError
from alignment_core.io import Journal
from alignment_core.models import generate as module
from alignment_core.models.generate import Slot, batches, encode, generate, reply_tokens
from alignment_core.models.load import Loaded
from alignment_core.models.sampling import gumbel, nucleus, row_key, uniforms
from alignment_core.pipeline.process_group import ProcessGroup
from alignment_core.records import Message, Prompt
from alignment_core.testing import in_threads

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


@pytest.fixture(scope="module")
def loaded():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<end>": 1} | {letter: i + 2 for i, letter in enumerate(letters)}
    raw = Tokenizer(models.BPE(vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<end>")
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=96, initializer_range=0.3, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    # What a model's own file may ask for: none of it may reach a greedy reply.
    model.generation_config.update(do_sample=True, temperature=0.6, top_p=0.9, repetition_penalty=1.3)
    with torch.no_grad():
        model.lm_head.weight[1] *= 0.8  # replies of many lengths
    return Loaded(model, tokenizer, "cpu", "float32", "own", (1,))


def prompts(count: int) -> list[Prompt]:
    texts = [("q" * (1 + 7 * i % 23)) + str(i) for i in range(count)]
    return [
        Prompt(id=f"p{i}", messages=(Message("user", t),), kind="benign", reference="GOLD ANSWER")
        for i, t in enumerate(texts)
    ]


def settings(**values) -> GenerateSettings:
    return GenerateSettings(**({"max_new_tokens": 12, "batch_size": 4} | values))


def texts(rows) -> list[str]:
    return [row.text for row in rows]


def one_by_one(loaded, asked, length: int) -> list[list[int]]:
    """Greedy by hand: no padding, no cache, one token after the other."""
    out = []
    for ids in encode(asked, loaded, length):
        reply: list[int] = []
        while len(reply) < length and (not reply or reply[-1] != 1):
            with torch.no_grad():
                logits = loaded.model(torch.tensor([ids + reply])).logits[0, -1]
            reply.append(int(logits.argmax()))
        out.append(reply)
    return out


def test_batches_are_fixed_slices_longest_first():
    assert batches([3, 9, 3, 5], 1, 3) == [[Slot(1, 0), Slot(3, 0), Slot(0, 0)], [Slot(2, 0)]]
    assert batches([1, 2], 2, 3) == [[Slot(1, 0), Slot(1, 1), Slot(0, 0)], [Slot(0, 1)]]
    assert batches([], 1, 4) == []


def test_left_padded_batches_reply_as_one_by_one(loaded, tmp_path):
    asked = prompts(10)
    rows = generate(asked, settings(), loaded, subject="s", seed=1, file=tmp_path / "c.jsonl")
    alone = one_by_one(loaded, asked, 12)
    expected = [loaded.tokenizer.decode(reply, skip_special_tokens=True) for reply in alone]
    assert texts(rows) == expected
    assert [row.tokens for row in rows] == [len(reply) for reply in alone]
    assert [row.finish for row in rows] == ["stop" if reply[-1] == 1 else "length" for reply in alone]
    assert {row.finish for row in rows} == {"stop", "length"}
    assert [row.prompt_id for row in rows] == [p.id for p in asked]


def test_the_gold_answer_never_reaches_the_model(loaded):
    asked = prompts(3)
    for ids, prompt in zip(encode(asked, loaded, 4), asked, strict=True):
        assert loaded.tokenizer.decode(ids) == f"<user>{prompt.text}<a>"


def test_only_new_tokens_are_decoded(loaded, tmp_path):
    for row in generate(prompts(4), settings(), loaded, subject="s", seed=1, file=tmp_path / "c.jsonl"):
        assert "<user>" not in row.text
        assert "<end>" not in row.text
        assert "<pad>" not in row.text


def test_a_kill_before_the_journals_end_leaves_none(loaded, tmp_path):
    file = tmp_path / "c.jsonl"
    made = generate(prompts(4), settings(), loaded, subject="s", seed=1, file=file)
    left = [tmp_path / f".c.jsonl.{end}" for end in ("journal", "journal.1", "served.journal")]
    for path in left:
        path.write_text("{}\n")
    assert generate(prompts(4), settings(), loaded, subject="s", seed=1, file=file) == made
    assert not [path for path in left if path.exists()]


def test_a_kill_loses_one_batch_and_changes_nothing(loaded, tmp_path, monkeypatch):
    asked, whole, broken = prompts(10), tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    sampled = settings(temperature=1.0, candidates=2)
    generate(asked, sampled, loaded, subject="s", seed=1, file=whole)
    real, calls = module._run_batch, []

    def killed(slots, *rest):
        calls.append(slots)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(slots, *rest)

    monkeypatch.setattr(module, "_run_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        generate(asked, sampled, loaded, subject="s", seed=1, file=broken)
    assert not broken.exists()
    journal = tmp_path / ".broken.jsonl.journal"
    with journal.open("ab") as stream:
        stream.write(b'{"batch": 2, "repl')  # the line that was being written
    generate(asked, sampled, loaded, subject="s", seed=1, file=broken)
    assert len(calls) == 3 + 3  # 20 replies in 5 batches: two were kept, three were made
    assert broken.read_bytes() == whole.read_bytes()
    assert not journal.exists()


def test_a_whole_file_is_not_made_again(loaded, tmp_path, monkeypatch):
    file = tmp_path / "c.jsonl"
    first = generate(prompts(5), settings(), loaded, subject="s", seed=1, file=file)
    monkeypatch.setattr(module, "_run_batch", None)
    assert generate(prompts(5), settings(), loaded, subject="s", seed=1, file=file) == first


@pytest.mark.parametrize("change", [{"seed": 2}, {"settings": settings(temperature=0.5)}, {"prompts": prompts(6)}])
def test_a_file_of_another_plan_is_refused(loaded, tmp_path, change):
    arguments = {"prompts": prompts(5), "settings": settings(), "loaded": loaded, "subject": "s", "seed": 1}
    arguments["file"] = tmp_path / "c.jsonl"
    generate(**arguments)
    with pytest.raises(UserError, match="another plan"):
        generate(**(arguments | change))


@pytest.mark.parametrize("world", [2, 3, 7])
def test_a_team_makes_the_same_file_as_one_process(loaded, tmp_path, monkeypatch, world):
    asked, sampled = prompts(9), settings(temperature=1.0, batch_size=2, candidates=2)
    whole = generate(asked, sampled, loaded, subject="s", seed=1, file=tmp_path / "whole.jsonl")
    made: list[int] = []
    real = module._run_batch
    monkeypatch.setattr(module, "_run_batch", lambda slots, *a: (made.append(len(slots)), real(slots, *a))[1])
    models = [replace(loaded, model=copy.deepcopy(loaded.model)) for _ in range(world)]
    file = tmp_path / "team.jsonl"
    arguments = {"subject": "s", "seed": 1, "file": file}
    found = in_threads(world, lambda member: generate(asked, sampled, models[member.rank], **arguments))
    assert found == [whole] * world
    assert file.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert made == [2] * 9  # each batch once
    assert [p.name for p in tmp_path.iterdir() if "journal" in p.name] == []


class _Killed(Exception):
    pass


@pytest.mark.parametrize("again", [1, 2, 3])
def test_a_stopped_team_is_continued_by_any_number(loaded, tmp_path, monkeypatch, again):
    asked, sampled = prompts(9), settings(temperature=1.0, batch_size=2)
    whole = generate(asked, sampled, loaded, subject="s", seed=1, file=tmp_path / "whole.jsonl")
    models = [replace(loaded, model=copy.deepcopy(loaded.model)) for _ in range(3)]
    real, made = module._run_batch, []
    file = tmp_path / "team.jsonl"

    def work(member):
        return generate(asked, sampled, models[member.rank], subject="s", seed=1, file=file)

    def first_batch_only(member, todo, answer, *_):
        answer(todo[member.rank])
        member.barrier()
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(ProcessGroup, "map_batches", first_batch_only)
        with pytest.raises(_Killed):
            in_threads(3, work)
    assert len([p for p in tmp_path.iterdir() if "journal" in p.name]) == 3
    monkeypatch.setattr(module, "_run_batch", lambda *a: (made.append(1), real(*a))[1])
    assert in_threads(again, work) == [whole] * again
    assert file.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(made) == 2  # 5 batches, of which each of the three had done one
    assert [p.name for p in tmp_path.iterdir() if "journal" in p.name] == []


def test_a_sampled_reply_depends_on_its_place_alone(loaded, tmp_path):
    asked = prompts(8)
    wide = generate(
        asked, settings(temperature=1.0, candidates=3), loaded, subject="s", seed=1, file=tmp_path / "a.jsonl"
    )
    alone = generate(
        asked[5:6], settings(temperature=1.0, candidates=2, batch_size=1), loaded, subject="s", seed=1,
        file=tmp_path / "b.jsonl",
    )  # fmt: skip
    assert texts(alone) == texts(wide[15:17])
    other = generate(
        asked, settings(temperature=1.0, candidates=3), loaded, subject="s", seed=2, file=tmp_path / "c.jsonl"
    )
    assert sum(a == b for a, b in zip(texts(wide), texts(other), strict=True)) < 8
    assert len(set(texts(wide))) > 12


def test_the_models_own_sampling_settings_are_put_back(loaded):
    reply_tokens([[5, 6]], settings(), loaded, [0])
    assert loaded.model.generation_config.repetition_penalty == 1.3


def test_prompts_beyond_the_context_are_an_error_before_anything_is_made(loaded, tmp_path):
    long = Prompt(id="long", messages=(Message("user", "x" * 90),), kind="benign")
    with pytest.raises(UserError, match=r"1 of 3 prompts.*context of 96.*'long' with 99 tokens"):
        generate([*prompts(2), long], settings(), loaded, subject="s", seed=1, file=tmp_path / "c.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_batch_too_large_for_the_device_says_which_setting(loaded, monkeypatch):
    def full(**_):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(loaded.model, "generate", full)
    with pytest.raises(UserError, match="lower batch_size below 2"):
        reply_tokens([[5, 6], [7]], settings(), loaded, [0, 0])


def test_repeated_prompt_ids_are_an_error(loaded, tmp_path):
    with pytest.raises(UserError, match="ids repeat"):
        generate(prompts(2) * 2, settings(), loaded, subject="s", seed=1, file=tmp_path / "c.jsonl")


def test_bfloat16_restart_repeats_its_batches(loaded, tmp_path, monkeypatch):
    half = replace(loaded, model=LlamaForCausalLM(loaded.model.config).to(torch.bfloat16))
    a = generate(prompts(10), settings(), half, subject="s", seed=1, file=tmp_path / "a.jsonl")
    calls: list[int] = []

    def stopped(*args, **more):
        calls.append(1)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return real(*args, **more)

    real = module._run_batch
    monkeypatch.setattr(module, "_run_batch", stopped)
    with pytest.raises(KeyboardInterrupt):
        generate(prompts(10), settings(), half, subject="s", seed=1, file=tmp_path / "b.jsonl")
    monkeypatch.setattr(module, "_run_batch", real)
    assert generate(prompts(10), settings(), half, subject="s", seed=1, file=tmp_path / "b.jsonl") == a


def test_uniforms_are_splitmix64_and_look_uniform():
    # SplitMix64 from state 1234567 yields 6457827717110365317, 3203168211198807973, … (published test vector);
    # uniforms() starts its stream at mix(key + golden), so the same finaliser is checked through the integers.
    from alignment_core.models.sampling import _GOLDEN, _mix, _mix_int, _signed

    assert _mix_int(1234567 + _GOLDEN) == 6457827717110365317
    assert _mix_int(1234567 + 2 * _GOLDEN) == 3203168211198807973
    assert int(_mix(torch.tensor([_signed(1234567 + _GOLDEN)]))[0]) == 6457827717110365317
    u = uniforms([row_key(1, "p", c) for c in range(50)], 0, 2000)
    assert u.dtype == torch.float64
    assert float(u.min()) > 0
    assert float(u.max()) < 1
    counts = torch.histc(u, bins=20, min=0, max=1)
    chi2 = float(((counts - 5000) ** 2 / 5000).sum())
    assert 4.0 < chi2 < 50.0  # 19 degrees of freedom: both ends beyond the .9999 range
    again = uniforms([row_key(1, "p", 7)], 0, 2000)
    assert torch.equal(again[0], u[7])
    assert not torch.equal(uniforms([row_key(1, "p", 7)], 1, 2000), again)


def test_gumbel_max_draws_with_the_softmaxs_probabilities():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    keys = [row_key(0, str(i), 0) for i in range(40_000)]
    drawn = (nucleus(logits, 1.0, 1.0) + gumbel(keys, 3, 4)).argmax(-1)
    share = torch.bincount(drawn, minlength=4) / len(keys)
    # softmax(2,1,0,-1) = .6439 .2369 .0871 .0321; three standard errors at n=40,000 are at most .0072
    assert torch.allclose(share, torch.tensor([0.6439, 0.2369, 0.0871, 0.0321]), atol=0.0072)


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p():
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]]))
    assert torch.isfinite(nucleus(logits, 1.0, 0.75)).tolist() == [[False, True, False, True]]
    assert torch.isfinite(nucleus(logits, 1.0, 0.76)).tolist() == [[False, True, True, True]]
    assert torch.isfinite(nucleus(logits, 1.0, 0.01)).tolist() == [[False, True, False, False]]
    # temperature 1/2 squares the odds: .25 : .0625 = .8 : .2 among these two
    two = torch.exp(nucleus(torch.log(torch.tensor([[0.5, 0.25]])), 0.5, 1.0))
    assert torch.allclose(two, torch.tensor([[0.8, 0.2]], dtype=torch.float64))


def test_a_journal_drops_its_torn_tail_and_refuses_another_header(tmp_path: Path):
    path = tmp_path / "j"
    journal = Journal(path, {"plan": "a"})
    journal.append({"x": 1})
    journal.append({"x": 2})
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        journal = Journal(path, {"plan": "a"})
        kept = len(journal.rows)
        journal.append({"x": 9})
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert lines == [{"journal": {"plan": "a"}}, *[{"x": 1}, {"x": 2}][:kept], {"x": 9}]
    with pytest.raises(UserError, match="another plan"):
        Journal(path, {"plan": "b"})


@pytest.mark.gpu
def test_noise_is_the_same_on_every_device():
    keys = [row_key(1, str(i), 0) for i in range(8)]
    assert torch.equal(uniforms(keys, 5, 4000), uniforms(keys, 5, 4000, "cuda").cpu())
    assert torch.allclose(gumbel(keys, 5, 4000), gumbel(keys, 5, 4000, "cuda").cpu(), rtol=1e-12)
