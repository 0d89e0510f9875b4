"""What each property may be: one Pydantic model of all keys in `properties/`, and of those of RecBole's that every run depends on.

A field is checked, never converted: a run keeps the values that the user wrote. The other keys of RecBole's models: `property_values.py`.
"""

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator

from recbole_molar import property_combinations as combinations
from recbole_molar import property_values as values
from recbole_molar.property_error import PropertyError
from recbole_molar.property_values import as_list

Whole = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Temperature = Annotated[float, Field(ge=1e-3)]
Share = Annotated[float, Field(ge=0, le=1)]
Dropout = Annotated[float, Field(ge=0, le=0.99)]
Side = Annotated[int, Field(ge=1, le=2048)]  # pixels
Word = Annotated[str | int | float, Field(description="a word")]
Path = Annotated[str | int | float | None, Field(description="the path of a file or folder, or ~")]
Column = Annotated[str, Field(min_length=1, description="the name of a column")]
Interval = Annotated[Any, AfterValidator(values.check_interval)]
NotOffered = Annotated[Any, AfterValidator(values.refuse_pickles)]


class TransformerKeys(BaseModel, strict=True, extra="ignore"):
    """`properties/model/DuoRec.yaml`: keys that RecBole's Transformers share, and its GRU4Rec. A model of the user's own may mean something else by them."""

    n_layers: Count = None
    n_heads: Count = None
    hidden_size: Count = None
    inner_size: Count = None
    embedding_size: Count = None
    hidden_dropout_prob: Share = None
    attn_dropout_prob: Share = None
    dropout_prob: Share = None
    hidden_act: Literal["gelu", "relu", "swish", "tanh", "sigmoid"] = None
    layer_norm_eps: NotNegative = None
    initializer_range: NotNegative = None
    loss_type: Literal["CE", "BPR"] = None
    contrast: Literal["un", "su", "us", "us_x"] = None
    lmd: NotNegative = None
    lmd_sem: NotNegative = None
    tau: Temperature = None
    sim: Literal["dot", "cos"] = None
    contrast_rows: Count = None
    same_user_negatives: bool = None
    transform: Annotated[
        Literal["mask_itemseq", "inverse_itemseq"] | None, Field(description="mask_itemseq (BERT4Rec), inverse_itemseq, or ~; no model reads cropped rows")
    ] = None

    @model_validator(mode="after")
    def _check_heads(self):
        combinations.heads_divide_width(self)
        return self


class Properties(TransformerKeys):
    """Every property with a check of its own. A key that a run does not have is None here, and not checked.

    Raises (as `ValidationError` of Pydantic's; see :func:`check`): a value out of its type, range or choices; values that contradict each other.
    """

    # overall.yaml, and RecBole's keys of every run
    output_dir: Word = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = None
    metrics: Annotated[list[Annotated[Any, AfterValidator(values.check_metric)]], BeforeValidator(as_list), Field(min_length=1)] = None
    topk: Annotated[list[Count], BeforeValidator(as_list), Field(min_length=1)] = None
    valid_metric: Annotated[str, Field(description="one of metrics at one of topk, such as NDCG@10")] = None
    eval_batch_size: Count = None
    metric_decimal_place: Count = None
    stopping_step: Whole = None
    mask_history: bool = None
    train_all_positions: bool = None
    train_windows: Literal["last", "chunks", "overlap"] = None
    precision: Literal["auto", "bf16", "fp32"] = None
    use_cpu: bool = None
    gradient_accumulation_steps: Count = None
    lr_schedule: Literal["constant", "cosine"] = None
    warmup_ratio: Share = None
    debug: bool = None
    epochs: Whole = None
    eval_step: Whole = None
    train_batch_size: Count = None
    MAX_ITEM_LIST_LENGTH: Count = None
    learner: Literal["adam", "adamw", "sgd", "adagrad", "rmsprop"] = None  # RecBole takes Adam for any other name
    learning_rate: NotNegative = None
    weight_decay: NotNegative = None
    clip_grad_norm: Annotated[Any, AfterValidator(values.check_clipping)] = None
    train_neg_sample_args: Annotated[Any, AfterValidator(values.check_negatives)] = None
    eval_args: Annotated[Any, AfterValidator(values.check_evaluation)] = None
    load_col: Annotated[Any, AfterValidator(values.check_columns)] = None
    val_interval: Annotated[Any, AfterValidator(values.check_intervals)] = None
    user_inter_num_interval: Interval = None
    item_inter_num_interval: Interval = None
    USER_ID_FIELD: Column = None
    ITEM_ID_FIELD: Column = None
    TIME_FIELD: Column = None
    field_separator: Annotated[str, Field(min_length=1, description="a sign such as '\\t' or ','")] = None
    encoding: Annotated[Any, AfterValidator(values.check_encoding)] = None
    repeatable: Annotated[Literal[True], Field(description="True, for sequential models")] = None
    save_dataset: NotOffered = None
    dataset_save_path: NotOffered = None
    save_dataloaders: NotOffered = None
    dataloaders_save_path: NotOffered = None

    # model/Molar.yaml: item content
    item_modalities: Annotated[list[Literal["text", "image"]], BeforeValidator(as_list), Field(min_length=1)] = None
    item_text_fields: Annotated[list[str] | str | None, Field(description="a list of columns, such as [title, genre], or ~")] = None
    item_description_field: Annotated[str | None, Field(description="the name of a column, or ~")] = None
    item_text_escaped: bool = None
    item_image_dir: Word = None
    # MIRM and stage 1, with finetune/
    mirm_backbone: Word = None
    mirm_tuning: Literal["full", "lora", "frozen"] = None
    mirm_quantization: Annotated[Literal["4bit"] | None, Field(description="4bit, or ~")] = None
    mirm_finetune_tasks: Annotated[list[Word] | Word | None, Field(description="a list of fine-tuning tasks")] = None
    mirm_finetune_samples: Count = None
    mirm_weights: Path = None
    mirm_readout: Literal["cur_item", "mean"] = None
    mirm_max_tokens: Count = None
    mirm_image_size: Annotated[list[Side], Field(min_length=2, max_length=2, description="[width, height], whole numbers from 1 to 2048")] = None
    mirm_encode_batch_size: Count = None
    mirm_lora_rank: Count = None
    mirm_lora_alpha: NotNegative = None
    mirm_finetune_epochs: Whole = None
    mirm_finetune_batch_size: Count = None
    mirm_finetune_learning_rate: NotNegative = None
    mirm_finetune_objective: Literal["through_state", "generation"] = None
    mirm_finetune_history_length: Count = None
    mirm_bow_weight: NotNegative = None
    mirm_contrast_weight: NotNegative = None
    mirm_contrast_temperature: Temperature = None
    mirm_view_contrast_weight: Annotated[NotNegative | None, Field(description="a number of at least 0, or ~ for 0 with user_behavior, else 1")] = None
    mirm_max_answer_tokens: Count = None
    item_encoding: Literal["cached", "end_to_end"] = None
    end_to_end_items: Count = None
    # items and users, with user_encoder/
    item_adapter: Literal["none", "linear", "mlp"] = None
    item_adapter_size: Count = None
    item_standardize: Annotated[bool | Literal["whiten"], Field(description="True, False or whiten")] = None
    item_content_scale: Annotated[float | None, Field(ge=0, description="a number of at least 0, or ~ for 1")] = None
    item_dropout: Dropout = None
    item_id_residual: bool = None
    history_time_gaps: bool = None
    user_encoder: Word = None
    dueg_layers: Annotated[Count | None, Field(description="a whole number of at least 1, or ~ for all")] = None
    dueg_learning_rate: Annotated[NotNegative | None, Field(description="a number of at least 0, or ~ for learning_rate")] = None
    dueg_user_token: Literal["first", "last"] = None
    dueg_dropout: Dropout = None
    dueg_input_scale: Annotated[float | None, Field(description="a number, or ~")] = None
    dueg_layer_dropout: Annotated[Dropout | None, Field(description="a number from 0 to 0.99, or ~ for none")] = None
    dueg_recurrent_size: Annotated[Count | None, Field(description="a whole number of at least 1, or ~ for none")] = None
    user_encoder_layers: Count = None
    user_encoder_heads: Count = None
    user_encoder_inner_size: Count = None
    user_encoder_hidden_size: Count = None
    user_encoder_rank: Count = None
    user_encoder_dropout: Share = None
    # alignment, losses and training
    id_model: Word = None
    more_id_models: Annotated[dict[Word, dict | None] | None, Field(description="{model: {key: value}}, or ~")] = None
    id_weights: Annotated[str | int | float | Annotated[list[Word], Field(min_length=1)] | None, Field(description="the folder of a run, a list, or ~")] = None
    id_training: Literal["frozen", "joint"] = None
    align_weight: NotNegative = None
    distill_weight: Annotated[float | None, Field(ge=0, le=1, description="a number from 0 to 1, or ~ for 0")] = None
    score_fusion_weight: Annotated[NotNegative | None, Field(description="a number of at least 0, or ~ for 0")] = None
    ease_fusion_weight: Annotated[NotNegative | None, Field(description="a number of at least 0, or ~ for 0")] = None
    ease_reg_weight: Annotated[float | None, Field(ge=1e-3, description="a number of at least 0.001, or ~ for 300")] = None
    align_temperature: Temperature = None
    rec_loss: Literal["bce", "nce", "ce"] = None
    nce_negatives: Count = None
    score_function: Literal["dot", "cosine"] = None
    score_temperature: Temperature = None
    mirm_learning_rate: NotNegative = None
    gradient_checkpointing: bool = None
    # model/SASRecContent.yaml
    text_encoder: Word = None
    image_encoder: Word = None
    encoder_pooling: Literal["mean", "first"] = None
    text_max_tokens: Annotated[int, Field(ge=3)] = None
    encode_batch_size: Count = None
    encoder_learning_rate: NotNegative = None
    feature_scaling: Literal["none", "standardize", "whiten"] = None
    encoder_hidden_size: Count = None
    encoder_layers: Count = None
    encoder_heads: Count = None
    encoder_vocab_size: Annotated[int, Field(ge=300)] = None
    encoder_image_side: Side = None
    encoder_patch: Count = None
    encoder_epochs: Whole = None
    # model/HLLM.yaml
    user_llm_layers: Annotated[Count | None, Field(description="a whole number of at least 1, or ~ for all")] = None
    # model/CoLLM.yaml
    collaborative: bool = None
    tuning_epochs: Whole = None
    prompt_items: Count = None
    prompt_title_tokens: Count = None
    mapping_size: Count = None
    # backbone/compact.yaml
    compact_hidden_size: Count = None
    compact_num_layers: Count = None
    compact_num_heads: Count = None
    compact_num_kv_heads: Count = None
    compact_intermediate_size: Count = None
    compact_vision_size: Count = None
    compact_vision_layers: Count = None
    compact_vision_heads: Count = None
    compact_vocab_size: Count = None

    @model_validator(mode="after")
    def _check_combinations(self):
        for rule in combinations.ALL:
            rule(self)
        return self


def check(final, id_model_keys=()):
    """Check a whole configuration.

    Args:
        final (dict): key -> value. id_model_keys (iterable of str): its keys of the form `id_<key>`, checked as `<key>`.

    Raises:
        PropertyError: the first value that is none that its key may have, or that contradicts another.
    """
    _check(final, final.get("model"))
    _check({key[3:]: final[key] for key in id_model_keys if key in final}, final.get("id_model"), prefix="id_")


def _check(given, model, prefix=""):
    own_model = "." in str(model)  # a dotted path
    try:
        Properties.model_validate({key: value for key, value in given.items() if not (own_model and key in TransformerKeys.model_fields)})
    except ValidationError as errors:
        first = errors.errors(include_url=False)[0]
        reason = first.get("ctx", {}).get("error")
        if not isinstance(reason, PropertyError):
            key = first["loc"][0]
            reason = PropertyError(key, f"{key}={_must_be(first, given[key])}")
        raise reason.renamed(prefix) from None


def _must_be(error, given):
    """Behind `key=`: the value, or the wrong one in a list, and what it may be in the words of the field."""
    field, value = _fields()[error["loc"][0]], values.shown(error["input"])
    if error["type"] == "value_error":
        return f"{value}: {error['ctx']['error']}"
    if "description" in field:
        return f"{values.shown(given)}: must be {field['description']}."
    if error["type"] == "too_short":
        return f"{value}: is empty; give at least one."
    field = field.get("items", field)
    if "enum" in field:
        return f"{value}: unknown. Valid: {', '.join(field['enum'])}."
    if field["type"] == "boolean":
        return f"{value}: must be True or False."
    kind = "a whole number" if field["type"] == "integer" else "a number"
    between = f"from {field['minimum']} to {field['maximum']}" if "maximum" in field else f"of at least {field['minimum']}"
    return f"{value}: must be {kind} {between}."


PICKLED = tuple(name for name, field in Properties.model_fields.items() if AfterValidator(values.refuse_pickles) in field.metadata)


@lru_cache
def _fields():
    """What the model says of its fields, as JSON Schema."""
    return Properties.model_json_schema()["properties"]
