"""The command itself: help, unknown names, exit codes."""

import os
import signal
import subprocess
import sys
import time

import pytest

from dataset_converters import __main__ as command


def test_help(capsys):
    assert command.main([]) == command.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in ("movielens", "amazon", "pixelrec", "tabular", "images")) and "\n  files " not in text


@pytest.mark.parametrize("name", command.commands())
def test_help_of_each(capsys, name):
    with pytest.raises(SystemExit) as stop:
        command.main([name, "--help"])
    assert stop.value.code == 0 and ("--data-path" if name == "images" else "--output-path") in capsys.readouterr().out


def test_errors_are_one_line(capsys):
    for words, message in ((["movilens"], "no such converter. Did you mean movielens?"), (["amazon"], "required: --input-path, --output-path")):
        assert command.main(words) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ") and message in errors and errors.count("\n") == 1


def test_ctrl_c_leaves_nothing(tmp_path):
    """SIGINT to a conversion that waits for its input: exit code 130 and no file."""
    (tmp_path / "raw").mkdir()
    pipe = tmp_path / "raw" / "x.py"
    pipe.write_text(
        "import signal, sys, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it\n"
        "import dataset_converters.tabular as t\nfrom dataset_converters.__main__ import main\n"
        "def slow(*a):\n    print('ready', flush=True)\n    time.sleep(60)\n    yield\n"
        "t.record_chunks = slow\nsys.exit(main(['tabular', '--input-path', 'x.csv', '--output-path', sys.argv[1]]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(command.Path(command.__file__).parent.parent)}
    process = subprocess.Popen([sys.executable, str(pipe), str(tmp_path / "out")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    assert process.stdout.readline() == b"ready\n" and list((tmp_path / "out").iterdir())
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and b"interrupted" in errors and b"Traceback" not in errors and not (tmp_path / "out").exists()
