"""Deterministic simulation of the real code: see :mod:`tests.simulation.schedule`."""
