"""From results.json to tables, figures, report.md and report.html. No torch."""
