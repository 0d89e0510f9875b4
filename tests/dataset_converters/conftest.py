"""Fixtures: one conversion by the command line, and one epoch of SASRec on its result."""

import shlex

import pytest

from dataset_converters.__main__ import main as convert_main


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def convert(out, capsys):
    """Function: converter, input, further words -> summary; fails on an error."""

    def call(name, source, *words, dataset="made"):
        words = [name, "--input-path", str(source), "--output-path", str(out), *(["--dataset", dataset] if dataset else []), *map(str, words)]
        code = convert_main(words)
        text, errors = capsys.readouterr()
        assert code == 0, errors
        return text

    return call


@pytest.fixture
def refused(out, capsys):
    """Function: converter, input, further words -> the one line of the error; asserts that nothing is left."""

    def call(name, source, *words, dataset="made"):
        before = sorted(out.rglob("*")) if out.exists() else None
        code = convert_main([name, "--input-path", str(source), "--output-path", str(out), "--dataset", dataset, *map(str, words)])
        text, errors = capsys.readouterr()
        assert code == 2 and not text and errors.startswith("error: ") and errors.count("\n") == 1 and "Traceback" not in errors, errors
        assert (sorted(out.rglob("*")) if out.exists() else None) == before
        return errors

    return call


@pytest.fixture
def trains(flags, command_line, capsys):
    """Function: the command that a summary prints, with the size of a model of a second and nothing for the data; returns what it prints.

    `model` takes the place of the printed one (Molar, which only a few of the tests here train).
    """

    def call(summary, model="SASRec"):
        from recbole_molar.__main__ import main  # heavy; the other tests here need nothing of it
        from test_molar_runs import SMALL

        program, script, *words = shlex.split(summary[summary.index("python run_recbole_molar.py") :])
        assert (program, script, words[0][:8]) == ("python", "run_recbole_molar.py", "--model=")
        small = flags(**{**(SMALL if model == "Molar" else {}), "model": model}, MAX_ITEM_LIST_LENGTH=4, topk="[3]", valid_metric="NDCG@3")
        given = {key: value for key, value in small.items() if key not in ("dataset", "data_path")}
        code = main(["run", *words[1:], *command_line(given)])
        text, errors = capsys.readouterr()
        assert code == 0, errors
        return text

    return call
