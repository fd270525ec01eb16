"""Values that no setting of an adapter, a model or a tokenizer should have, by the setting's name."""

from __future__ import annotations

import math
from typing import Any

NAN, INF, HUGE = math.nan, math.inf, 10**9
LOOP = "((.*)*)*x"
"""A regular expression that takes longer than anybody waits."""

# Settings of an adapter

SETTINGS: dict[str, tuple[Any, ...]] = {
    "r": (HUGE, 0, -1, "8", 2.5, True, None, [], 10**400, 3),
    "lora_alpha": (NAN, INF, -INF, 0, -4, 1e30, "16", True, None, []),
    "lora_dropout": (1, -0.1, NAN, "0", 2, []),
    "task_type": ("EVIL", "SEQ_CLS", 5, ["CAUSAL_LM"], ""),
    "peft_type": (None, "IA3", "EVIL", 5, ["LORA"], {}),
    "target_modules": (["nothing"], "nothing", "(a+)+$", LOOP, [], [5], 5, {"a": 1}, ["q_proj", None], "all-linear",
                       "[", [""], ["lm_head"], "x" * 20_000, None),
    "exclude_modules": (["q_proj"], LOOP, 5),
    "rank_pattern": ({"q_proj": HUGE}, {"q_proj": "8"}, {LOOP: 2}, {"q_proj": 0}, [], {"q_proj": None}, {"[": 2}),
    "alpha_pattern": ({"q_proj": NAN}, {"q_proj": INF}, {LOOP: 2}, {"q_proj": "x"}, [1]),
    "modules_to_save": (["lm_head"], [LOOP], 5, [None], "lm_head", ["model"]),
    "bias": ("all", "evil", 1), "use_rslora": ("yes", 1, True), "use_dora": (True, "x"), "lora_bias": (True, "x"),
    "fan_in_fan_out": (True, "x"), "init_lora_weights": ("pissa", "eva", "evil", 5, [], "orthogonal", False),
    "layers_to_transform": ([HUGE], -1, "0", [0, "a"]), "layers_pattern": (LOOP, ["layers"], 5),
    "auto_mapping": ({"base_model_class": "X", "parent_library": "evil_library"}, 5),
    "megatron_config": ({"a": 1},), "corda_config": ({"a": 1},), "eva_config": ({"a": 1},),
    "lora_ga_config": ({"a": 1},), "layer_replication": ([[0, HUGE]],), "trainable_token_indices": ([1],),
    "arrow_config": ({"a": 1},), "kasa_config": ({"a": 1},), "use_qalora": (True,), "use_bdlora": ({"a": 1},),
    "alora_invocation_tokens": ([1],), "target_parameters": (["x"], "x", [5]), "loftq_config": ({"a": 1}, 5),
    "base_model_name_or_path": ("organism", "organism:2", 5, "../../etc/passwd"), "runtime_config": (5, {"evil": 1}),
    "revision": (5, "main"), "inference_mode": ("x",), "peft_version": (5, "999"), "unheard_of": (True,),
}  # fmt: skip

# Keys of a model's config.json

CONFIG: dict[str, tuple[Any, ...]] = {
    "hidden_size": (10**12, 0, -8, "16", 17, True, None, INF, 10**400), "num_hidden_layers": (HUGE, 0, 2, -1, "1", []),
    "num_attention_heads": (0, 3, HUGE, -4, None), "num_key_value_heads": (0, 3, HUGE, "2"),
    "intermediate_size": (10**12, 1, 0, NAN), "vocab_size": (10**12, 1, 0, -1, "x"), "head_dim": (HUGE, 0, 7, "x"),
    "max_position_embeddings": (10**15, -1, 0, "x"), "rms_norm_eps": (NAN, -1.0, "x", INF, 1e30),
    "rope_parameters": ({"rope_type": "evil"}, {"rope_type": "dynamic"}, {"rope_type": "default", "rope_theta": 0},
                        {"rope_type": "default", "rope_theta": NAN}, {"rope_type": "default", "rope_theta": -1.0}, 5,
                        {"rope_type": "linear", "rope_theta": 1e4, "factor": 0.0}),
    "hidden_act": ("evil", 5, None), "model_type": ("unheard-of", "bert", "t5", 5, None, "llava", "gpt2"),
    "architectures": (["Evil"], 5), "dtype": ("evil", 5, "int8"), "num_labels": (HUGE, "x"),
    "quantization_config": ({"quant_method": "evil"}, {"quant_method": "gptq", "bits": 4}, 5),
    "auto_map": ({"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Config"},),
    "_attn_implementation": ("someone/kernel", "evil"), "custom_pipelines": ({"x": {"impl": "evil.Q"}},),
    "tie_word_embeddings": (True, "x"), "attention_bias": (True, "x"), "pad_token_id": (HUGE, -5, "x"),
    "eos_token_id": ("x", 10**12, [[1]]), "layer_types": (["evil"], 5), "transformers_version": (5, "x"),
    "is_encoder_decoder": (True,), "pruned_heads": ({"0": [0]},), "chunk_size_feed_forward": (HUGE,),
    "text_config": ({"auto_map": {"AutoConfig": "evil.Config"}}, 5), "tokenizer_class": ("Evil",),
    "pretraining_tp": (HUGE, 0, 3),
}  # fmt: skip
GENERATION: dict[str, tuple[Any, ...]] = {
    "eos_token_id": ("x", [-1], [[1]], INF, {"a": 1}), "temperature": (NAN, -1), "custom_generate": ("someone/code",),
    "max_length": (HUGE, -1, "x"), "cache_implementation": ("evil",), "num_beams": (HUGE, "x"),
}  # fmt: skip
TOKENIZER_CONFIG: dict[str, tuple[Any, ...]] = {
    "tokenizer_class": ("Evil", 5, "LlamaTokenizer", "BertTokenizer"), "auto_map": ({"AutoTokenizer": ["e.T", None]},),
    "model_max_length": ("x", -1, NAN), "chat_template": (5, [{"name": "a", "template": "x"}], "{% if %}"),
    "eos_token": ({"content": 5}, 5, [], "x" * 10_000, "never seen"), "pad_token": ("never seen", 5),
    "added_tokens_decoder": ({str(HUGE): {"content": "evil"}}, {"x": {"content": "evil"}}, {"-1": {"content": "e"}}, 5),
    "extra_special_tokens": (5, {"evil": 5}, ["evil"]), "bos_token": (None, 5), "padding_side": ("evil",),
}  # fmt: skip
TOKENIZER: dict[str, tuple[Any, ...]] = {
    "model": (5, {"type": "Evil"}, {"type": "BPE", "vocab": {"a": HUGE}, "merges": []},
              {"type": "BPE", "vocab": {"a": 2**40}, "merges": []}, {"type": "BPE", "vocab": {"a": -1}, "merges": []},
              {"type": "BPE", "vocab": {"a": 0}, "merges": [["x", "y"]]}, {"type": "BPE", "vocab": {}, "merges": []},
              {"type": "Unigram", "vocab": [], "unk_id": 5}, {"type": "Unigram", "vocab": [["a", NAN]], "unk_id": 0},
              {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "none"}),
    "pre_tokenizer": ({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
                      {"type": "Split", "pattern": {"Regex": "["}, "behavior": "Isolated", "invert": False},
                      {"type": "Evil"}, 5),
    "normalizer": ({"type": "Replace", "pattern": {"String": ""}, "content": "x"}, {"type": "Evil"},
                   {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
    "added_tokens": ([{"id": HUGE, "content": "evil"}], [5], [{"id": 0, "content": ""}], {"a": 1}),
    "post_processor": ({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "no", "type_id": 0}}],
                        "pair": [], "special_tokens": {}}, {"type": "Evil"}),
    "decoder": ({"type": "Evil"}, None), "padding": ({"strategy": {"Fixed": HUGE}}, 5),
    "truncation": ({"max_length": 0, "stride": 5, "strategy": "LongestFirst", "direction": "Right"}, 5),
}  # fmt: skip
