"""Tokenizer and model from a screened folder, through transformers, and what has to hold of them before they are used.

4-bit loading is NF4 with double quantisation (QLoRA, arXiv 2305.14314) and also works on the CPU.
"""

from __future__ import annotations

import os
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.errors import UserError
from alignment_core.models.finite import TEXT, check_tokens, check_weights, here
from alignment_core.models.noise import quiet, without_stderr

if TYPE_CHECKING:
    from alignment_core.config import ModelSettings


def read_folder(settings: ModelSettings, device: str, dtype: str, folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model, on its device, of the files in a screened folder.

    `UserError` when transformers cannot make them of its files, when weights are missing or not finite, or when the
    tokenizer is another model's.
    """
    import torch

    tokenizer = _tokenizer(folder)
    quantisation = _quantisation(settings, getattr(torch, dtype))
    more: dict[str, Any] = {} if quantisation is None else {"device_map": {"": _device(device)}}
    if settings.attention != "auto":
        more["attn_implementation"] = settings.attention
    model = _model(folder, dtype=getattr(torch, dtype), quantization_config=quantisation, **more)
    if quantisation is None:
        model.to(_device(device))
    else:
        _one_arithmetic(model)
    if here(model):
        check_weights(model, folder)
    check_tokens(tokenizer, model, folder)
    return tokenizer, model


_SAFE = {"trust_remote_code": False, "local_files_only": True}


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        with quiet(), without_stderr():
            tokenizer = AutoTokenizer.from_pretrained(folder, **_SAFE)
            if not tokenizer(TEXT)["input_ids"]:
                raise ValueError("it makes no tokens of a text")
    except BaseException as error:
        # A panic of the tokenizers' Rust code is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        why = _without_sentencepiece(folder) or _reason(error)
        raise UserError(f"{folder}: the tokenizer cannot be loaded: {why}") from error
    return tokenizer


def _without_sentencepiece(folder: Path) -> str:
    """What to install for a tokenizer that is a sentencepiece model alone; transformers asks for tiktoken then."""
    if (folder / "tokenizer.json").is_file() or not any(folder.glob("*.model")):
        return ""
    installed = {str(found.metadata["Name"]).lower() for found in distributions()}
    lacking = [name for name in ("sentencepiece", "protobuf") if name not in installed]
    return f"its sentencepiece model needs {' and '.join(lacking)}; install alignment-core again" if lacking else ""


def _model(folder: Path, **how: Any) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            model, about = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **_SAFE, **how
            )
    except Exception as error:
        raise UserError(f"{folder}: the model cannot be loaded: {_reason(error)}") from error
    # transformers fills what a folder lacks with random numbers, and says so in a warning.
    if here(model) and (missing := sorted(about["missing_keys"])):
        raise UserError(f"{folder}: {len(missing)} of the model's weights are missing, the first {missing[0]}")
    return model


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _quantisation(settings: ModelSettings, dtype: Any) -> Any:
    if settings.quantize == "none":
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _one_arithmetic(model: Any) -> None:
    """Keep bitsandbytes from rewriting 4-bit weights in place at the first evaluation on some CPUs.

    With AVX512-BF16 it repacks them with coarser scales once a layer runs without gradients: the model that was
    evaluated is then not the one that was trained, training cannot go on, and shapes off its grid fail.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _device(device: str) -> str:
    """The device of this process: under torchrun each has its own CUDA device."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device


def own_stops(model: Any, folder: Path) -> list[int]:
    """The end tokens the model itself names: Llama 3.1 has two beside its end of turn."""
    own = model.generation_config.eos_token_id
    found = [] if own is None else own if isinstance(own, list) else [own]
    if not all(isinstance(one, int) and 0 <= one < 1 << 31 for one in found):
        raise UserError(f"{folder}: eos_token_id={own!r:.80}: not a token's number or a list of them")
    return found
