"""`seqc completion`: a script that completes commands, options and names of specs in a shell. In: the shell. Out: the script.

The script holds the words themselves: a press of the tab key starts no Python.
"""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments."""
    parser.add_argument("shell", choices=SHELLS, help="bash: `source <(seqc completion bash)` in ~/.bashrc; zsh: the same in"
                        " ~/.zshrc; fish: `seqc completion fish | source` in config.fish")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from seqc.frontend.sources import shipped

    names = " ".join(shipped())
    if args.shell == "fish":
        print(fish(words(), names), end="")
    else:
        head = "autoload -U +X bashcompinit && bashcompinit\n" if args.shell == "zsh" else ""
        print(head + bash(words(), names), end="")
    return 0


def words() -> dict[str, list[str]]:
    """The options of every command."""
    from seqc.cli.main import COMMANDS, build_parser

    found = {}
    for command in COMMANDS:
        for action in build_parser([command])._actions:
            if isinstance(action, argparse._SubParsersAction):
                options = (option for part in action.choices[command]._actions for option in part.option_strings)
                found[command] = [option for option in options if option.startswith("--")]
    return found


def bash(options: dict[str, list[str]], names: str) -> str:
    """The script for bash, which zsh runs too."""
    cases = "".join(f"        {command}) words=\"{' '.join(found)}\" ;;\n" for command, found in options.items())
    return f"""\
_seqc() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command=${{COMP_WORDS[1]}} words=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{' '.join(options)} --help --version" -- "$word"))
        return
    fi
    case $command in
{cases}    esac
    case $command in
        list) ;;
        completion) words="{' '.join(SHELLS)}" ;;
        *) [ "${{word#-}}" != "$word" ] || words="{names}" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _seqc seqc
"""


def fish(options: dict[str, list[str]], names: str) -> str:
    """The script for fish."""
    from seqc.cli.main import COMMANDS

    lines = ["complete -c seqc -n __fish_use_subcommand -l version -d 'show the version'"]
    for command, found in options.items():
        seen = f"'__fish_seen_subcommand_from {command}'"
        lines.append(f"complete -c seqc -n __fish_use_subcommand -a {command} -d '{COMMANDS[command]}'".replace("'s ", r"\'s "))
        lines += [f"complete -c seqc -n {seen} -l {option.removeprefix('--')}" for option in found]
    specs = " ".join(command for command in options if command not in ("list", "completion", "doctor", "new"))
    lines.append(f"complete -c seqc -n '__fish_seen_subcommand_from {specs}' -a '{names}'")
    lines.append(f"complete -c seqc -n '__fish_seen_subcommand_from completion' -a '{' '.join(SHELLS)}'")
    return "\n".join(lines) + "\n"
