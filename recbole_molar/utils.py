"""RecBole's `get_model`, `get_trainer`, `create_dataset` and `data_preparation`, ours first and RecBole's after."""

import importlib
from types import SimpleNamespace

import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.dataset import MASKED, HistoryDataset, HistoryDataLoader
from recbole_molar.lookup import available, did_you_mean, find_class
from recbole_molar.model.fused_layers import fuse_layers
from recbole_molar.property_error import PropertyError, bad_value
from recbole_molar.trainer.sequential_trainer import SequentialTrainer
from recbole.data import get_dataloader
from recbole.data.utils import create_samplers
from recbole.model.abstract_recommender import SequentialRecommender

# Models of RecBole's that need another data set or another trainer than those of a comparison, and why.
NOT_OFFERED = {
    "DIEN": "it needs sampled negative histories (RecBole's DIENDataset)",
    "GRU4RecKG": "it needs a knowledge graph (RecBole's KGSeqDataset)",
    "KSR": "it needs a knowledge graph (RecBole's KGSeqDataset)",
    "S3Rec": "it is pre-trained first, and RecBole's trainer keeps that stage in a pickle (RecBole's S3RecTrainer)",
}


def recbole_sequential_models():
    """Names of RecBole's own sequential models."""
    package = importlib.import_module("recbole.model.sequential_recommender")
    found = (name for name, value in vars(package).items() if isinstance(value, type) and issubclass(value, SequentialRecommender))
    return sorted(name for name in found if name not in NOT_OFFERED and compat.recbole_model_module(name))


def get_model(name, key="model"):
    """Model class by name: one of ours, one of RecBole's sequential models, or a dotted path.

    Raises:
        PropertyError: no such model, or not a sequential one; lists what there is.
    """
    name = str(name)
    if name in available("model.sequential_recommender") or "." in name:
        found = find_class(name, "model.sequential_recommender", key=key)
        if not (isinstance(found, type) and issubclass(found, SequentialRecommender)):
            raise bad_value(key, name, "is no subclass of RecBole's SequentialRecommender.")
        return found
    if name in NOT_OFFERED:
        raise bad_value(key, name, f"not offered here: {NOT_OFFERED[name]}. Run it with RecBole itself.")
    valid = sorted({*recbole_sequential_models(), *available("model.sequential_recommender")})
    if name in valid:
        return getattr(importlib.import_module(compat.recbole_model_module(name)), name)
    raise bad_value(key, name, f"no such sequential model.{did_you_mean(name, valid)} Valid: {', '.join(valid)}, or a dotted path to a class.")


def get_trainer(config):
    """Trainer class: ours, for every sequential model."""
    return SequentialTrainer


def create_dataset(config, all_positions):
    """The data set of a run, with the stable time order; see :class:`HistoryDataset`.

    Raises:
        ValueError: bad data; an item feature of the model that the data set does not have; fewer items than the largest topk.
    """
    dataset = HistoryDataset(config, all_positions=all_positions)
    missing = [field for field in config["selected_features"] or [] if field not in dataset.field2type]
    if missing:
        text = f"selected_features: {config['model']} reads the item feature {', '.join(missing)}, which is not loaded. Set --selected_features, "
        raise PropertyError("selected_features", f"{text}and load it: --load_col={{item: [{dataset.iid_field}, ...]}}.")
    if max(config["topk"]) >= dataset.item_num:
        raise bad_value("topk", config["topk"], f"{config['dataset']} has {dataset.item_num - 1} items; take a smaller topk (and valid_metric).")
    return dataset


def make_model(model_class, config, dataset):
    """An untrained model on the run's device.

    Raises:
        ValueError: it cannot be made with these properties.
    """
    try:
        return fuse_layers(model_class(config, dataset).to(config["device"]))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError) as error:  # as torch and RecBole's models raise them
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ValueError(f"{config['model']}: cannot be made with these properties ({reason}). Check its sizes, and that heads divide the width.") from error


def needs_prefixes(config):
    """Why a run must train one row for each prefix, whatever the model allows; None if nothing speaks against all positions."""
    negatives = config["train_neg_sample_args"]
    if not config["train_all_positions"]:
        return "train_all_positions=False"
    if "LS" not in config["eval_args"]["split"]:
        return "all positions need leave-one-out"
    if config["transform"] not in (None, MASKED):
        return f"transform={config['transform']} works on rows"
    if negatives["distribution"] == "popularity" or negatives["sample_num"] not in (1, "none") or negatives["dynamic"]:
        return "all positions know one uniform negative only, not these train_neg_sample_args"
    return None


def _sampled_from(dataset, training_part):
    """What RecBole's samplers read of a data set: `popularity` counts training interactions, whatever rows the model is trained and ranked on."""
    items = dataset.iid_field
    trained_on = torch.from_numpy(dataset.train_items()) if dataset.held_out else training_part.inter_feat[items]
    return SimpleNamespace(iid_field=items, user_num=dataset.user_num, item_num=dataset.item_num, inter_feat={items: trained_on})


def data_preparation(config, dataset):
    """Split, as `eval_args` says, and build the three loaders.

    Returns:
        tuple: train, validation and test loaders.

    Raises:
        ValueError: a part of the split is empty.
    """
    built = dataset.build()
    dataset.check_split(built)
    by_popularity = "popularity" in (config[f"{part}_neg_sample_args"]["distribution"] for part in ("train", "valid", "test"))
    drawn_from = _sampled_from(dataset, built[0]) if by_popularity else dataset
    train_sampler, valid_sampler, test_sampler = create_samplers(config, drawn_from, built)
    train_class = HistoryDataLoader if dataset.all_positions else get_dataloader(config, "train")
    return (
        train_class(config, built[0], train_sampler, shuffle=config["shuffle"]),
        get_dataloader(config, "valid")(config, built[1], valid_sampler, shuffle=False),
        get_dataloader(config, "test")(config, built[2], test_sampler, shuffle=False),
    )
