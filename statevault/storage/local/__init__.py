"""Folders of this machine, durable through power cuts."""
