"""Benchmarks: ``make bench``. Peers beside us in the same run; ratios, not absolute figures, are the result."""
