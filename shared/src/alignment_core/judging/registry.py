"""The table of judges: the name on the command line, and the module that holds the judge's entry.

Modules are named as text and none is imported here: a name's entry is looked up in its module alone
(`judges.entry`), so that a step needs the code of the judges that its settings name and no other.
"""

from __future__ import annotations

__registry__ = True
"""A table that names code and holds none: the digest of a step's code neither walks nor hashes this module."""

_DETECTORS = "alignment_core.judging.detectors"

JUDGES: dict[str, str] = {
    "rules": "alignment_core.judging.rules_judge",
    "xstest": _DETECTORS,
    "gcg31": _DETECTORS,
    "refusal_direction": _DETECTORS,
    "jailbreakbench": _DETECTORS,
    "drift15": _DETECTORS,
    "brittleness": _DETECTORS,
    "broad53": _DETECTORS,
    "model": "alignment_core.judging.model_judge",
    "critic": "alignment_core.judging.critic_judge",
    "endpoint": "alignment_core.judging.endpoint_judge",
}
"""Name on the command line to the module whose `ENTRIES` holds the judge under that name."""
