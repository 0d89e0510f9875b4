"""The targets of speed, measured beside the peers on this machine: python -m tests.benchmarks [--rows=[evaluation, catalogue]] [--dataset=... --data_path=...]

Each row is a ratio of CPU seconds of one process, one side after the other or both in turns, but where it says something else (`utilisation` and
`convergence`: of seconds; `growth`: of processes of their own). Any `--key=value` of a run is handed on. Without `--data_path` to ml-1m give
`--dataset=ml-100k`, which comes with RecBole. `convergence` takes more than an hour, the others twenty minutes
together; they are done first.
"""

import importlib
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent), str(HERE)]
from accelerate.state import AcceleratorState  # noqa: E402
from recbole_molar.command_line import parse_command_line  # noqa: E402
from side_by_side import HEADER, machine  # noqa: E402

ROWS = ("all_positions", "evaluation", "catalogue", "end_to_end_step", "utilisation", "growth", "convergence")


def main():
    """Print the table, row by row."""
    given = parse_command_line(sys.argv[1:])
    rows = given.pop("rows", list(ROWS))
    unknown = [name for name in rows if name not in ROWS]
    if unknown:
        sys.exit(f"--rows={unknown[0]}: unknown. Valid: {', '.join(ROWS)}")
    warnings.filterwarnings("ignore", module="recbole|pandas")
    print(f"{machine()}\n\n{HEADER}", flush=True)
    for name in rows:
        AcceleratorState._reset_state()  # a row may have a precision of its own
        for row in importlib.import_module(name).measure(given):
            print(row, flush=True)


if __name__ == "__main__":
    main()
