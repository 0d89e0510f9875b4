"""Fixtures of the models that read items: a module's SMALL holds the properties of a small run of its model."""

import json

import pytest
import torch
import torch.nn.functional as F
from test_leak import changed_targets
from tiny_data import tiny_interactions

from recbole_molar.__main__ import main
from recbole_molar.config import Config
from recbole_molar.device import make_accelerator
from recbole_molar.quick_start import build_model, prepare, read_content
from recbole_molar.run_folder import RunFolder
from recbole_molar.trainer.sequential_trainer import SequentialTrainer


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


@pytest.fixture
def cosine_scores(make_data, make):
    """Function: properties beside the module's SMALL -> checks that scores, of all items and of one, are cosines over the temperature, here 0.5."""

    def check(**options):
        make_data(items=True)
        _, prepared, model = make(**options, score_temperature=0.5)
        model.eval()
        batch = next(iter(prepared.loaders[2]))[0]
        user, table = model.user_embedding(batch)
        scores = model.full_sort_predict(batch)
        torch.testing.assert_close(scores[:, 1:], F.cosine_similarity(user[:, None], table[None, 1:], dim=-1) / 0.5, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.predict(batch), scores[torch.arange(len(scores)), batch["item_id"]])

    return check


@pytest.fixture
def blind_to_targets(make_data, make, tmp_path):
    """Function: properties beside the module's SMALL -> checks that with every held-out item changed training ends with the same weights, bit for bit."""

    def check(images=False, **options):
        rows = [("anchor", f"i{item}", 5) for item in (*range(30), 0, 1, 2)] + tiny_interactions()
        trained = []
        for name, data in (("tiny", rows), ("other", changed_targets(rows, 30, held_out=2))):
            make_data(data, name=name, items=True, images=images)
            config, prepared, model = make(dataset=name, **options)
            trainer = SequentialTrainer(config, model, make_accelerator("fp32", use_cpu=True), tmp_path / name)
            trainer.fit(*prepared.loaders[:2])
            trained.append((prepared.dataset.split_hash(), trainer))
        (one, first), (other, second) = trained
        assert one != other and first.best_valid_result != second.best_valid_result
        for (name, left), right in zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True):
            assert torch.equal(left, right), name

    return check
