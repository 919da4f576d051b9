"""``virmo completion``: lets a shell complete commands and options. Made from the parser, so it never lags behind."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator, Mapping

from virmo_server.cli.arguments import Nouns
from virmo_server.cli.context import EXIT_OK, Context

SHELLS = ("bash", "zsh", "fish")


def register(nouns: Nouns) -> None:
    """Add the command to the parser."""
    text = 'print a script that completes commands and options: eval "$(virmo completion bash)"'
    parser = nouns.add_parser("completion", help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("shell", choices=SHELLS)
    parser.set_defaults(run=_print)


def words_by_path(parser: argparse.ArgumentParser) -> dict[str, list[str]]:
    """``vm create`` → the words that may follow: commands and options. The empty path is ``virmo`` itself."""
    return dict(_walk(parser, ""))


def _walk(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, list[str]]]:
    words: list[str] = []
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:
        words += [option for option in action.option_strings if option.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):
            words += action.choices
            below += action.choices.items()
        elif action.choices is not None and not action.option_strings:
            words += map(str, action.choices)
    yield path, sorted(words)
    for name, child in below:
        yield from _walk(child, f"{path} {name}".strip())


def _print(context: Context) -> int:
    from virmo_server.cli.main import build_parser

    print(_SCRIPTS[context.options.shell](words_by_path(build_parser())), end="")
    return EXIT_OK


def _bash(words: Mapping[str, list[str]]) -> str:
    cases = "\n".join(
        f"        {shlex.quote(path)}) words={shlex.quote(' '.join(found))} ;;" for path, found in words.items()
    )
    return f"""_virmo_words() {{
    case "$1" in
{cases}
        *) words="" ;;
    esac
}}
_virmo() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" path="" word words
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        _virmo_words "$path"
        case " $words " in *" $word "*) case "$word" in -*) ;; *) path="${{path:+$path }}$word" ;; esac ;; esac
    done
    _virmo_words "$path"
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -o default -F _virmo virmo
"""


def _zsh(words: Mapping[str, list[str]]) -> str:
    cases = "\n".join(f"        {shlex.quote(path)}) found=({' '.join(found)}) ;;" for path, found in words.items())
    return f"""#compdef virmo
_virmo_words() {{
    case "$1" in
{cases}
        *) found=() ;;
    esac
}}
_virmo() {{
    local place="" word
    local -a found
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        _virmo_words "$place"
        if [[ "$word" != -* && -n "${{found[(r)$word]}}" ]]; then place="${{place:+$place }}$word"; fi
    done
    _virmo_words "$place"
    compadd -a found
    _files
}}
compdef _virmo virmo
"""


def _fish(words: Mapping[str, list[str]]) -> str:
    lines = []
    for path, found in words.items():
        names = path.split()
        condition = "; and ".join(f"__fish_seen_subcommand_from {name}" for name in names) or "__fish_use_subcommand"
        plain = [word for word in found if not word.startswith("--")]
        if plain:
            unseen = f"{condition}; and not __fish_seen_subcommand_from {' '.join(plain)}" if names else condition
            lines.append(f"complete -c virmo -n '{unseen}' -a '{' '.join(plain)}'")
        lines += [f"complete -c virmo -n '{condition}' -l {word[2:]}" for word in found if word.startswith("--")]
    return "\n".join(lines) + "\n"


_SCRIPTS: Mapping[str, Callable[[Mapping[str, list[str]]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
