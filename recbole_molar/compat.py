"""Every shim for a release of RecBole, NumPy or torch. Import this before anything of RecBole's."""

import contextlib
import importlib.util
import sys
import warnings

import numpy as np
import torch

# NumPy >= 2 dropped these names; RecBole 1.2.0 and 1.2.1 still read them (config/configurator.py, evaluator/metrics.py).
for _old, _new in {
    "float_": np.float64, "complex_": np.complex128, "object_": np.object_, "str_": np.str_, "unicode_": np.str_,
    "bool": np.bool_, "int": np.int_, "float": np.float64, "complex": np.complex128, "object": np.object_,
    "str": np.str_, "long": np.int_, "unicode": np.str_,
}.items():
    if _old not in np.__dict__:
        setattr(np, _old, _new)


# torch 2.13 calls DistributedDataParallel's argument deprecated; Accelerate 1.15 and torch < 2.13 know no other name for it.
warnings.filterwarnings("ignore", message="`broadcast_buffers`", category=FutureWarning)


class NoTensorboard:
    """Stands in for the SummaryWriter that RecBole 1.2 opens in a hard-coded `./log_tensorboard`."""

    def add_scalar(self, *args, **kwargs):
        """Drop the value: a run's figures stand in its own folder."""

    def add_hparams(self, *args, **kwargs):
        """Drop the values."""


def _patch_trainer():
    import recbole.trainer.trainer as trainer

    trainer.get_tensorboard = lambda logger: NoTensorboard()


def recbole_model_module(name):
    """Module path of RecBole's sequential model `name`, or None."""
    path = f"recbole.model.sequential_recommender.{name.lower()}"
    return path if importlib.util.find_spec(path) else None


@contextlib.contextmanager
def keep_anomaly_mode():
    """RecBole 1.2's sine.py turns torch's anomaly detection on when it is imported; put the mode back afterwards."""
    mode = torch.is_anomaly_enabled()
    try:
        yield
    finally:
        torch.autograd.set_detect_anomaly(mode)


@contextlib.contextmanager
def hidden_command_line():
    """RecBole 1.2's Config reads `sys.argv` of whatever program runs it, pytest included; show it none."""
    argv, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = argv


with keep_anomaly_mode():
    import recbole.model.sequential_recommender  # noqa: F401

    _patch_trainer()
