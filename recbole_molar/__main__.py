"""Command line: `python -m recbole_molar run --model=Molar --dataset=ml-100k`."""

import os
import sys
import traceback
from importlib.util import find_spec

USAGE = """usage: python -m recbole_molar run --model=NAME --dataset=NAME [--config_files=FILES] [--key=value ...]
       python -m recbole_molar run --resume=RUN_FOLDER
       python -m recbole_molar doctor --dataset=NAME [any option of run]
       python -m recbole_molar doctor --run=RUN_FOLDER [--output_dir=FOLDER]
       python -m recbole_molar compare --models=A,B,... --dataset=NAME [--seeds=N] [--reference=A] [--jobs=N] [--tune-trials=N]
                                       [--report=False] [any option of run]
       python -m recbole_molar tune --model=NAME --dataset=NAME --space=FILE [--trials=N] [--sampler=tpe|grid|random] [--pruning=False] [any option of run]
       python -m recbole_molar paper-table --table=NAME --dataset=NAME [--rows=[A,B]] [--seeds=N] [--jobs=N] [--report=False] [any option of run]
       python -m recbole_molar show-config --model=NAME --dataset=NAME [--key=WORD] [any option of run]

run trains and evaluates a model. doctor takes a minute: it says what is wrong with the data, and how long a run takes on this machine.
compare runs what is missing of several models and seeds, and puts them into one table, with tests of their differences,
and into an HTML report.
tune searches a space of properties by validation alone; the same command goes on with a search that was cut, or joins one that is under way.
paper-table runs the rows of one table of the paper and sets its figures beside ours: main, ablation, modality, id_model, finetune, user_encoder, backbone.
show-config prints every property of a run and where its value comes from.
Values are YAML; --key=value and --key value both work. Properties and what they mean: properties/*.yaml.
Example: python run_recbole_molar.py --model=Molar --dataset=ml-100k"""

LESS_MEMORY = (
    "Set gradient_checkpointing=True, mirm_tuning=lora, or a smaller mirm_finetune_batch_size, mirm_encode_batch_size, train_batch_size or eval_batch_size; "
    "doctor says what each stage needs. Finished stages are kept, and found again."
)


def main(arguments=None):
    """Run one command.

    Args:
        arguments (list of str): words of the command line; default `sys.argv[1:]`.

    Returns:
        int: exit code; 0 done, 2 bad input, 1 anything else, 130 interrupted.
    """
    wait_without_spinning()
    arguments = sys.argv[1:] if arguments is None else arguments
    command, rest = (arguments[0], arguments[1:]) if arguments else ("help", [])
    if command in ("help", "-h", "--help") or {"-h", "--help"} & set(rest):
        print(USAGE)
        return 0
    debug = any(word.replace(" ", "").lower() in ("--debug=true", "--debug") for word in rest)
    try:
        if command not in COMMANDS:
            raise ValueError(f"{command}: no such command. Valid: {', '.join(COMMANDS)}.")
        if command != "run" and launched() > 1:
            raise ValueError(f"{command}: one process; only run can be launched as several ({launched()} here). Leave out the launcher.")
        return COMMANDS[command](rest)
    except KeyboardInterrupt:
        return _report("interrupted; go on with --resume=<run folder>, with compare and tune by the same command", 130, False)
    except (ValueError, NotImplementedError) as error:
        return _report(f"error: {error}", 2, debug)
    except Exception as error:
        if any(words in str(error) for words in ("out of memory", "can't allocate memory")):  # torch's, on a GPU and on a CPU
            return _report(f"error: {' '.join(str(error).split())[:300]} {LESS_MEMORY}", 1, debug)
        # The last resort: say what broke in a line, keep the traceback for those who ask.
        return _report(f"unexpected {type(error).__name__}: {error}\nShow the traceback with --debug=True.", 1, debug)


def wait_without_spinning():
    """Set how OpenMP's threads wait for each other, before PyTorch loads and reads it; the user's own setting stands.

    By default they spin long: beside other work a run then takes two to five times as long, alone up to a sixth less (docs/speed.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def launched():
    """How many processes `torchrun` or `accelerate launch` started, 1 without them."""
    return int(os.environ.get("WORLD_SIZE", 1))


def _run(arguments):
    from recbole_molar.quick_start import run  # heavy imports only once they are needed

    result = run(arguments)
    if int(os.environ.get("RANK", 0)) == 0:
        print(result["result_file"])
    return 0


def _doctor(arguments):
    from recbole_molar.doctor.examination import examine

    report, error = examine(arguments)
    if error:
        print(f"error: {error}", file=sys.stderr)
    print(report)
    return 2 if error else 0


def _compare(arguments):
    from recbole_molar.compare.comparison import compare

    text, code = compare(arguments)
    print(text)
    return code


def _paper_table(arguments):
    from recbole_molar.paper_table import paper_table

    text, code = paper_table(arguments)
    print(text)
    return code


def _tune(arguments):
    if not find_spec("optuna"):
        raise ValueError('tune needs Optuna: pip install "recbole_molar[tune]", in a checkout pip install -e ".[tune]"')
    from recbole_molar.tune.tuning import tune

    print(tune(arguments))
    return 0


def _show_config(arguments):
    from recbole_molar.show_config import show_config

    print(show_config(arguments))
    return 0


COMMANDS = {"run": _run, "doctor": _doctor, "compare": _compare, "tune": _tune, "paper-table": _paper_table, "show-config": _show_config}


def _report(message, code, debug):
    if launched() > 1:
        from recbole_molar.processes import first_to_fail

        if not first_to_fail():
            return code
    if debug:
        traceback.print_exc()
    print(message.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)  # a file name may hold bytes that are no text
    return code


if __name__ == "__main__":
    sys.exit(main())
