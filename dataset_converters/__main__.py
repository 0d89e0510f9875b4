"""Command line: `python -m dataset_converters <name> …`; each name is a module here with `add_arguments` and `main`."""

import argparse
import importlib
import pkgutil
import sys
from pathlib import Path


def main(arguments=None):
    """Run one converter.

    Args:
        arguments (list of str): words of the command line; default `sys.argv[1:]`.

    Returns:
        int: exit code; 0 done, 1 nothing came out, 2 bad input.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    commands = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    try:
        name = arguments[0] if arguments else ""
        module = importlib.import_module(f"dataset_converters.{name}") if name in commands else None
        if not hasattr(module, "add_arguments"):
            raise ValueError(f"{name or 'no command'}: no such command. Example: python -m dataset_converters images --dataset=ml-1m")
        parser = argparse.ArgumentParser(prog=f"python -m dataset_converters {name}", description=module.__doc__)
        module.add_arguments(parser)
        return module.main(parser.parse_args(arguments[1:])) or 0
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
