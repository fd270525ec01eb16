"""What is promised, and the tests behind each promise: run by their node ids, counted from pytest's own report.

A promise that a part of the campaign tries as well names it; the page puts both together.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from record import ROOT, Part, options, say

CORE, DRIFT, ORTH = "shared/tests/", "packages/drift-dpo/tests/", "packages/orth-refusal/tests/"
CAI, NEURON, WHOLE = "packages/mini-cai/tests/", "packages/neuron-brittleness/tests/", "tests/"


@dataclass(frozen=True)
class Promise:
    """One promise: its words, the tests that hold it, the campaign's parts that try it."""

    words: str
    tests: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


PROMISES = (
    Promise(
        "A run killed at any moment and started again ends as one that was never killed: every file but those that "
        "hold times is the same, byte for byte",
        (f"{CORE}test_runs_crash.py", f"{CORE}test_models_train.py::test_killed_and_continued_equals_unbroken",
         f"{CORE}test_models_train.py::test_killed_within_an_epoch_and_a_log_interval",
         f"{CORE}test_generate_batches.py::test_a_kill_loses_one_batch_and_changes_nothing",
         f"{DRIFT}test_drift_dpo.py::test_killed_and_continued_equals_unbroken"),
        ("kills", "kills-tiny"),
    ),
    Promise(
        "Training continues only from a checkpoint that was written whole and has not changed since",
        (f"{CORE}test_models_checkpoints.py",
         f"{CORE}test_models_train.py::test_a_changed_schedule_is_refused_on_resume",
         f"{CORE}test_models_train.py::test_other_data_or_seed_is_refused_on_resume"),
    ),
    Promise(
        "A missing verdict is never counted as a verdict, and where all are missing there is no rate",
        (f"{CORE}test_evaluate_rates.py", f"{CORE}test_judges_answers.py::test_any_answer_is_parsed_or_missing",
         f"{CORE}test_judges_answers.py::test_what_a_server_refuses_for_good_is_missing_and_not_asked_again",
         f"{CORE}test_judges_answers.py::test_a_key_rejected_midway_leaves_the_judge_open_until_it_is_mended",
         f"{CORE}test_judges_answers.py::test_a_completion_without_a_reply_is_shown_to_no_judge",
         f"{CORE}test_stats_intervals.py::test_rate_leaves_missing_out_and_counts_them",
         f"{CORE}test_main_compare.py::test_nothing_but_missing_verdicts_is_no_rate",
         f"{DRIFT}test_drift_analysis.py::test_missing_verdicts_are_counted_and_never_a_verdict",
         f"{ORTH}test_orth_sorry.py::test_a_failed_call_is_missing_and_never_fulfilled",
         f"{CAI}test_cai_analysis.py::test_a_missing_score_is_missing_on_its_side_and_never_a_one"),
    ),
    Promise(
        "Malformed input: rows in = kept + rejected, one line with file and reason, no traceback",
        (f"{CORE}test_damaged_inputs.py", f"{CORE}test_data_readers.py", f"{CORE}test_exchange_formats.py",
         f"{CORE}test_records_json.py", f"{CORE}test_io_files.py"),
        ("inputs",),
    ),
    Promise(
        "Hostile text does nothing in any output: page, Markdown, LaTeX, CSV, terminal, log, other tools' files, cards",
        (f"{CORE}test_page_html.py", f"{CORE}test_tables_terminal.py", f"{CORE}test_hostile_outputs.py",
         f"{CORE}test_refusal_properties.py::test_fragments_of_markup_escapes_and_surrogates_are_harmless"),
        ("texts",),
    ),
    Promise(
        "What a judge is shown cannot close its own fence, and only the judge's own words are parsed",
        (f"{CORE}test_judges_answers.py::test_a_delimiter_that_occurs_in_the_text_is_not_used",
         f"{CORE}test_judges_answers.py::test_control_characters_and_turn_tokens_are_shown_not_obeyed",
         f"{CORE}test_judges_answers.py::test_only_the_judges_new_tokens_are_parsed",
         f"{CAI}test_cai_critique.py::test_a_candidate_cannot_close_its_delimiters_nor_write_a_special_token"),
        ("texts",),
    ),
    Promise(
        "No code that comes with a model is run",
        (f"{CORE}test_models_load.py::test_a_config_that_asks_for_code_is_refused",
         f"{CORE}test_models_load.py::test_a_hub_config_is_screened_before_weights_are_fetched",
         f"{CORE}test_models_load.py::test_adapter_settings_that_cannot_be_trusted",
         f"{CORE}test_organism_weights.py::test_a_folder_holds_the_model_and_no_pickle_or_code"),
        ("loads",),
    ),
    Promise(
        "An adapter stands on its own base alone, and no model computes with numbers that are not finite",
        (f"{CORE}test_models_adapters.py", f"{CORE}test_models_tuned.py"),
        ("loads",),
    ),
    Promise(
        "Weights are read from safetensors alone; what is kept or pushed holds no pickle",
        (f"{CORE}test_models_load.py::test_pickled_weights_are_refused",
         f"{CORE}test_models_load.py::test_pickled_adapters_are_refused",
         f"{CORE}test_models_train.py::test_no_pickle_in_what_is_kept",
         f"{ORTH}test_orth_hub.py::test_a_pickle_a_bad_pair_and_a_missing_token_are_one_line"),
    ),
    Promise(
        "No network where none is asked for: the tiny presets run without one",
        (f"{WHOLE}test_campaign.py::test_a_tiny_run_opens_no_socket",
         f"{CORE}test_models_load.py::test_no_network_is_one_line_that_says_what_to_do",
         f"{CORE}test_data_hub.py::test_no_network_says_which_file_to_put_where_and_uses_the_cache"),
    ),
    Promise(
        "Keys and tokens stand in no file, message, log or step's key",
        (f"{CORE}test_endpoint_faults.py::test_the_key_is_read_from_the_environment_and_shown_nowhere",
         f"{CORE}test_endpoint_faults.py::test_a_server_that_repeats_the_key_puts_it_nowhere",
         f"{CORE}test_endpoint_faults.py::test_an_address_is_plain_or_one_line_says_why_not",
         f"{CORE}test_runs_folder.py::test_config_env_and_log_are_written_and_hold_no_secret",
         f"{CORE}test_doctor_checks.py::test_a_token_is_never_shown",
         f"{CORE}test_data_hub.py::test_an_unknown_error_shows_no_token",
         f"{CORE}test_judges_answers.py::test_identity_names_what_decides_and_no_address_or_key"),
    ),
    Promise(
        "A full or read-only disk is one line, and leaves the old file or the whole new one",
        (f"{CORE}test_io_files.py::test_a_full_disk_is_one_line",
         f"{CORE}test_io_files.py::test_append_tells_a_full_disk_in_one_line",
         f"{CORE}test_runs_folder.py::test_a_full_or_read_only_disk_is_told_in_one_line",
         f"{CORE}test_runs_folder.py::test_a_full_disk_told_by_another_library_is_understood",
         f"{CORE}test_runs_folder.py::test_a_real_full_disk"),
    ),
    Promise(
        "A step has one maker; what a killed one left is taken over, and nothing that is there is replaced",
        (f"{CORE}test_runs_folder.py::test_a_step_that_another_process_makes_is_waited_for",
         f"{CORE}test_runs_folder.py::test_what_a_killed_process_left_is_taken_over",
         f"{CORE}test_runs_folder.py::test_a_silent_process_of_another_machine_is_copied_and_may_come_back",
         f"{CORE}test_runs_folder.py::test_only_the_first_process_writes",
         f"{CORE}test_store_together.py"),
    ),
    Promise(
        "An edit makes again what it changed, and what was changed after it was made is found and not used",
        (f"{CORE}test_provenance.py", f"{WHOLE}test_step_code.py", f"{WHOLE}test_edits.py", f"{WHOLE}test_damage.py",
         f"{CORE}test_runs_folder.py::test_a_step_changed_afterwards_is_set_aside_and_made_again",
         f"{CORE}test_runs_folder.py::test_what_lies_on_a_step_with_other_content_is_made_again"),
    ),
    Promise(
        "A call to a server ends by its deadline and its size cap, and no finished reply is asked for again",
        (f"{CORE}test_endpoint_faults.py", f"{CORE}test_endpoint_served.py::test_killed_halfway_and_restarted"),
    ),
    Promise(
        "No result is reused across two models, settings, seeds or files",
        (f"{CORE}test_runs_folder.py::test_everything_that_decides_a_step_is_in_its_key",
         f"{CORE}test_models_template.py::test_the_identity_moves_with_the_templates",
         f"{CAI}test_cai_data.py::test_another_content_of_a_file_is_another_key"),
    ),
    Promise(
        "Prompts that are evaluated on are not trained on",
        (f"{CORE}test_data_splits.py", f"{CORE}test_data_overlap.py"),
    ),
    Promise(
        "A reply depends on neither a restart nor the number of processes",
        (f"{CORE}test_generate_batches.py::test_a_team_makes_the_same_file_as_one_process",
         f"{CORE}test_generate_batches.py::test_bfloat16_restart_repeats_its_batches",
         f"{CORE}test_process_group.py"),
    ),
    Promise(
        "Under torchrun a lost rank is named, slow work is not lost, and an interruption ends all within five seconds",
        (f"{CORE}test_heartbeat.py", f"{CORE}test_cli_ranks.py"),
    ),
)  # fmt: skip


def node(case: ElementTree.Element) -> str:
    """`shared/tests/test_x.py::test_y` of a case in pytest's report."""
    return f"{case.get('file')}::{case.get('name', '').partition('[')[0]}"


def outcome(case: ElementTree.Element) -> str:
    """passed, failed or skipped."""
    kinds = {child.tag for child in case}
    return "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"


def run(nodes: list[str]) -> dict[str, Counter[str]]:
    """Run tests by their node ids; how each ended, by file and function."""
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not gpu",
                   f"--junitxml={report}", "-o", "junit_family=xunit1", *nodes]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(f"the tests did not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        ended: dict[str, Counter[str]] = {}
        for case in ElementTree.parse(report).iter("testcase"):
            ended.setdefault(node(case), Counter())[outcome(case)] += 1
    return ended


def main() -> int:
    given = options(__doc__ or "")
    part = Part("promises", given.out, tests=sorted({t for p in PROMISES for t in p.tests}))
    nodes = sorted({t for p in PROMISES for t in p.tests})
    whole = [n for n in nodes if "::" not in n]
    ended = run([*whole, *(n for n in nodes if "::" in n and n.partition("::")[0] not in whole)])
    rows = []
    for promise in PROMISES:
        counted: Counter[str] = Counter()
        for test in promise.tests:
            mine = [c for name, c in ended.items() if name == test or name.startswith(f"{test}::")]
            counted.update({"failed": 1} if not mine else {})
            for one in mine:
                counted.update(one)
        rows.append({"promise": promise.words, "tests": list(promise.tests), "parts": list(promise.parts), **counted})
    part.finish(promises=rows)
    failed = sum(r.get("failed", 0) for r in rows)
    say(f"promises: {sum(r.get('passed', 0) for r in rows)} tests passed, {failed} failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
