"""How far a state has moved from the baseline before it writes a word: KL of the reply's first token.

KL(state || baseline) = sum_v p_state(v) (log p_state(v) - log p_baseline(v)), in nats, for each prompt. Refusal is
mostly decided in the first few tokens (Qi et al. 2024, arXiv 2406.05946), so this moves where a rate is still flat.
The states are adapters on one base; where the base is the baseline, both distributions come from one loaded model,
with the adapter on and switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from alignment_core.models.load import Loaded
    from alignment_core.records import Prompt


def kl(state: Tensor, baseline: Tensor) -> NDArray[np.float64]:
    """KL(state || baseline) of each row, in nats, from log-probabilities [prompts, vocabulary]; never below 0.

    A token that the state gives no probability adds nothing; one that only the baseline rules out makes it infinite.
    """
    import torch

    if state.shape != baseline.shape:
        raise ValueError(f"log-probabilities of unlike shape: {tuple(state.shape)} and {tuple(baseline.shape)}")
    p, q = state.double(), baseline.double()
    terms = torch.where(torch.isneginf(p), 0.0, p.exp() * (p - q))
    # Rounding can take the sum of a float32 distribution just below 0.
    return terms.sum(-1).clamp(min=0.0).numpy()


def first_token_kl(loaded: Loaded, prompts: Sequence[Prompt], batch_size: int = 16) -> NDArray[np.float64]:
    """KL of each prompt's first reply token, the adapter on against the adapter off; 0 for a model without one."""
    if not hasattr(loaded.model, "disable_adapter"):
        return np.zeros(len(prompts))
    from alignment_core.models.score import first_token_logprobs

    state = first_token_logprobs(loaded, prompts, batch_size)
    with loaded.model.disable_adapter():
        baseline = first_token_logprobs(loaded, prompts, batch_size)
    return kl(state, baseline)
