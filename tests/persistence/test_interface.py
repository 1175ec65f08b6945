"""What the package exports, and that it is light to import."""

from __future__ import annotations

import subprocess
import sys

import statevault.persistence


def test_the_exported_names_are_sorted_and_there() -> None:
    names = statevault.persistence.__all__
    assert names == sorted(names)
    assert all(hasattr(statevault.persistence, name) for name in names)
    public = {name for name, value in vars(statevault.persistence).items() if isinstance(value, type)}
    assert public <= set(names)


def test_the_import_brings_no_heavy_package() -> None:
    heavy = "torch numpy s3fs botocore gcsfs tianshou gymnasium rich"
    code = (
        "import sys, statevault.persistence; "
        f"print([name for name in '{heavy}'.split() if name in sys.modules], end='')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]"


def test_without_tianshou_its_plug_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['tianshou'] = None\n"
        "try: import statevault.persistence.tianshou\n"
        "except ImportError as error: print(error, end='')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'tianshou" in run.stdout
