"""A run of a second on the tiny data, taken apart: what `quick_start` does, without a run folder."""

from recbole.utils import init_seed

from recbole_molar import utils
from recbole_molar.device import make_accelerator
from recbole_molar.quick_start import prepare
from recbole_molar.trainer.sequential_trainer import SequentialTrainer


def make_model(config):
    """Data and a new model: (Prepared, model)."""
    prepared = prepare(config)
    init_seed(config["seed"], config["reproducibility"])
    return prepared, utils.make_model(prepared.model_class, config, prepared.loaders[0]._dataset)


def make_trainer(config, folder):
    """Data and a new trainer that goes on from `folder` if a checkpoint lies there: (Prepared, trainer)."""
    prepared, model = make_model(config)
    trainer = SequentialTrainer(config, model, make_accelerator("fp32", use_cpu=True), folder)
    trainer.resume_checkpoint(train_data=prepared.loaders[0])
    return prepared, trainer
