"""Every code block of README.md and docs/ runs, on real storage servers where it names one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.examples import DOCUMENTS, ROOT, languages, run_examples
from tests.servers import target_names

_RUN = {"python", "sh"}
_NOT_RUN = {"console", "text", "json"}  # what needs the network, make or docker; output; shapes, which are compared

_WITH_EXAMPLES = [path for path in DOCUMENTS if languages(path) & _RUN]


@pytest.mark.skipif("moto" not in target_names(), reason="this run uses no storage servers")
@pytest.mark.parametrize("path", _WITH_EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_all_examples_of_a_document_run(path: Path, reader: Path) -> None:
    assert run_examples(path) > 0


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_says_whether_it_runs(path: Path) -> None:
    assert languages(path) <= _RUN | _NOT_RUN | ({""} if "format" in path.name else set())


def test_the_guides_have_examples() -> None:
    names = {path.name for path in _WITH_EXAMPLES}
    assert names >= {"README.md", "quickstart.md", "states.md", "components.md", "agent.md", "backends.md", "cli.md"}


def test_a_failing_example_fails(tmp_path: Path) -> None:
    broken = tmp_path / "broken.md"
    broken.write_text("```sh\necho told\nfalse\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="told"):
        run_examples(broken)
    broken.write_text("```python\nmissing\n```\n", encoding="utf-8")
    with pytest.raises(NameError, match="missing"):
        run_examples(broken)
