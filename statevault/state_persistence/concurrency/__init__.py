"""Threads that work together: in parallel, one at a time, or waited for with patience."""
