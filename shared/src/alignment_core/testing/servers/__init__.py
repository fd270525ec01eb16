"""Servers to test against: one that generates (`generation`), one that misbehaves (`faults`), one that judges
(`judge`)."""
