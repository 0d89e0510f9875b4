"""Fixtures of the models that read items: a module's SMALL holds the properties of a small run of its model."""

import json

import pytest

from recbole_molar.__main__ import main
from recbole_molar.config import Config
from recbole_molar.device import make_accelerator
from recbole_molar.quick_start import build_model, prepare, read_content
from recbole_molar.run_folder import RunFolder


@pytest.fixture
def make(request, flags, tmp_path):
    """Function: properties beside the module's SMALL -> (Config, Prepared, model), as a run makes them."""

    def call(**options):
        config = Config(config_dict=flags(**{**request.module.SMALL, **options}))
        prepared = prepare(config)
        (tmp_path / "run").mkdir(exist_ok=True)
        content, accelerator = read_content(config, prepared.dataset), make_accelerator("fp32", use_cpu=True)
        return config, prepared, build_model(config, prepared, content, accelerator, RunFolder(tmp_path / "run"))

    return call


@pytest.fixture
def run(request, capsys, flags, command_line):
    """Function: properties beside the module's SMALL, or words -> (exit code, result or None, output and errors)."""

    def call(words=None, **given):
        code = main(["run", *(words or command_line(flags(**{**request.module.SMALL, **given})))])
        out, err = capsys.readouterr()
        result = json.loads(open(out.strip().splitlines()[-1]).read()) if code == 0 else None
        return code, result, out + err

    return call
