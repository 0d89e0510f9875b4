"""Command line: `python -m dataset_converters movielens --input-path ml-25m.zip --output-path data`.

A command is a module of this package with `add_arguments(parser)` and `run(arguments)`, which returns what to print, or that and an exit
code; it is found by its name.
"""

import argparse
import ast
import difflib
import functools
import importlib
import signal
import sys
from pathlib import Path


class Parser(argparse.ArgumentParser):
    """argparse, with its errors on one line like all others."""

    def error(self, message):
        raise ValueError(f"{message}. See {self.prog} --help")


@functools.cache
def commands():
    """Name -> first line of the docstring, of each module here with a function `add_arguments` (read, not imported)."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if {"add_arguments", "run"} <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            found[file.stem] = (ast.get_docstring(tree) or "").split("\n")[0]
    return found


def usage(known):
    """Help for no command."""
    listed = "\n".join(f"  {name:<10} {text}" for name, text in known.items())
    return f"usage: python -m dataset_converters NAME --help\n\nRaw data sets to RecBole's atomic files, ready for recbole_molar.\n\n{listed}"


def call(words):
    """Run a command; returns what it prints and the exit code.

    Raises:
        ValueError: an unknown command, a bad option, or bad data.
    """
    known = commands()
    if not words or words[0] in ("-h", "--help", "help"):
        return usage(known), 0
    name, *rest = words
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{name}: no such converter.{hint} Valid: {', '.join(known)}.")
    module = importlib.import_module(f"dataset_converters.{name}")
    parser = Parser(prog=f"python -m dataset_converters {name}", description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    module.add_arguments(parser)
    result = module.run(parser.parse_args(rest))
    return result if isinstance(result, tuple) else (result, 0)


def main(words=None):
    """Returns the exit code: 0 done, 1 nothing came out, 2 bad input, 130 interrupted. Nothing half-written is left in any case."""
    try:
        text, code = call(sys.argv[1:] if words is None else words)
        print(text)
        return code
    except KeyboardInterrupt as interrupt:
        print(f"interrupted; {interrupt or 'nothing was written'}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print("error: " + " ".join(str(error).split("\n")), file=sys.stderr)
        return 2


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that a killed conversion cleans up too
    sys.exit(main())
