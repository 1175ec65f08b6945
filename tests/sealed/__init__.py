"""Sealed files: whole, or told to be damaged."""
