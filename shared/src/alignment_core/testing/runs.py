"""Where a study's runs lie, for tests that start them by the command line."""

from __future__ import annotations

from pathlib import Path


def run_folders(study_folder: Path) -> list[Path]:
    """The folders of the runs of a study, in `runs/<study>`; the steps that they share are beside them."""
    return sorted(path.parent for path in study_folder.glob("*/config.json"))
