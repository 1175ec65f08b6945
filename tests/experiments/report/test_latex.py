r"""The LaTeX table: rows that a document can ``\input``."""

from __future__ import annotations

import math
import re

import pytest

from statevault.experiments.report.latex import latex_table
from tests.experiments.report.outcomes import measured


def test_a_table_is_one_tabular_with_the_rules_of_booktabs() -> None:
    result = measured(
        {
            "loss": {"gradient descent": [[1, 5e-7], [1, 7e-7]], "Adam": [[1, 1e-7], [1, 3e-7]]},
            "steps": {"gradient descent": [900, math.inf], "Adam": [700, 800]},
            "gain": {"gradient descent": [-math.inf, 1], "Adam": [math.nan, 800]},
        }
    )
    assert latex_table(result, better={"loss": "min", "gain": "max"}).splitlines()[1:] == [
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r"& loss, last $\downarrow$ & steps & gain $\uparrow$ & trials \\",
        r"\midrule",
        r"gradient descent & $(0.6 \pm 1.3) \times 10^{-6}$ & $\infty$ & $-\infty$ & 2 \\",
        r"Adam & $\mathbf{(0.2 \pm 1.3) \times 10^{-6}}$ & $750 \pm 635$ & $\mathrm{nan}$ & 2 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@pytest.mark.parametrize(
    ("name", "escaped"),
    [
        ("a_b & c%", r"a\_b \& c\%"),
        ("$x^2$ #1", r"\$x\textasciicircum{}2\$ \#1"),
        (r"\alpha{}~", r"\textbackslash{}alpha\{\}\textasciitilde{}"),
        ("a<b>|c|", r"a\textless{}b\textgreater{}\textbar{}c\textbar{}"),
        # At the beginning of a row they would be read as arguments of the end of the row before.
        ("[0.1] sgd", r"{[}0.1{]} sgd"),
        ("* sgd", r"{*} sgd"),
        ("sgd--fast", r"sgd-{}-fast"),
        ("two\nlines\x07", r"two lines?"),
        ("Größe", "Größe"),
    ],
)
def test_names_mean_nothing_to_latex(name: str, escaped: str) -> None:
    table = latex_table(measured({name: {name: [1, 2]}}))
    assert f"& {escaped} & trials" in table
    assert f"\n{escaped} & $" in table


def test_every_row_has_the_same_cells_and_braces_match() -> None:
    hostile = "".join(map(chr, range(32, 127)))
    table = latex_table(measured({hostile: {hostile: [1, 2], "b": [2, 3]}, "x": {hostile: [1, 2], "b": [2, 2]}}))
    rows = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [3, 3, 3]
    bare = re.sub(r"\\[{}]", "", table)
    assert bare.count("{") == bare.count("}")
    assert len(re.findall(r"(?<!\\)\$", table)) % 2 == 0
    assert re.findall(r"(?<!\\)[#]", table) == []
    # The one comment is the first line.
    assert [line.startswith("%") for line in table.splitlines() if re.search(r"(?<!\\)%", line)] == [True]
