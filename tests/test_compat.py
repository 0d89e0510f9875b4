"""Shims: what importing us changes, and what it leaves alone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from recbole_molar import compat

ROOT = Path(__file__).parent.parent


def python(code):
    """Standard output of a new Python process that runs `code` in the checkout."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_leaves_torch_and_the_environment_alone():
    code = (
        "import os, torch; before = dict(os.environ)\n"
        "import recbole_molar.quick_start, sys\n"
        "print(torch.is_anomaly_enabled(), dict(os.environ) == before, [m for m in ('ray', 'recbole.quick_start', 'transformers') if m in sys.modules])"
    )
    assert python(code) == "False True []"  # ray and transformers take seconds to import


def test_without_the_shim_anomaly_mode_is_on():
    code = "import numpy as np; np.float_ = np.float64\nimport torch, recbole.model.sequential_recommender.sine\nprint(torch.is_anomaly_enabled())"
    assert python(code) == "True"


def test_anomaly_mode_of_the_user_is_kept():
    assert python("import torch; torch.autograd.set_detect_anomaly(True)\nimport recbole_molar.compat\nprint(torch.is_anomaly_enabled())") == "True"


def test_numpys_old_names_are_there():
    assert np.float_ is np.float64 and np.complex_ is np.complex128 and np.unicode_ is np.str_
    assert np.array([1.5], dtype=np.float).dtype == np.float64 and np.array([True], dtype=np.bool).dtype == bool


def test_names_that_numpy_has_are_not_replaced():
    assert python("import numpy; names = {n: getattr(numpy, n) for n in ('bool', 'long', 'str_', 'object_') if n in vars(numpy)}\n"
                  "import recbole_molar.compat; print(all(getattr(numpy, n) is v for n, v in names.items()))") == "True"


def test_command_line_is_hidden_and_comes_back(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["program", "--seed=1"])
    with compat.hidden_command_line():
        assert sys.argv == ["program"]
    assert sys.argv == ["program", "--seed=1"]


def test_model_modules():
    assert compat.recbole_model_module("SASRec") == "recbole.model.sequential_recommender.sasrec"
    assert compat.recbole_model_module("NoSuchModel") is None


def test_no_tensorboard_folder(tmp_path, monkeypatch):
    from recbole.trainer import trainer

    monkeypatch.chdir(tmp_path)
    trainer.get_tensorboard(None).add_scalar("a", 1.0, 0)
    assert not list(tmp_path.iterdir()) and not torch.is_anomaly_enabled()
