"""Replies through a server: the same text as here for the same state, and no reply that the server did not give."""

from __future__ import annotations

import logging

import pytest
import torch

from alignment_core.config import EndpointSettings, GenerateSettings, LoraSettings, ModelSettings
from alignment_core.errors import Unfinished, UserError
from alignment_core.io import read_json
from alignment_core.models import load, remote
from alignment_core.models.generate import generate
from alignment_core.models.lora import add_adapter
from alignment_core.models.template import encode_prompt
from alignment_core.organism import world
from alignment_core.testing.servers import generation

PROMPTS = world.prompts("calibration", "harmful")[:12] + world.prompts("calibration", "benign")[:12]


@pytest.fixture
def server(organism, monkeypatch):
    where = remote._where

    def quick(settings: GenerateSettings) -> EndpointSettings:
        return where(settings).model_copy(update={"deadline": 5.0, "backoff": 0.01})

    monkeypatch.setattr(remote, "_where", quick)
    with generation.serving(organism) as running:
        yield running


@pytest.fixture(scope="module")
def tuned():
    """The organism with an adapter that changes what it says."""
    loaded = load.load(ModelSettings(device="cpu", dtype="float32"))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        loaded.model = add_adapter(loaded.model, LoraSettings(r=4, targets=("q_proj", "v_proj", "down_proj")))
        for name, weight in loaded.model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(0, 0.05)
    loaded.model.eval()
    return loaded


def settings(server=None, **values) -> GenerateSettings:
    where = {} if server is None else {"endpoint": server.url}
    return GenerateSettings(**({"max_new_tokens": 24, "batch_size": 6} | where | values))


def ask(server, loaded, file, prompts=PROMPTS, *, accept_missing=False, **values):
    how = settings(server, **values)
    return generate(prompts, how, loaded, subject="s", seed=1, file=file, accept_missing=accept_missing)


def test_greedy_replies_are_those_made_here(server, organism, tmp_path):
    here = ask(None, organism, tmp_path / "here.jsonl")
    there = ask(server, organism, tmp_path / "there.jsonl")
    assert there == here
    assert len({row.text for row in here}) > 10
    about = read_json(remote.served_file(tmp_path / "there.jsonl"))
    assert about.pop("first_token_nats_apart") < 1e-3
    assert about == {"route": "tokens", "base": generation.NAME, "adapter": None}
    count = len(server.asked)
    assert ask(server, organism, tmp_path / "there.jsonl") == here
    assert len(server.asked) == count
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_what_the_server_is_sent(server, organism, tmp_path):
    ask(server, organism, tmp_path / "c.jsonl", PROMPTS[:1])
    body = server.asked[-1]
    assert body["temperature"] == 0
    assert body["max_tokens"] == 24
    assert body["stop_token_ids"] == list(organism.stop_ids)
    # A server would take these from the model's own file.
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0.0, 1.0)
    assert "seed" not in body


def test_the_adapter_in_memory_is_the_one_that_answers(server, organism, tuned, tmp_path):
    here = ask(None, tuned, tmp_path / "here.jsonl")
    there = ask(server, tuned, tmp_path / "there.jsonl")
    assert there == here
    base = ask(server, organism, tmp_path / "base.jsonl")
    assert [r.text for r in base] != [r.text for r in there]
    names = {body["model"] for body in server.asked}
    assert len(names) == 2
    (name,) = names - {generation.NAME}
    assert read_json(remote.served_file(tmp_path / "there.jsonl"))["adapter"] == name.rsplit("-", 1)[0]
    assert list(server.states) == [generation.NAME]
    with tuned.model.disable_adapter():
        assert [r.text for r in ask(server, tuned, tmp_path / "off.jsonl")] == [r.text for r in base]


def test_a_reply_of_the_base_is_not_the_adapters(server, tuned, tmp_path, monkeypatch):
    real = server.reply

    def by_the_base(served, ids, body, chat):
        return real(server.model, ids, body, chat) | {"model": generation.NAME}

    monkeypatch.setattr(server, "reply", by_the_base)
    server.tells_logprobs = False
    with pytest.raises(UserError, match="another model answered: 'the-organism' instead of 'adapter-"):
        ask(server, tuned, tmp_path / "c.jsonl", PROMPTS[:4])


def test_two_adapters_have_two_names(server, tuned, tmp_path):
    ask(server, tuned, tmp_path / "a.jsonl", PROMPTS[:2])
    weight = next(w for name, w in tuned.model.named_parameters() if "lora_B" in name)
    weight.data[0, 0] += 1e-3
    try:
        ask(server, tuned, tmp_path / "b.jsonl", PROMPTS[:2])
    finally:
        weight.data[0, 0] -= 1e-3
    a, b = (read_json(remote.served_file(tmp_path / f"{name}.jsonl"))["adapter"] for name in "ab")
    assert a != b


def test_an_adapter_that_a_kill_left_is_loaded_again(server, tuned, tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(remote, "ask_one", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        killed.setattr(server, "unload_adapter", lambda _: (500, "no"))
        with pytest.raises(KeyboardInterrupt):
            ask(server, tuned, tmp_path / "c.jsonl")
    (left,) = set(server.states) - {generation.NAME}
    server.states[left] = server.model  # whatever stands there under the name is not trusted
    assert ask(server, tuned, tmp_path / "c.jsonl") == ask(None, tuned, tmp_path / "here.jsonl")
    assert list(server.states) == [generation.NAME]


@pytest.mark.parametrize(
    ("change", "said"),
    [({"runtime_lora": False}, "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"), ({"lists_adapters": False}, "does not name")],
)
def test_a_server_that_cannot_hold_the_adapter_says_so(server, tuned, tmp_path, change, said):
    for key, value in change.items():
        setattr(server, key, value)
    with pytest.raises(UserError, match=said):
        ask(server, tuned, tmp_path / "c.jsonl")
    assert not server.asked


def test_an_adapter_folder_the_server_cannot_see(server, tuned, tmp_path, monkeypatch):
    answer = (404, {"error": {"message": "No adapter found for that path"}})
    monkeypatch.setattr(server, "load_adapter", lambda _: answer)
    with pytest.raises(UserError, match="same machine or shared disk"):
        ask(server, tuned, tmp_path / "c.jsonl")


def test_another_model_is_not_taken_for_this_one(server, organism, tuned, tmp_path):
    other = load.load(ModelSettings(device="cpu", dtype="float32"))
    with torch.no_grad():
        other.model.model.embed_tokens.weight.copy_(other.model.model.embed_tokens.weight.roll(7, 0))
    server.states[generation.NAME] = other
    with pytest.raises(UserError, match="is not the one here"):
        ask(server, organism, tmp_path / "c.jsonl")


def test_without_tokens_messages_are_sent_and_it_is_said(server, organism, tmp_path, caplog):
    server.tokens = False
    with caplog.at_level(logging.WARNING):
        there = ask(server, organism, tmp_path / "there.jsonl")
    assert "template is the server's own" in caplog.text
    assert read_json(remote.served_file(tmp_path / "there.jsonl"))["route"] == "chat"
    assert there == ask(None, organism, tmp_path / "here.jsonl")
    assert all(set(b) == {"model", "max_tokens", "temperature", "messages"} for b in server.asked[3:])


def test_text_is_taken_where_tokens_are_not_told(server, organism, tmp_path):
    server.tells_ids = server.tells_logprobs = False
    assert ask(server, organism, tmp_path / "there.jsonl") == ask(None, organism, tmp_path / "here.jsonl")
    assert read_json(remote.served_file(tmp_path / "there.jsonl"))["first_token_nats_apart"] is None


def test_candidates_have_seeds_of_their_own(server, organism, tmp_path):
    how = {"prompts": PROMPTS[:6], "temperature": 0.9, "candidates": 3}
    rows = ask(server, organism, tmp_path / "a.jsonl", **how)
    assert [(r.prompt_id, r.candidate) for r in rows] == [(p.id, c) for p in PROMPTS[:6] for c in range(3)]
    seeds = [body["seed"] for body in server.asked if body["max_tokens"] > 1]
    assert len(set(seeds)) == len(rows)
    assert len({r.text for r in rows}) > 6
    assert ask(server, organism, tmp_path / "b.jsonl", **how) == rows
    server.samples = False
    with pytest.raises(UserError, match="does not sample"):
        ask(server, organism, tmp_path / "c.jsonl", **how)


@pytest.mark.parametrize("fault", ["busy", "broken", "garbage"])
def test_faults_that_pass_change_nothing(server, organism, tmp_path, fault):
    server.faults = [fault] * 3
    assert ask(server, organism, tmp_path / "there.jsonl") == ask(None, organism, tmp_path / "here.jsonl")


@pytest.mark.parametrize("fault", ["slow", "aborted", "moved"])
def test_what_failed_in_passing_is_asked_again(server, organism, tmp_path, fault):
    file = tmp_path / "there.jsonl"
    server.faults = [fault] * 8 if fault == "aborted" else [fault] * 2  # an aborted reply is asked for four times
    with pytest.raises(Unfinished, match=r"s at http://127.*: 2 of 24 replies .* the 22 that came are kept"):
        ask(server, organism, file, batch_size=2)
    assert not file.exists()
    server.faults.clear()
    server.asked.clear()
    here = ask(None, organism, tmp_path / "here.jsonl")
    assert ask(server, organism, file, batch_size=2) == here
    assert sum(body["max_tokens"] > 1 for body in server.asked) == 2


def test_a_key_that_is_rejected_midway_leaves_the_plan_open(server, organism, tmp_path):
    file = tmp_path / "there.jsonl"
    server.locks_after = 10
    with pytest.raises(Unfinished, match=r"14 of 24 replies are missing .*HTTP 401: no such key.*--accept-missing"):
        ask(server, organism, file)
    with pytest.raises(UserError, match="it does not accept"):
        ask(server, organism, file)
    rows = ask(server, organism, file, accept_missing=True)
    here = ask(None, organism, tmp_path / "here.jsonl")
    assert sum(bool(r.failure) for r in rows) == 14
    assert all("HTTP 401" in r.failure and r.text == "" for r in rows if r.failure)
    assert [r for r in rows if not r.failure] == [h for r, h in zip(rows, here, strict=True) if not r.failure]
    assert ask(server, organism, file) == rows  # sealed


def test_a_mended_key_finishes_the_plan(server, organism, tmp_path):
    file = tmp_path / "there.jsonl"
    server.locks_after = 10
    with pytest.raises(Unfinished):
        ask(server, organism, file)
    server.locks_after = -1
    server.asked.clear()
    assert ask(server, organism, file) == ask(None, organism, tmp_path / "here.jsonl")
    assert sum(body["max_tokens"] > 1 for body in server.asked) == 14


@pytest.mark.parametrize("fault", ["refused", "empty", "filtered", "null"])
def test_what_is_refused_for_good_is_missing_and_not_asked_again(server, organism, tmp_path, fault):
    file = tmp_path / "there.jsonl"
    server.faults = [fault] * 2
    server.locks_after = 20
    with pytest.raises(Unfinished, match="of 24 replies"):
        ask(server, organism, file)
    server.locks_after = -1
    server.asked.clear()
    rows = ask(server, organism, file)
    assert sum(bool(r.failure) for r in rows) == 2
    lost = [r for r in rows if r.failure]
    assert all(r.text == "" and r.tokens == 0 for r in lost)
    assert {"refused": "HTTP 400: this prompt is too long", "filtered": "content filter"}.get(fault, "no text") in (
        lost[0].failure
    )
    asked_again = [body["prompt"] for body in server.asked if body["max_tokens"] > 1]
    refused = [encode_prompt(organism.tokenizer, p.messages) for p in PROMPTS if p.id in {r.prompt_id for r in lost}]
    assert not any(prompt in asked_again for prompt in refused)
    assert ask(server, organism, file) == rows


@pytest.mark.parametrize("place", [min, max])
def test_a_prompt_that_is_always_refused_keeps_nothing_from_finishing(server, organism, tmp_path, place):
    coded = {p.id: encode_prompt(organism.tokenizer, p.messages) for p in PROMPTS}
    name = place(coded, key=lambda i: len(coded[i]))  # the first and the last of the plan
    server.refuses = [coded[name]]
    rows = ask(server, organism, tmp_path / "there.jsonl")
    assert [r.prompt_id for r in rows if r.failure] == [name]
    assert read_json(remote.served_file(tmp_path / "there.jsonl"))["first_token_nats_apart"] < 1e-3


def test_a_server_that_refuses_every_prompt_is_one_line(server, organism, tmp_path):
    server.refuses = [encode_prompt(organism.tokenizer, p.messages) for p in PROMPTS]
    with pytest.raises(UserError, match="HTTP 400"):
        ask(server, organism, tmp_path / "there.jsonl")


def test_a_server_that_dies_halfway(server, organism, tmp_path):
    file = tmp_path / "there.jsonl"
    server.dies_after = 10
    with pytest.raises(Unfinished, match=r"14 of 24 replies .* the same command asks for the rest"):
        ask(server, organism, file)
    server.dies_after = -1
    server.asked.clear()
    with generation.serving(organism) as moved:  # at another address
        assert ask(moved, organism, file) == ask(None, organism, tmp_path / "here.jsonl")
        assert sum(body["max_tokens"] > 1 for body in moved.asked) == 14


@pytest.mark.usefixtures("server")
def test_no_server(organism, tmp_path):
    how = settings(endpoint="http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="start the server, or mend endpoint and endpoint_model"):
        generate(PROMPTS, how, organism, subject="s", seed=1, file=tmp_path / "c.jsonl")


def test_several_models_need_a_name(server, organism, tmp_path):
    server.states["another"] = organism
    server.answer, plain = (
        (
            lambda path, body: (
                (200, {"data": [{"id": n} for n in server.states]}) if path == "/v1/models" else plain(path, body)
            )
        ),
        server.answer,
    )
    with pytest.raises(UserError, match="serves the-organism, another: name the base model with endpoint_model"):
        ask(server, organism, tmp_path / "c.jsonl")
    assert len(ask(server, organism, tmp_path / "c.jsonl", PROMPTS[:2], endpoint_model=generation.NAME)) == 2
    with pytest.raises(UserError, match="does not exist"):
        ask(server, organism, tmp_path / "d.jsonl", PROMPTS[:2], endpoint_model="nobody")


def test_the_key_goes_to_the_server_and_nowhere_else(server, organism, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("THE_KEY", "sk-very-secret")
    with caplog.at_level(logging.DEBUG):
        ask(server, organism, tmp_path / "c.jsonl", PROMPTS[:3], endpoint_key_env="THE_KEY")
    assert any("Bearer sk-very-secret" in head for head in server.heads)
    assert "very-secret" not in caplog.text
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or b"very-secret" not in file.read_bytes()
    monkeypatch.delenv("THE_KEY")
    with pytest.raises(UserError, match="THE_KEY: the variable is not set"):
        ask(server, organism, tmp_path / "d.jsonl", endpoint_key_env="THE_KEY")


def test_a_state_changed_in_memory_is_refused(server, tuned, tmp_path):
    module = next(m for m in tuned.model.modules() if getattr(m, "lora_A", None))
    module.lora_variant["default"] = object()
    try:
        with pytest.raises(UserError, match="no server can load"):
            ask(server, tuned, tmp_path / "c.jsonl")
    finally:
        del module.lora_variant["default"]


def test_the_address_decides_no_key(tmp_path):
    from alignment_core.pipeline.step import step_key

    def key(**values) -> str:
        return step_key("answer", {"generate": GenerateSettings(**values)}, 1, (), None, "")

    here, there = key(), key(endpoint="http://a:1/v1")
    assert here == step_key("answer", {"generate": {"max_new_tokens": 128, "batch_size": 16, "temperature": 0.0,
                                                       "top_p": 1.0, "candidates": 1}}, 1, (), None, "")  # fmt: skip
    assert there != here
    assert there == key(endpoint="http://b:2/v1", endpoint_key_env="K")
    assert there != key(endpoint="http://a:1/v1", endpoint_model="m")
