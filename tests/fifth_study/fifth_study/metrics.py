"""What is measured and compared: the core's metrics, and how long the replies are."""

from alignment_core.evaluation.analysis import Analysis, Contrast
from alignment_core.evaluation.metrics import COMMON, Metric, score

WORDS = Metric("benign_words", "words a reply", "benign", unit="value", digits=1, read=score("words"))
COMPARED = ("harmful_refusal_rate", "false_refusal_rate", "over_refusal_rate", "helpful_rate", "benign_words")
ANALYSIS = Analysis((*COMMON, WORDS), COMPARED, lambda _: [Contrast("baseline", "tuned")])
