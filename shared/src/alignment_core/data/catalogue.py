"""The public data sets that have a reader: where each is, and which revision is pinned."""

from __future__ import annotations

from dataclasses import dataclass

__registry__ = True
"""A table of facts: what a step takes of it stands in the step's key (`sources.identity`: repository, revision and
files), so that the digest of a step's code neither walks nor hashes this module."""


@dataclass(frozen=True, slots=True)
class Source:
    """A public data set on the hub."""

    name: str
    repo: str
    revision: str
    """The pinned commit."""
    files: tuple[str, ...]
    """Patterns of the files that are read, in the repository or in a folder laid out like it."""
    licence: str
    gated: bool = False


SOURCES: dict[str, Source] = {
    s.name: s
    for s in (
        Source(
            "dolly",
            "databricks/databricks-dolly-15k",
            "bdd27f4d94b9c1f951818a7da7fd7aeea5dbff1a",
            ("databricks-dolly-15k.jsonl",),
            "CC BY-SA 3.0",
        ),
        Source(
            "pku-saferlhf",
            "PKU-Alignment/PKU-SafeRLHF",
            "9421ffafec3fa40a1f1a7d567b4d525079477ecb",
            ("data/*/train.jsonl",),
            "CC BY-NC 4.0",
        ),
        # The commit before the 30K set got a repository of its own (PKU-SafeRLHF-30K): the same rows.
        Source(
            "pku-saferlhf-30k",
            "PKU-Alignment/PKU-SafeRLHF",
            "240919205c45b905e7abc2f39bb035640438fba3",
            ("round0/30k/train.jsonl.xz",),
            "CC BY-NC 4.0",
        ),
        Source(
            "wildjailbreak",
            "allenai/wildjailbreak",
            "5ddc12a7894f842b0619b8e1c7ee496b198af009",
            ("train/*.tsv",),
            "ODC-BY",
            gated=True,
        ),
        Source(
            "alpaca",
            "tatsu-lab/alpaca",
            "dce01c9b08f87459cf36a430d809084718273017",
            ("data/*.parquet",),
            "CC BY-NC 4.0",
        ),
        Source(
            "harmfulqa",
            "declare-lab/HarmfulQA",
            "6f1a78aed47d16c0695e4595d0159abc38197bfd",
            ("data_for_hub.json",),
            "Apache-2.0",
        ),
        Source(
            "beavertails",
            "PKU-Alignment/BeaverTails",
            "8401fe609d288129cc684a9b3be6a93e41cfe678",
            ("round0/330k/train.jsonl*",),
            "CC BY-NC 4.0",
        ),
        Source(
            "sorry-bench",
            "sorry-bench/sorry-bench-202503",
            "612a4e1f45db8adf884fa62318ddf9fa1c6e75e9",
            ("question*.jsonl",),
            "SORRY-Bench licence",
            gated=True,
        ),
        Source(
            "xstest",
            "Paul/XSTest",
            "f600c994b256f12867dfa5b3eb3d545a3e62f8b5",
            ("xstest_prompts.csv",),
            "CC BY 4.0",
        ),
        # HarmBench, AdvBench, StrongREJECT and JailbreakBench are tables in their authors' code repositories.
        Source("behaviours", "", "", ("*.csv",), "each its own"),
    )
}
"""Every set with a reader, by name."""
