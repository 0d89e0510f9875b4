"""RecBole's Config plus our properties: YAML values on the command line, merged dictionaries, and no unknown key."""

import contextlib
import inspect
import re
from functools import lru_cache
from pathlib import Path

import torch

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.command_line import properties_dir, read_with_lines, read_yaml, refuse_run_words, yaml_loader
from recbole_molar.lookup import built_here, did_you_mean, find_class
from recbole_molar.property_combinations import hidden_items_are_told, negatives_fit_the_loss
from recbole_molar.property_error import COMMAND_LINE, PropertyError, UnknownPropertyError, bad_value
from recbole_molar.property_schema import PICKLED, Properties, check
from recbole_molar.property_values import MERGED_KEYS, as_list, check_kinds
from recbole_molar.run_folder import CONFIG, LOG, RESULT
from recbole_molar.utils import get_model
from recbole.config import Config as RecBoleConfig
from recbole.utils.argument_list import dataset_arguments, evaluation_arguments, general_arguments, training_arguments

# Keys that RecBole reads but lists nowhere, and those of the run itself.
EXTRA_KEYS = {
    "model", "dataset", "config_files", "resume", "debug", "use_cpu", "encoding", "numerical_features", "valid_metric_bigger",
    "transform", "tail_ratio",
}
# Properties of Molar that a finished run's config.yaml may lack, and what it was made with.
NOT_IN_OLD_RUNS = {"history_time_gaps": False, "dueg_learning_rate": None}
CODE_KEYS = ("model", "user_encoder", "id_model", "more_id_models", "mirm_finetune_tasks")  # a dotted path there is imported
# What a data set's own dataset.yaml may not say, since it may come from anybody: what is imported, what else is read or written, who is told.
NOT_OF_A_DATA_SET = {
    *CODE_KEYS, "mirm_backbone", "mirm_weights", "text_encoder", "image_encoder", "id_weights", "dataset", "data_path", "output_dir", "checkpoint_dir",
    "resume", "config_files", "config_file", "log_wandb", "wandb_project", "preload_weight", "additional_feat_suffix", "benchmark_filename", "debug",
}


class Config(RecBoleConfig):
    """RecBole's Config with our YAML files below the user's.

    Order, later wins: RecBole's defaults with its YAML of the model and of the data set, `properties/overall.yaml`, our YAML of the model,
    of its parts (backbone, user encoder, ID model) and of the data set, `<data_path>/<dataset>/dataset.yaml`, RecBole's protocol for
    sequential models, `config_file_list`, `config_dict`.

    Args:
        model (str or class), dataset (str), config_file_list (list), config_dict (dict): as RecBole's; `config_dict`
            holds what was typed on the command line. `sys.argv` is not read.
        origins (dict): key of `config_dict` -> where its value stands, if that is not the command line.

    Attributes:
        origins (dict): key -> where its value stands, "mine.yaml, line 3" or "command line".
        under (dict): key of which a user gave a part -> where the rest stands.

    Raises:
        PropertyError: an unknown key, model or part, or a value that the schema refuses; it names file and line. ValueError: a bad file.
    """

    def __init__(self, model=None, dataset=None, config_file_list=None, config_dict=None, origins=None):
        self.own_keys, self.origins, self.under = set(), {}, {}
        self.given = {key: (origins or {}).get(key, COMMAND_LINE) for key in config_dict or {}}  # as `origins`, of what the user gave
        try:
            with compat.hidden_command_line():
                super().__init__(model=model, dataset=dataset, config_file_list=config_file_list, config_dict=config_dict)
        except PropertyError as error:
            error.locate({**self.origins, **self.given})
            raise

    @contextlib.contextmanager
    def locating(self):
        """Errors about a property that are only found with the data or the model name their place too."""
        try:
            yield
        except PropertyError as error:
            error.locate(self.origins)
            raise

    def compatibility_settings(self):
        """Nothing: `compat` restored NumPy's old names when it was imported."""

    def _build_yaml_loader(self):
        return yaml_loader()

    def _load_config_files(self, file_list):
        merged, found = {}, {}
        for file in file_list or []:
            content, lines = read_with_lines(file)
            refuse_run_words(content, file)
            merged.update(_as_it_was_meant(content, Path(file)))
            found.update(places(file, lines))
        self.given = {**found, **self.given}
        return merged

    def _convert_config_dict(self, config_dict):
        return dict(config_dict or {})

    def _get_model_and_dataset(self, model, dataset):
        model = model or self.external_config_dict.get("model")
        dataset = dataset or self.external_config_dict.get("dataset")
        for key, value in (("model", model), ("dataset", dataset)):
            if value is None:
                raise ValueError(f"--{key} is missing. Example: --model=Molar --dataset=ml-100k")
        if not isinstance(dataset, (str, int)) or not re.fullmatch(r"\w[^/\\\0]{0,200}", str(dataset)):
            text = f"dataset={str(dataset)[:80]}: must be the name of a folder in data_path. Set --data_path to the folder that holds it."
            raise PropertyError("dataset", text)
        for key in ("data_path", "output_dir"):
            value = self.external_config_dict.get(key, ".")
            if not isinstance(value, (str, int)) or value == "" or any(len(part.encode("utf-8", "replace")) > 255 for part in Path(str(value)).parts):
                raise bad_value(key, str(value)[:80], "must be the path of a folder.")
        model_class = model if isinstance(model, type) else get_model(model)
        self.model_name = str(model) if not isinstance(model, type) else f"{model.__module__}.{model.__qualname__}"
        return model_class.__name__, model_class, str(dataset)

    def _update_internal_config_dict(self, file):
        content, lines = read_with_lines(file)
        self.internal_config_dict.update(content)
        self.origins.update(places(f"RecBole's {Path(file).parent.name}/{Path(file).name}".replace("properties/", ""), lines))
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
            self._load_parts(ours, model, dataset)
        self._read_ours(ours / "dataset" / f"{dataset}.yaml")
        data_path = self.external_config_dict.get("data_path", self.internal_config_dict["data_path"])
        self.known_keys = recbole_keys | self.own_keys | set(_listed_keys()) | set(_keys_read_by(model_class)) | _keys_for_id_models(dataset)
        self._read_data_sets_own(Path(str(data_path)) / dataset / "dataset.yaml")
        self.internal_config_dict.update(protocol)
        self.origins.update(dict.fromkeys(protocol, "RecBole's protocol for sequential models"))
        self._check_keys()

    def _load_parts(self, ours, model, dataset):
        chosen = {**self.internal_config_dict, **self.external_config_dict}
        backbone = chosen["mirm_backbone"]
        for file in ("compact", "pretrained"):
            self._read_ours(ours / "backbone" / f"{file}.yaml")
        if isinstance(backbone, str) and re.fullmatch(r"[\w.-]+", backbone):
            self._read_ours(ours / "backbone" / f"{backbone}.yaml")
        if "user_encoder" in chosen:  # HLLM and CoLLM: no stage 1, one user encoder
            for file in sorted((ours / "finetune").glob("*.yaml")):
                self._read_ours(file)
            find_class(chosen["user_encoder"], "model.user_encoder", key="user_encoder")
            self._read_ours(ours / "user_encoder" / f"{chosen['user_encoder']}.yaml")
        if "id_model" in chosen:  # HLLM has none
            self.id_model_class = get_model(chosen["id_model"], key="id_model")  # before its name is made into that of a file
            for file in id_model_files(chosen["id_model"], dataset):
                self._read_ours(file)
        if not built_here(backbone):
            self._read_ours(ours / "backbone" / f"pretrained-{model}.yaml")

    def _read_ours(self, file):
        if file.is_file():
            content, lines = read_with_lines(file)
            self.own_keys |= set(content)
            for key in MERGED_KEYS:
                if isinstance(content.get(key), dict) and isinstance(self.internal_config_dict.get(key), dict):
                    content[key] = {**self.internal_config_dict[key], **content[key]}
            self.internal_config_dict.update(content)
            self.origins.update(places(file, lines))

    def _read_data_sets_own(self, file):
        """The data set's own YAML: it comes with the data, perhaps from a stranger, and may describe them but not choose code or other files."""
        content, lines = read_with_lines(file) if file.is_file() else ({}, {})
        known = self.known_keys | _keys_of_any_model()
        for key in content:
            of_id_model = str(key).removeprefix("id_")
            if {key, of_id_model} & {*NOT_OF_A_DATA_SET, *PICKLED}:
                text = f"{key}: a data set may not set this. Take the line out; give --{key} on the command line if you want it."
                raise PropertyError(key, text).locate(places(file, lines))
            if not {key, of_id_model} & known and not self._is_id_model_key(key):
                hint = did_you_mean(key, set(map(str, known)))
                raise UnknownPropertyError(key, f"{key}: unknown property.{hint}").locate(places(file, lines))
        image_dir = Path(str(content.get("item_image_dir", "")))
        if image_dir.is_absolute() or ".." in image_dir.parts:
            text = f"item_image_dir={image_dir}: a data set's own pictures lie below its folder. Give --item_image_dir for others."
            raise PropertyError("item_image_dir", text).locate(places(file, lines))
        self._read_ours(file)

    def _check_keys(self):
        for key in self.external_config_dict:
            if key not in self.known_keys and not self._is_id_model_key(key):
                hint = did_you_mean(key, {str(name) for name in self.known_keys | self._id_model_keys()})
                raise UnknownPropertyError(key, f"{key}: unknown property for model {self.model}.{hint}")

    def _is_id_model_key(self, key):
        """`id_<key>` sets `<key>` of the ID model."""
        return key in self._id_model_keys()

    def _id_model_keys(self):
        return _keys_of_id_model(self.id_model_class) if "id_model_class" in self.__dict__ else frozenset()

    def _get_final_config_dict(self):
        final = {**self.internal_config_dict, **self.external_config_dict}
        self.under = {key: self.origins[key] for key in MERGED_KEYS if key in self.given and key in self.origins}
        self.origins.update(self.given)
        for key in MERGED_KEYS:
            if isinstance(final.get(key), dict) and isinstance(self.internal_config_dict.get(key), dict):
                final[key] = {**self.internal_config_dict[key], **final[key]}
        if final.get("loss_type") == "CE" and "train_neg_sample_args" not in self.external_config_dict:
            final["train_neg_sample_args"] = None
        for key in ("user_inter_num_interval", "item_inter_num_interval"):
            if isinstance(final[key], list):  # [5,10] of a YAML file
                final[key] = f"[{','.join(map(str, final[key]))}]"
        check(final, [key for key in final if key not in Properties.model_fields and self._is_id_model_key(key)])
        check_kinds(final, self.internal_config_dict, listed=Properties.model_fields)
        if not hasattr(self.model_class, "input_type"):
            negatives_fit_the_loss(final)
        hidden_items_are_told(final)
        given, columns = self.external_config_dict.get("load_col", {}), final["load_col"]
        if columns and "inter" not in (given or {}) and columns.get("inter") == ["user_id", "item_id"]:
            # RecBole's sample.yaml, which stands in for a data set without a YAML of its own, lacks the time
            final["load_col"] = {**columns, "inter": [final[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")]}
        return final

    def _set_default_parameters(self):
        data_path = self.final_config_dict["data_path"]
        super()._set_default_parameters()
        # RecBole reads its bundled ml-100k whatever data_path says; a user's own copy goes first.
        if "data_path" in self.external_config_dict:
            self.final_config_dict["data_path"] = str(Path(data_path) / self.dataset)

    def _init_device(self):
        gpu_id = str(self.final_config_dict["gpu_id"] if self.final_config_dict["gpu_id"] is not None else "").strip("()")
        if str(self.final_config_dict.get("use_gpu")).lower() == "false":  # RecBole's name for it
            self.final_config_dict["use_cpu"] = True
        use_cpu = self.final_config_dict.get("use_cpu") or not gpu_id or not torch.cuda.is_available()
        self.final_config_dict.update(
            gpu_id=gpu_id, use_gpu=not use_cpu, device=torch.device("cpu" if use_cpu else "cuda"), single_spec=True, local_rank=0
        )

    @property
    def reads_id_model(self):
        """Whether an ID model goes into this run: for Molar's alignment, distillation or late fusion, or into CoLLM's prompts."""
        return "id_model" in self and any(self[key] for key in ("align_weight", "distill_weight", "score_fusion_weight", "collaborative"))

    def as_yaml(self):
        """Everything needed to repeat the run, as a flat dict of plain values."""
        drop = {"device", "use_gpu", "single_spec", "local_rank", "MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "config_files", "resume"}
        plain = {}
        for key, value in self.final_config_dict.items():
            if key not in drop and (key in self.known_keys or self._is_id_model_key(key)):
                plain[key] = value
        plain["train_neg_sample_args"] = None if plain["train_neg_sample_args"]["distribution"] == "none" else plain["train_neg_sample_args"]
        plain["data_path"], plain["model"] = str(Path(plain["data_path"]).parent), self.model_name
        return plain


def refuse_foreign_code(file, typed, flags=None):
    """Check the configuration of a run folder, which may come from anybody: a dotted path in it is imported only if the user typed it too.

    Args:
        file (Path): `config.yaml`. typed (dict): what stands on the command line. flags (dict, optional): key of the file -> key to type.

    Raises:
        ValueError: code is named that the user has not named.
    """
    content, lines = read_with_lines(file)
    for key in CODE_KEYS:
        flag = (flags or {}).get(key, key)
        value = content.get(key)
        for name in value if isinstance(value, dict) else as_list(value):
            if "." in str(name) and typed.get(flag) != content[key]:
                text = f"{key}={name} is code outside recbole_molar, and would be run. If you trust it, add --{flag}={content[key]}."
                raise PropertyError(key, text).locate(places(file, lines))


def id_model_files(name, dataset):
    """YAML files of an ID model's properties, `id_<key>` each, as far as there are any: its own, and over them those for one data set."""
    files = (properties_dir() / "id_model" / f"{stem}.yaml" for stem in (name, f"{name}-{dataset}"))
    return [file for file in files if file.is_file()]


@lru_cache
def _keys_for_id_models(dataset):
    """Keys of ID models that have properties of their own for a data set: known to every model, as a data set's own, and in finished runs of all."""
    files = (properties_dir() / "id_model").glob("*.yaml")
    return {key for file in files if file.stem.endswith(f"-{dataset}") for key in read_yaml(file)}


@lru_cache
def _keys_of_any_model():
    """Keys of all our YAML files and of RecBole's models: a data set's own YAML serves every model."""
    recbole = Path(inspect.getfile(RecBoleConfig)).parent.parent / "properties" / "model"
    files = [*properties_dir().rglob("*.yaml"), *recbole.glob("*.yaml")]
    return {key for file in files for key in re.findall(r"^(\w+):", file.read_text(encoding="utf-8"), re.M)}


def _as_it_was_meant(content, file):
    """What a file says; where it is the config.yaml of an earlier version's run, with what that run did, in the place of today's defaults."""
    if content.get("model") == "Molar" and file.with_name(RESULT).is_file():
        content = {**NOT_IN_OLD_RUNS, **content}
    if file.name == CONFIG and file.with_name(LOG).is_file():
        for key in ("use_gpu", "crop_eta", "reorder_beta"):  # until 2026-11-23, what its machine had, and what nothing read
            content.pop(key, None)
        if content.get("model") == "DuoRec":
            content.setdefault("same_user_negatives", True)
        if content.get("id_model") == "DuoRec":
            content = {"id_sim": "dot", "id_same_user_negatives": True, **content}
        given = len(as_list(content.get("id_weights") or []))
        if content.get("more_id_models") and given not in (0, 1 + len(content["more_id_models"])):
            content["more_id_models"] = None  # until 2026-11-23 they were left out where id_weights stood
    return content


def places(file, lines):
    """Key -> "file, line 3"; the path of one of our files from `properties/` on."""
    path, ours = Path(file), properties_dir()
    name = path.relative_to(ours.parent) if path.is_relative_to(ours) else file
    return {key: f"{name}, line {line}" for key, line in lines.items()}


@lru_cache
def _keys_of_id_model(model_class):
    known = _listed_keys() | _keys_read_by(model_class) | set(read_yaml(properties_dir() / "overall.yaml"))
    return frozenset(f"id_{key}" for key in known)


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
