"""How zenity is called; what it does is seen in ``tests/integration/test_dialogs.py``."""

from __future__ import annotations

from guest_shim.ask import Question
from guest_shim.ask_zenity import arguments


def test_the_questions_end_comes_before_zenitys() -> None:
    """Else a zenity that starts slowly ends by itself at that moment, with a status that means nothing."""
    argv = arguments(Question("confirm", "Anybody?", (), 0, 30, "", (), 0, "A", False))
    assert int(argv[argv.index("--timeout") + 1]) > 30
