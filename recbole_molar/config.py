"""RecBole's Config plus our properties: YAML values on the command line, merged dictionaries, and no unknown key."""

import inspect
import re
from functools import lru_cache
from pathlib import Path

import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.command_line import properties_dir, read_yaml, yaml_loader
from recbole_molar.lookup import did_you_mean, find_class
from recbole_molar.utils import get_model
from recbole.config import Config as RecBoleConfig
from recbole.evaluator.register import metric_types
from recbole.utils.argument_list import dataset_arguments, evaluation_arguments, general_arguments, training_arguments

# Keys that RecBole reads but lists nowhere, and those of the run itself.
EXTRA_KEYS = {
    "model", "dataset", "config_files", "resume", "debug", "use_cpu", "encoding", "numerical_features", "valid_metric_bigger",
    "transform", "crop_eta", "reorder_beta",
}
CHOICES = {
    "mirm_tuning": ("full", "lora", "frozen"),
    "mirm_readout": ("cur_item", "mean"),
    "mirm_finetune_objective": ("through_state", "generation"),
    "item_encoding": ("cached", "end_to_end"),
    "id_training": ("frozen", "joint"),
    "rec_loss": ("bce", "nce", "ce"),
    "precision": ("auto", "bf16", "fp32"),
    "lr_schedule": ("constant", "cosine"),
    "train_windows": ("last", "chunks"),
    "score_function": ("dot", "cosine"),
    "item_adapter": ("none", "linear", "mlp"),
    "learner": ("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam"),  # RecBole takes Adam for any other name
}
INFINITY = float("inf")
NUMBERS = {  # key: (type, smallest value, largest value)
    "epochs": (int, 0, INFINITY), "train_batch_size": (int, 1, INFINITY), "eval_batch_size": (int, 1, INFINITY), "MAX_ITEM_LIST_LENGTH": (int, 1, INFINITY),
    "stopping_step": (int, 0, INFINITY), "eval_step": (int, 0, INFINITY), "seed": (int, 0, INFINITY), "gradient_accumulation_steps": (int, 1, INFINITY),
    "learning_rate": (float, 0, INFINITY), "weight_decay": (float, 0, INFINITY), "warmup_ratio": (float, 0, 1), "metric_decimal_place": (int, 1, INFINITY),
    "mirm_finetune_samples": (int, 1, INFINITY), "mirm_finetune_epochs": (int, 0, INFINITY), "mirm_finetune_batch_size": (int, 1, INFINITY),
    "mirm_finetune_learning_rate": (float, 0, INFINITY), "mirm_finetune_history_length": (int, 1, INFINITY), "mirm_bow_weight": (float, 0, INFINITY),
    "mirm_contrast_weight": (float, 0, INFINITY), "mirm_contrast_temperature": (float, 1e-3, INFINITY), "mirm_max_answer_tokens": (int, 1, INFINITY),
    "mirm_max_tokens": (int, 1, INFINITY), "mirm_encode_batch_size": (int, 1, INFINITY), "mirm_lora_rank": (int, 1, INFINITY),
    "mirm_lora_alpha": (float, 0, INFINITY), "mirm_learning_rate": (float, 0, INFINITY), "end_to_end_items": (int, 1, INFINITY),
    "item_adapter_size": (int, 1, INFINITY), "item_dropout": (float, 0, 0.99), "dueg_dropout": (float, 0, 0.99), "align_weight": (float, 0, INFINITY),
    "align_temperature": (float, 1e-3, INFINITY), "score_temperature": (float, 1e-3, INFINITY), "nce_negatives": (int, 1, INFINITY),
}
MAX_IMAGE_SIDE = 2048  # pixels
SWITCHES = ("item_text_escaped", "item_standardize", "item_id_residual", "gradient_checkpointing", "mask_history", "train_all_positions")
MERGED_KEYS = ("eval_args", "load_col")  # dictionaries of which a user may give a part


class Config(RecBoleConfig):
    """RecBole's Config with our YAML files below the user's.

    Order, later wins: RecBole's defaults, `properties/overall.yaml`, the model's YAML (RecBole's, then ours), the parts'
    YAML (backbone, user encoder, ID model), the data set's YAML (RecBole's, ours, `<data_path>/<dataset>/dataset.yaml`),
    RecBole's protocol for sequential models, `config_file_list`, `config_dict`.

    Args:
        model (str or class), dataset (str), config_file_list (list), config_dict (dict): as RecBole's; `config_dict`
            holds what was typed on the command line. `sys.argv` is not read.

    Raises:
        ValueError: an unknown key, model, part or choice.
    """

    def __init__(self, model=None, dataset=None, config_file_list=None, config_dict=None):
        self.own_keys = set()
        self.origins = {}  # key -> where its value comes from
        with compat.hidden_command_line():
            super().__init__(model=model, dataset=dataset, config_file_list=config_file_list, config_dict=config_dict)

    def compatibility_settings(self):
        """Nothing: `compat` restored NumPy's old names when it was imported."""

    def _build_yaml_loader(self):
        return yaml_loader()

    def _load_config_files(self, file_list):
        self.files = {str(file): read_yaml(file) for file in file_list or []}
        return {key: value for content in self.files.values() for key, value in content.items()}

    def _convert_config_dict(self, config_dict):
        return dict(config_dict or {})

    def _get_model_and_dataset(self, model, dataset):
        model = model or self.external_config_dict.get("model")
        dataset = dataset or self.external_config_dict.get("dataset")
        for key, value in (("model", model), ("dataset", dataset)):
            if value is None:
                raise ValueError(f"--{key} is missing. Example: --model=Molar --dataset=ml-100k")
        model_class = model if isinstance(model, type) else get_model(model)
        self.model_name = str(model) if not isinstance(model, type) else f"{model.__module__}.{model.__qualname__}"
        return model_class.__name__, model_class, str(dataset)

    def _update_internal_config_dict(self, file):
        content = super()._update_internal_config_dict(file)
        self.origins.update(dict.fromkeys(content or {}, f"RecBole's {Path(file).parent.name}/{Path(file).name}".replace("properties/", "")))
        return content

    def _load_internal_config_dict(self, model, model_class, dataset):
        super()._load_internal_config_dict(model, model_class, dataset)
        protocol = {key: self.internal_config_dict.get(key) for key in ("eval_args", "repeatable")}
        protocol["eval_args"] = {**protocol["eval_args"], "mode": "full"}  # RecBole ranks DIN among 100 samples: no comparison with the others
        recbole_keys = set(self.internal_config_dict)
        ours = properties_dir()
        if not (ours / "overall.yaml").is_file():
            raise ValueError(f"{ours}: the properties of recbole_molar are missing; install the package again.")
        self._read_ours(ours / "overall.yaml")
        self._read_ours(ours / "model" / f"{model}.yaml")
        if "mirm_backbone" in self.internal_config_dict:
            self._load_parts(ours)
        self._read_ours(ours / "dataset" / f"{dataset}.yaml")
        data_path = self.external_config_dict.get("data_path", self.internal_config_dict["data_path"])
        self._read_ours(Path(str(data_path)) / dataset / "dataset.yaml")
        self.internal_config_dict.update(protocol)
        self.origins.update(dict.fromkeys(protocol, "RecBole's protocol for sequential models"))
        self.known_keys = recbole_keys | self.own_keys | set(_listed_keys()) | set(_keys_read_by(model_class))
        self._check_keys()

    def _load_parts(self, ours):
        chosen = {**self.internal_config_dict, **self.external_config_dict}
        backbone = chosen["mirm_backbone"]
        self._read_ours(ours / "backbone" / "compact.yaml")
        if isinstance(backbone, str) and re.fullmatch(r"[\w.-]+", backbone):
            self._read_ours(ours / "backbone" / f"{backbone}.yaml")
        for file in sorted((ours / "finetune").glob("*.yaml")):
            self._read_ours(file)
        find_class(chosen["user_encoder"], "model.user_encoder", key="user_encoder")
        self._read_ours(ours / "user_encoder" / f"{chosen['user_encoder']}.yaml")
        self._read_ours(ours / "id_model" / f"{chosen['id_model']}.yaml")
        self.id_model_class = get_model(chosen["id_model"], key="id_model")

    def _read_ours(self, file):
        if file.is_file():
            content = read_yaml(file)
            self.own_keys |= set(content)
            for key in MERGED_KEYS:
                if isinstance(content.get(key), dict) and isinstance(self.internal_config_dict.get(key), dict):
                    content[key] = {**self.internal_config_dict[key], **content[key]}
            self.internal_config_dict.update(content)
            self.origins.update(dict.fromkeys(content, _origin(file)))

    def _check_keys(self):
        sources = {**{f"{file}: ": content for file, content in self.files.items()}, "--": self.variable_config_dict}
        for source, content in sources.items():
            for key in content:
                if key not in self.known_keys and not self._is_id_model_key(key):
                    hint = did_you_mean(key, self.known_keys | self._id_model_keys())
                    raise ValueError(f"{source}{key}: unknown property for model {self.model}.{hint}")

    def _is_id_model_key(self, key):
        """`id_<key>` sets `<key>` of the ID model."""
        return key in self._id_model_keys()

    def _id_model_keys(self):
        if "id_model_class" not in self.__dict__:
            return set()
        known = _listed_keys() | _keys_read_by(self.id_model_class) | set(read_yaml(properties_dir() / "overall.yaml"))
        return {f"id_{key}" for key in known}

    def _get_final_config_dict(self):
        final = {**self.internal_config_dict, **self.external_config_dict}
        for source, content in (*self.files.items(), ("command line", self.variable_config_dict)):
            over = {key: f", over {self.origins[key]}" for key in MERGED_KEYS if key in self.origins}
            self.origins.update({key: f"{_origin(source)}{over.get(key, '')}" for key in content})
        for key in MERGED_KEYS:
            if isinstance(final.get(key), dict) and isinstance(self.internal_config_dict.get(key), dict):
                final[key] = {**self.internal_config_dict[key], **final[key]}
        if final.get("loss_type") == "CE" and "train_neg_sample_args" not in self.external_config_dict:
            final["train_neg_sample_args"] = None
        for key in ("user_inter_num_interval", "item_inter_num_interval"):
            if isinstance(final[key], list):  # [5,10] of a YAML file
                final[key] = f"[{','.join(map(str, final[key]))}]"
        self._check_values(final)
        given, columns = self.external_config_dict.get("load_col", {}), final["load_col"]
        if columns and "inter" not in (given or {}) and columns.get("inter") == ["user_id", "item_id"]:
            # RecBole's sample.yaml, which stands in for a data set without a YAML of its own, lacks the time
            final["load_col"] = {**columns, "inter": [final[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")]}
        return final

    def _check_values(self, final):
        for key, choices in CHOICES.items():
            if key in final and final[key] not in choices:
                raise ValueError(f"{key}={final[key]}: unknown. Valid: {', '.join(choices)}.")
        for metric in _as_list(final["metrics"]):
            if str(metric).lower() not in metric_types:
                raise ValueError(f"metrics={metric}: unknown. Valid: {', '.join(sorted(metric_types))}.")
        for key, (kind, least, most) in NUMBERS.items():
            value = final.get(key, least)
            if isinstance(value, bool) or not isinstance(value, (int, kind)) or not least <= value <= most:
                between = f"of at least {least}" if most == INFINITY else f"from {least} to {most}"
                raise ValueError(f"{key}={value}: must be {'a whole number' if kind is int else 'a number'} {between}.")
        for key in SWITCHES:
            if not isinstance(final.get(key, True), bool):
                raise ValueError(f"{key}={final[key]}: must be True or False.")
        size = final.get("mirm_image_size", [28, 28])
        if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and 1 <= side <= MAX_IMAGE_SIDE for side in size)):
            raise ValueError(f"mirm_image_size={size}: must be [width, height], whole numbers from 1 to {MAX_IMAGE_SIDE}.")
        for k in _as_list(final["topk"]):
            if isinstance(k, bool) or not isinstance(k, int) or k < 1:
                raise ValueError(f"topk={final['topk']}: must be a whole number of at least 1, or a list of them.")
        for key in (*MERGED_KEYS, "clip_grad_norm", "train_neg_sample_args"):
            if final[key] is not None and not isinstance(final[key], dict):
                raise ValueError(f"{key}={final[key]}: must be a dictionary, {{name: value, ...}}, or ~.")
        name, _, k = str(final["valid_metric"]).partition("@")
        if k not in {str(value) for value in _as_list(final["topk"])} or name.lower() not in {str(m).lower() for m in _as_list(final["metrics"])}:
            raise ValueError(f"valid_metric={final['valid_metric']}: not computed with metrics={final['metrics']} and topk={final['topk']}.")

    def _set_default_parameters(self):
        data_path = self.final_config_dict["data_path"]
        super()._set_default_parameters()
        # RecBole reads its bundled ml-100k whatever data_path says; a user's own copy goes first.
        if "data_path" in self.external_config_dict:
            self.final_config_dict["data_path"] = str(Path(data_path) / self.dataset)

    def _init_device(self):
        gpu_id = str(self.final_config_dict["gpu_id"] if self.final_config_dict["gpu_id"] is not None else "").strip("()")
        use_cpu = self.final_config_dict.get("use_cpu") or not gpu_id or not torch.cuda.is_available()
        self.final_config_dict.update(
            gpu_id=gpu_id, use_gpu=not use_cpu, device=torch.device("cpu" if use_cpu else "cuda"), single_spec=True, local_rank=0
        )

    def as_yaml(self):
        """Everything needed to repeat the run, as a flat dict of plain values."""
        drop = {"device", "single_spec", "local_rank", "MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "config_files", "resume"}
        plain = {}
        for key, value in self.final_config_dict.items():
            if key not in drop and (key in self.known_keys or self._is_id_model_key(key)):
                plain[key] = value
        plain["train_neg_sample_args"] = None if plain["train_neg_sample_args"]["distribution"] == "none" else plain["train_neg_sample_args"]
        plain["data_path"], plain["model"] = str(Path(plain["data_path"]).parent), self.model_name
        return plain


def _origin(file):
    """A file's path; that of one of ours from `properties/` on."""
    path, ours = Path(file), properties_dir()
    return str(path.relative_to(ours.parent)) if path.is_relative_to(ours) else str(file)


def _as_list(value):
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _listed_keys():
    return EXTRA_KEYS | {*general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments}


@lru_cache
def _keys_read_by(model_class):
    """Keys that the files of a model and of its base classes read from the config: they need no YAML to be known."""
    keys = set()
    for module in {inspect.getmodule(base) for base in model_class.__mro__ if base.__module__.split(".")[0] not in ("builtins", "torch")}:
        try:
            keys.update(re.findall(r"""config\[\s*["'](\w+)["']\s*\]""", inspect.getsource(module)))
        except (OSError, TypeError):  # a class typed into a notebook has no file
            continue
    return keys
