"""The command lines: `alignment-core`, and what builds a study's from its description."""

from alignment_core.cli.build import Study, build

__all__ = ["Study", "build"]
