"""What `image/demo` runs once Python and its packages are there: set up, tell the story, show the table."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from image.errors import ImageError
from image.story.board import Board
from image.story.server import Server
from image.story.sim_board import SimBoard
from image.story.steps import Row, Story, write_report

HEADINGS = ("STEP", "DM STATUS", "STATE", "WHAT THE HYPERVISOR SAYS", "SECONDS")


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0 when every row of the table agrees."""
    options = _parser().parse_args(argv)
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", flush=True)

    try:
        with tempfile.TemporaryDirectory(prefix="virmo-demo-") as folder:
            rows = _tell(options, Path(folder), say)
    except ImageError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    if options.report is not None:
        write_report(options.report, rows)
    print("\n" + _table(rows))
    problems = [f"{row.step}: {problem}" for row in rows for problem in row.problems]
    for problem in problems:
        print(f"DISAGREES  {problem}")
    verdict = (
        "DM status, State and hypervisor agree at every step" if not problems else f"{len(problems)} disagreements"
    )
    print(f"\n{verdict}; {time.monotonic() - began:.0f} s in all")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="image/demo",
        description="Shows a real OMA DM server managing a VM on a real Xen, nested in QEMU: image delivery, create, "
        "power off, power on, suspend, resume, delete; at each step three truths are compared.",
    )
    parser.add_argument("--sim", action="store_true", help="on the simulated hypervisor: no Xen, no QEMU, seconds")
    parser.add_argument(
        "--arch", default="x86_64", choices=("x86_64", "arm64"), help="architecture of the board (default: %(default)s)"
    )
    parser.add_argument("--scheduler", default="credit2", choices=("credit", "credit2"), help="Xen's CPU scheduler")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the table as JSON, too")
    return parser


def _tell(options: argparse.Namespace, folder: Path, say: Callable[[str], None]) -> list[Row]:
    board = _board(options, folder, say)
    try:
        server = Server(folder / "server", board.server_host)
        try:
            say("start the VirMO Server")
            server.start()
            rows = list(Story(server, board, say).tell())
            if any(row.problems for row in rows):
                print(f"--- the agent's log\n{_agent_log(board)}\n--- the server's log\n{server.log()}")
            return rows
        except ImageError as error:
            parts = (error.detail, "--- the agent's log", _agent_log(board), "--- the server's log", server.log())
            raise ImageError(error.failed, error.todo, detail="\n".join(part for part in parts if part)) from error
        finally:
            server.close()
    finally:
        board.close()


def _agent_log(board: Board) -> str:
    try:
        return board.agent_log()
    except ImageError as error:  # the board may be what is broken
        return f"cannot be had: {error}"


def _board(options: argparse.Namespace, folder: Path, say: Callable[[str], None]) -> Board:
    if options.sim:
        return SimBoard(folder / "board")
    # QEMU and the builder are only loaded for those who want them.
    from image.guest import build_guest
    from image.story.nested_board import NestedBoard

    say("build what is missing")
    return NestedBoard(build_guest(options.arch), options.arch, options.scheduler, say)


def _table(rows: Sequence[Row]) -> str:
    cells = [(row.step, row.status, row.state, row.hypervisor, f"{row.seconds:.1f}") for row in rows]
    widths = [max(len(line[column]) for line in [HEADINGS, *cells]) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in (HEADINGS, *cells)
    ]
    return "\n".join(line.rstrip() for line in lines)


if __name__ == "__main__":
    sys.exit(main())
