"""Runs the code blocks of a document in order, as a reader would."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser

__all__ = ["DOCUMENTS", "ROOT", "TOP_LEVEL", "languages", "run_examples"]

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TOP_LEVEL = "statevault_documented_example"
"""The module that the classes of examples seem to be from."""

_COMMAND_TIMEOUT_S = 300.0


def run_examples(path: Path) -> int:
    """Run all ``python`` and ``sh`` blocks of a document in the present working directory.

    Python blocks share one namespace. Each shell block is a script of its own, which fails with its first command that
    does, and whose output ends up in the failure's message.

    Returns:
        How many blocks ran.

    Raises:
        Exception: What a block raised; its traceback names the line in the document.
        AssertionError: A shell block failed.
    """
    # A module, since classes must be found under their names when they are loaded from a tree.
    module = types.ModuleType(TOP_LEVEL)
    document = Document.parse(
        str(path), CodeBlockParser("python", PythonEvaluator()), CodeBlockParser("sh", _run_shell)
    )
    document.namespace = module.__dict__
    sys.modules[TOP_LEVEL] = module
    count = 0
    try:
        for example in document.examples():
            example.evaluate()
            count += 1
    finally:
        del sys.modules[TOP_LEVEL]
    return count


def languages(path: Path) -> set[str]:
    """The languages of the fenced blocks of a document; an empty string for blocks without one."""
    found = set()
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = not inside
            if inside:
                found.add(line.removeprefix("```").strip().partition(" ")[0])
    return found


def _run_shell(example: Example) -> str:
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", example.parsed],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_COMMAND_TIMEOUT_S,
        check=False,
    )
    # What an evaluator returns is why its example failed.
    return "" if result.returncode == 0 else f"exit code {result.returncode}:\n{result.stdout}"
