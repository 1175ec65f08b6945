"""``python -m statevault.cli`` is ``statevault``."""

from statevault.cli import main

main()
