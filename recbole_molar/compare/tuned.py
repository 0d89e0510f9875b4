"""`compare --tune-trials`: the same number of trials for every model, each in a process of `tune`, before the comparison runs the best."""

import csv
from importlib.util import find_spec
from pathlib import Path

from recbole_molar.command_line import dump_yaml, properties_dir, read_yaml
from recbole_molar.compare.runs import file_name, in_a_process, known_config, queue, write_properties

NOTHING_SEARCHED = "nothing to tune"
ANY_MODEL = "default"  # properties/hyper/default.yaml


def check_tuning(entries, options, trials):
    """Raise ValueError for what would stop a search: a bad number, no Optuna, or an option that the space of a model searches over."""
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
        raise ValueError(f"--tune-trials={trials}: give how many for each model, a whole number of at least 1.")
    if not find_spec("optuna"):
        raise ValueError('--tune-trials needs Optuna: pip install "recbole_molar[tune]", in a checkout pip install -e ".[tune]"')
    for entry in entries:
        if entry.folders:
            raise ValueError(f"--models: {entry.label}: finished runs cannot be tuned. Name the model, or leave out --tune-trials.")
        space = space_of(entry)
        both = sorted(set(options) & set(read_yaml(space)))
        if both:
            start = f"--models='{{{entry.label}: {{model: {entry.properties['model']}, {both[0]}: {options[both[0]]}}}}}'"
            raise ValueError(f"--{both[0]}: {space} searches over it. Leave it out; or let the search start there: {start}.")


def space_of(entry):
    """The search space of an entry's model: `properties/hyper/<model>.yaml`, or the one for any model."""
    name, folder = str(entry.properties["model"]).rpartition(".")[2], properties_dir() / "hyper"
    return next(path for path in (folder / f"{name}.yaml", folder / f"{ANY_MODEL}.yaml") if path.is_file())


def tune_entries(entries, options, seeds, trials, folder, jobs, gpus):
    """Search for each entry's properties by validation alone; the best ones become its properties.

    What an entry is given (a recipe, or properties of its own) is where its search starts; a search of the same configuration goes on.

    Args:
        entries (list of Entry); options (dict): of all models; seeds (list of int): the search uses the first, or the entry's own first.
        trials (int); folder (Path): of the comparison; jobs (int, optional): searches at a time; gpus (list): of :func:`chosen_gpus`.

    Raises:
        ValueError: a search that failed; names its log.
    """

    def work(entry, gpu):
        space, seed = space_of(entry), (entry.seeds or seeds)[0]
        keys = list(read_yaml(space))
        if not keys:
            entry.tuned = {"trials": 0, "keys": [], "folder": None, "about": NOTHING_SEARCHED}
            return None
        name = f"tune-{file_name(entry.label)}"
        start = write_properties(folder / "logs" / f"{name}.yaml", {**entry.properties, "seed": seed})
        taken = known_config(entry.properties, options)[1] - set(entry.properties)  # what an entry has of its own stays
        words = [f"--config_files={start}", f"--space={space}", f"--trials={trials}", *(f"--{key}={_word(options[key])}" for key in sorted(taken))]
        last, failure = in_a_process("tune", words, folder / "logs" / f"{name}.log", gpu, f"{entry.label}, {trials} trials")
        if failure:
            return f"{entry.label}: the search failed, {failure}. Its log: {folder / 'logs' / f'{name}.log'}. The same command goes on."
        study = Path(last)
        with open(study / "trials.csv", encoding="utf-8", newline="") as file:
            done = len(list(csv.DictReader(file)))
        entry.properties = {key: value for key, value in read_yaml(study / "best.yaml").items() if key != "seed"}
        entry.tuned = {"trials": done, "keys": keys, "folder": str(study), "about": f"{done} trials over {', '.join(keys)}, seed {seed}"}
        return None

    failures = [failure for failure in queue(entries, work, jobs, "searches", gpus) if failure]
    if failures:
        raise ValueError("\n".join(failures))


def _word(value):
    """A value as one word of a command line."""
    return value if isinstance(value, str) and value[:1] in ("[", "(") else dump_yaml(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
