"""From replies to results: judged states, metrics, comparisons, hypotheses."""
