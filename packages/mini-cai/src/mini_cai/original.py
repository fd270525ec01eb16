"""The original's only published figures, an example of five prompts, and what five prompts can support.

Its README shows mean scores 4.2 and 4.0 (standard deviations .4 and 0), safe rates 1 and 1, improved fraction 0, and
calls the example illustrative. Scores are whole numbers and the tuned ones are all 4, so the baseline's five scores
are one 5 and four 4s: the pairing is known, and only one prompt differs.
"""

from __future__ import annotations

from alignment_core.report.spec import TextTable
from alignment_core.stats.intervals import wilson
from alignment_core.stats.result import mcnemar_exact

BASELINE, FINETUNED = (5, 4, 4, 4, 4), (4, 4, 4, 4, 4)
"""The scores that the published means and standard deviations determine, up to order."""


def sign_p() -> float:
    """Exact two-sided sign test of the example's differences."""
    pairs = list(zip(BASELINE, FINETUNED, strict=True))
    return mcnemar_exact(sum(b > a for a, b in pairs), sum(b < a for a, b in pairs))


def tables() -> tuple[TextTable, ...]:
    """The published example, and what its n could have shown."""
    safe = wilson(5, 5)
    rows = (
        ("baseline", "4.2", "0.4", f"1.0 [{safe.low:.2f}, {safe.high:.2f}]", "5"),
        ("finetuned", "4.0", "0.0", f"1.0 [{safe.low:.2f}, {safe.high:.2f}]", "5"),
    )
    note = (
        f"One of five prompts differs: exact sign test p = {sign_p():.0f}. Five prompts cannot show a difference: even "
        f"five of five in one direction give p = {mcnemar_exact(5, 0):.4f}. Wilson 95% intervals added here."
    )
    columns = ("model", "mean_score", "std_dev", "safe_rate", "num_samples")
    return (TextTable("The original's example", columns, rows, note),)
