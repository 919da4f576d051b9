"""Small parts of the command line: media types, times, sizes, tables, settings files."""

from __future__ import annotations

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from virmo_server.cli.commands_image import guess_media_type
from virmo_server.cli.main import build_parser
from virmo_server.cli.output import Output, ago, size
from virmo_server.cli.settings import SettingsError, load_settings


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("web.tar.gz", "application/gzip"),
        ("web.tar.xz", "application/x-xz"),
        ("web.tar.zst", "application/zstd"),
        ("web.tar", "application/x-tar"),
        ("disk.qcow2", "application/octet-stream"),
    ],
)
def test_media_type_by_name(name: str, media_type: str) -> None:
    assert guess_media_type(name) == media_type


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (None, "never"),
        ("2026-01-01T12:00:00Z", "now"),
        ("2026-01-01T11:59:15Z", "45 s ago"),
        ("2026-01-01T11:00:00Z", "60 min ago"),
        ("2025-12-25T12:00:00Z", "7 d ago"),
        ("2026-01-01T15:00:00Z", "in 3 h"),
    ],
)
def test_times(then: str | None, words: str) -> None:
    assert ago(then, datetime(2026, 1, 1, 12, tzinfo=UTC)) == words


def test_sizes() -> None:
    assert [size(1), size(2048), size(5 << 20), size(3 << 40)] == ["1 B", "2.0 KiB", "5.0 MiB", "3.0 TiB"]


def test_brackets_in_values_are_shown_as_they_are() -> None:
    """A device's text must not become terminal markup."""
    written = StringIO()
    output = Output(as_json=False, console=Console(file=written, width=80))
    output.table(["A"], [["[red]x[/red]"]], empty="")
    assert "[red]x[/red]" in written.getvalue()


def test_file_with_an_unknown_key(tmp_path: Path) -> None:
    path = tmp_path / "virmo.yaml"
    path.write_text("server: https://x\npassword: y\n")
    with pytest.raises(SettingsError, match="password: unknown key"):
        load_settings({"config": str(path)}, {}, tmp_path)


def test_options_win_over_environment_over_file(tmp_path: Path) -> None:
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config" / "virmo.yaml").write_text("server: https://file\ntoken: t\n")
    assert load_settings({}, {}, tmp_path).server == "https://file"
    assert load_settings({}, {"VIRMO_SERVER": "https://env"}, tmp_path).server == "https://env"
    assert load_settings({"server": "https://opt"}, {"VIRMO_SERVER": "https://env"}, tmp_path).server == "https://opt"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("15m", 900), ("2h", 7200), ("1d", 86400)])
def test_deadlines(text: str, seconds: int) -> None:
    options = build_parser().parse_args(["device", "refresh", "b", "--deadline", text])
    assert options.deadline == seconds


@pytest.mark.parametrize("text", ["0", "-1", "soon", "1w", ""])
def test_nonsense_deadlines(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["device", "refresh", "b", "--deadline", text])
    assert "expected a time such as 90, 15m, 12h or 7d" in capsys.readouterr().err
