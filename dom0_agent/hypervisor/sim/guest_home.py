"""What a simulated guest has for a file system and a console: its shim acts on itself, and never on this machine.

The file system is the directory ``guest`` of its domain, and goes with it, as a RAM disk does. The console is a pseudo
terminal: what the guest shows is appended to ``console.txt``, what is written to the FIFO ``console.in`` is typed.
"""

from __future__ import annotations

import os
import pty
import selectors
import threading
from pathlib import Path

from guest_shim.places import Places

#: Bytes of the console's text that are kept; a guest that prints more prints in vain.
TEXT_CAP = 1 << 20

#: What a guest's shim reads of its system; the memory is what these processes may be thought to have.
FILES = {
    "etc/os-release": 'ID=simulated\nPRETTY_NAME="Simulated guest"\n',
    "proc/meminfo": "MemTotal: 65536 kB\nMemAvailable: 32768 kB\n",
}


def make_home(directory: Path) -> Places:
    """The guest's directories below ``directory``, and its console, which a thread serves while this process lives."""
    home = directory.absolute() / "guest"
    for name in (
        "root/etc",
        "root/dev",
        "root/proc",
        "root/home",
        "root/sys/class/net",
        "state",
        "handlers",
        "settings",
    ):
        (home / name).mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        (home / "root" / name).write_text(text, encoding="ascii")
    ui = home / "settings/ui"
    if not ui.exists():  # in every simulation alike, whatever dialog programs this machine has
        ui.write_text("console\n", encoding="ascii")
    console, terminal = pty.openpty()
    link = home / "root/dev/console"
    link.unlink(missing_ok=True)
    link.symlink_to(os.ttyname(terminal))
    keys = directory / "console.in"
    keys.unlink(missing_ok=True)
    os.mkfifo(keys, 0o600)
    typed = os.open(keys, os.O_RDWR | os.O_NONBLOCK)  # for writing too: readers of a FIFO without writers see its end
    threading.Thread(
        target=_serve, args=(console, typed, directory / "console.txt"), name="console", daemon=True
    ).start()
    return Places(home / "state", home / "handlers", home / "settings", home / "root")


def _serve(console: int, typed: int, text: Path) -> None:
    shown = 0
    with selectors.DefaultSelector() as waiting, text.open("ab", buffering=0) as file:
        waiting.register(console, selectors.EVENT_READ)
        waiting.register(typed, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                data = os.read(key.fd, 4096)
                if key.fd == typed:
                    os.write(console, data)
                elif shown < TEXT_CAP:
                    shown += file.write(data)
