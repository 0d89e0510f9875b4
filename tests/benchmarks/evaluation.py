"""Evaluation of all test users by SASRec: RecBole's own loop and layers against ours; the metrics must be the same to the last digit.

    OMP_NUM_THREADS=1 python -m tests.benchmarks --rows=[evaluation] --data_path=../shared/data
"""

import tempfile
from functools import partial

import torch
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer

from recbole_molar.config import Config
from recbole_molar.device import make_accelerator
from recbole_molar.quick_start import prepare
from recbole_molar.utils import get_trainer, make_model
from side_by_side import Row, least_seconds

TARGET = 3


def measure(given):
    """Rows for histories of 50 (RecBole's default) and 200 items (our recipe); the history is not masked, as RecBole's loop has it."""
    for length in (50, 200):
        with tempfile.TemporaryDirectory() as folder:
            own = {"model": "SASRec", "MAX_ITEM_LIST_LENGTH": length, "mask_history": False, "checkpoint_dir": folder}
            config = Config(config_dict={"dataset": "ml-1m", "show_progress": False, "use_cpu": True, **given, **own})
            prepared = prepare(config)
            train, _, test = prepared.loaders
            torch.manual_seed(0)
            theirs = SASRec(config, train._dataset)
            ours = make_model(prepared.model_class, config, train._dataset)
            ours.load_state_dict(theirs.state_dict())
            their_trainer = Trainer(config, theirs)
            our_trainer = get_trainer(config)(config, ours, make_accelerator("fp32", use_cpu=True), folder)
            for trainer in (their_trainer, our_trainer):
                trainer.eval_collector.data_collect(train)
            ours_s, theirs_s, found, expected = least_seconds(
                partial(our_trainer.evaluate, test, load_best_model=False), partial(Trainer.evaluate, their_trainer, test, load_best_model=False)
            )
            same = "metrics equal" if dict(found) == dict(expected) else f"METRICS DIFFER: {dict(found)} {dict(expected)}"
            yield Row(f"evaluation, {len(test._dataset):,} users, L {length}", "RecBole's loop and layers", ours_s, theirs_s, TARGET, same)
