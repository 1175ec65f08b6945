"""Links between the documents lead somewhere, also those to a heading."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.examples import DOCUMENTS, ROOT

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)
_MAKE = re.compile(r"(?:^|`)make ([a-z][a-z-]+)", flags=re.MULTILINE)
_PATH_IN_TEXT = re.compile(r"`((?:tests|docs|statevault|benchmarks)/[\w./-]+)`")


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    text = _FENCED.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(path: Path) -> None:
    dead = []
    for link in _LINK.findall(_FENCED.sub("", path.read_text(encoding="utf-8"))):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path: Path) -> None:
    named = _PATH_IN_TEXT.findall(path.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_make_targets_that_are_named_exist() -> None:
    named = {target for path in DOCUMENTS for target in _MAKE.findall(path.read_text(encoding="utf-8"))}
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"demo", "test", "test-compose"} <= named <= set(targets)


def test_every_guide_is_linked_from_the_readme_and_the_index() -> None:
    guides = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    for page, prefix in [(ROOT / "README.md", "docs/"), (ROOT / "docs" / "index.md", "")]:
        linked = {link.partition("#")[0] for link in _LINK.findall(page.read_text(encoding="utf-8"))}
        assert {f"{prefix}{name}" for name in guides} <= linked
