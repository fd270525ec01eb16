"""What a step that reads directions does: files of what the adapters of a source give in each space."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment_core.io import write_json
from alignment_core.models import load
from orth_refusal.files import SNAPSHOTS
from orth_refusal.start import start_model

if TYPE_CHECKING:
    from alignment_core.pipeline.step import Step
    from orth_refusal.config import OrthConfig
    from orth_refusal.directions import Adapter, Directions

log = logging.getLogger(__name__)


def read_directions(config: OrthConfig, seed: int, source: str, steps: Mapping[str, Step], folder: Path) -> None:
    """`<source>_<space>.safetensors` for what a source's adapter gives, and `directions.json` that describes them.

    `refusal`: factor, delta and left, and of each a random one of the same shape; `benign`, `oracle`: left;
    `contrast`: the original's blue − red in factor space.
    """
    from orth_refusal import directions

    base = load.identity(config.model)["weights"]
    found: dict[str, Directions] = {}
    if source == "contrast":
        blue, red = (trained(steps[name], base)[0] for name in ("refusal", "red"))
        found["contrast_factor"] = directions.contrast(blue, red)
    else:
        base = load.identity(start_model(config, steps))["weights"] if source == "oracle" else base
        now, start = trained(steps["vanilla" if source == "oracle" else source], base)
        found[f"{source}_left"] = directions.left(now, config.direction.rank, start)
        if source == "refusal":
            raw = config.direction.factor == "raw"
            found["refusal_factor"] = directions.factor(now, None if raw else start)
            found["refusal_delta"] = directions.delta(now, start)
            for name in ("factor", "delta", "left"):
                found[f"random_{name}"] = directions.random_like(found[f"refusal_{name}"], seed)
    for name, direction in found.items():
        direction.save(folder / f"{name}.safetensors")
    about = [directions.describe(d, folder / f"{name}.safetensors") for name, d in found.items()]
    write_json(folder / "directions.json", about)
    for row in about:
        if row["space"] == "left":
            log.info("%s: removes %.2f%% of the left dimensions", row["file"], 100 * float(str(row["removed_share"])))


def trained(step: Step, base: Mapping[str, Any]) -> tuple[Adapter, Mapping[str, Any]]:
    """A tuned adapter and the factors it started from."""
    from orth_refusal import directions

    now = directions.read_adapter(step / "adapter", dict(base))
    return now, directions.read_weights(step / f"{SNAPSHOTS}/0.safetensors")
