"""Values that contradict each other: what no run could do, or not as it says, found before any work.

Each rule takes the properties of a run (:class:`Properties`, None for those that it does not have) and raises PropertyError.
"""

from recbole_molar import compat  # noqa: F401  (must come before RecBole)
from recbole_molar.data.dataset import MASKED
from recbole_molar.property_error import PropertyError, bad_value
from recbole_molar.property_values import as_list
from recbole.evaluator.register import metric_types
from recbole.utils import EvaluatorType


def heads_divide_width(one):
    """RecBole's Transformers split their width among the heads."""
    if one.n_heads and one.hidden_size and one.hidden_size % one.n_heads:
        raise PropertyError("n_heads", f"n_heads={one.n_heads}: must divide hidden_size={one.hidden_size}.", ["hidden_size"])


def metrics_go_together(one):
    """RecBole computes metrics of scores (AUC, RMSE, ...) beside no ranking metric, and among sampled candidates only."""
    of_scores = [name for name in one.metrics or () if _is_of_scores(name)]
    if not of_scores:
        return
    if len(of_scores) < len(one.metrics):
        raise bad_value("metrics", one.metrics, f"{of_scores[0]} rates scores, the others rankings; a run computes one kind. Leave one out.")
    mode = (one.eval_args or {}).get("mode")
    if "full" in (mode.values() if isinstance(mode, dict) else [mode]):
        text = f"metrics={one.metrics}: rate scores, which eval_args.mode=full has none of. Valid: ranking metrics; or a mode such as uni100."
        raise PropertyError("metrics", text, ["eval_args"])


def valid_metric_is_computed(one):
    """Early stopping follows one of the metrics at one of the k."""
    if not (one.valid_metric and one.metrics and one.topk):
        return
    name, _, k = one.valid_metric.partition("@")
    if k not in map(str, one.topk) or name.lower() not in [metric.lower() for metric in one.metrics]:
        text = f"valid_metric={one.valid_metric}: not computed with metrics={one.metrics} and topk={one.topk}."
        raise PropertyError("valid_metric", text, ["metrics", "topk"])
    if one.eval_step and (_is_of_scores(name) or name.lower() == "gauc"):
        text = f"valid_metric={one.valid_metric}: {name} has no k, so no validation can follow it. Set eval_step=0 to do without, or another metric."
        raise PropertyError("valid_metric", text, ["eval_step"])


def _is_of_scores(metric):
    return metric_types[metric.lower()] == EvaluatorType.VALUE


def negatives_fit_the_loss(final):
    """What RecBole samples for a model that leaves it to `loss_type`; final (dict): the configuration."""
    loss, negatives = final.get("loss_type"), final["train_neg_sample_args"]
    if loss == "CE" and negatives is not None:
        text = f"train_neg_sample_args={str(negatives)[:80]}: loss_type=CE takes no negatives. Leave it out, or set loss_type=BPR."
        raise PropertyError("train_neg_sample_args", text, ["loss_type"])
    if loss == "BPR" and negatives is None and not final["train_all_positions"]:  # on all positions a model draws its own
        text = "train_neg_sample_args=None: loss_type=BPR needs negatives, with train_all_positions=False from RecBole. Leave it out."
        raise PropertyError("train_neg_sample_args", text, ["loss_type", "train_all_positions"])


def hidden_items_are_told(final):
    """A model that is trained on items that are hidden knows their share; final (dict): the configuration."""
    if final.get("transform") == MASKED and "mask_ratio" not in final:
        text = f"transform={MASKED}: {final['model']} has no mask_ratio, and is not trained on items that are hidden. Leave it out."
        raise PropertyError("transform", text)


def sampled_candidates_have_one_target(one):
    """RecBole takes a user's rows of a sampled ranking for one block; splits by ratio or time give users several targets."""
    options = one.eval_args or {}
    modes = options.get("mode")
    sampled = sorted(set(modes.values() if isinstance(modes, dict) else [modes]) - {"full", None})
    if sampled and "LS" not in (options.get("split") or {"LS": None}):
        text = f"eval_args.mode={sampled[0]}: sampled candidates need leave-one-out, split={{LS: valid_and_test}}, one target a user. Or set mode=full."
        raise PropertyError("eval_args", text)


def text_has_columns(one):
    """MIRM cannot read text from no column."""
    if one.item_text_fields == [] and one.mirm_backbone and one.item_modalities is None:
        raise bad_value("item_text_fields", "[]", "this model reads text alone. Name columns, or ~ for all.")
    if one.item_text_fields == [] and "text" in (one.item_modalities or ()):
        text = f"item_text_fields=[]: item_modalities={one.item_modalities} reads text. Name columns, ~ for all, or set item_modalities=[image]."
        raise PropertyError("item_text_fields", text, ["item_modalities"])


def end_to_end_trains_mirm(one):
    """A frozen MIRM would be run anew for each batch, and stay as it is."""
    if one.item_encoding == "end_to_end" and one.mirm_tuning == "frozen":
        text = "item_encoding=end_to_end: trains MIRM, which mirm_tuning=frozen forbids. Set item_encoding=cached, or mirm_tuning=lora or full."
        raise PropertyError("item_encoding", text, ["mirm_tuning"])


def several_id_models_are_frozen(one):
    """Joint training knows one ID model."""
    several = {"more_id_models": one.more_id_models, "id_weights": isinstance(one.id_weights, list) and len(one.id_weights) > 1}
    for key in several:
        if several[key] and one.id_training == "joint":
            raise PropertyError(key, f"{key}={getattr(one, key)}: id_training=joint trains one ID model. Set id_training=frozen.", ["id_training"])


def given_id_models_are_all(one):
    """`id_weights` stands for all ID models: those of `more_id_models` would be left out."""
    given, wanted = len(as_list(one.id_weights) if one.id_weights else []), 1 + len(one.more_id_models or {})
    if one.more_id_models and given and given != wanted:
        names = ", ".join(map(str, one.more_id_models))
        text = f"id_weights: names {given} of the {wanted} ID models, id_model and more_id_models ({names}). Name runs of all, or set more_id_models=~."
        raise PropertyError("id_weights", text, ["more_id_models"])


def distillation_has_a_teacher(one):
    """A finished ID model's distribution over all items goes into the cross-entropy over all items."""
    if one.distill_weight and one.rec_loss != "ce":
        text = f"distill_weight={one.distill_weight}: rec_loss={one.rec_loss} has no distribution over all items. Set rec_loss=ce."
        raise PropertyError("distill_weight", text, ["rec_loss"])
    if one.distill_weight and one.id_training == "joint":
        text = f"distill_weight={one.distill_weight}: id_training=joint has no trained ID model to learn from. Set id_training=frozen."
        raise PropertyError("distill_weight", text, ["id_training"])


def something_tells_items_apart(one):
    """Without content an item is its ID vector, and MIRM has nothing to learn from."""
    if one.item_content_scale != 0:
        return
    if one.item_id_residual is False:
        text = "item_content_scale=0: items without content, and item_id_residual=False leaves them no ID vector. Set item_id_residual=True."
        raise PropertyError("item_content_scale", text, ["item_id_residual"])
    if one.item_encoding == "end_to_end":
        text = "item_content_scale=0: no content is read, but item_encoding=end_to_end trains MIRM on it. Set item_encoding=cached."
        raise PropertyError("item_content_scale", text, ["item_encoding"])


def compact_is_a_model(one):
    """The sizes of the compact backbone, and of what is built on it, fit each other."""
    if one.mirm_backbone not in ("compact", "Compact") or one.compact_hidden_size is None:
        return
    for key, by, factor in (
        ("compact_hidden_size", "compact_num_heads", 4), ("compact_num_heads", "compact_num_kv_heads", 1), ("compact_vision_size", "compact_vision_heads", 4),
    ):
        value, divisor = getattr(one, key), factor * getattr(one, by)
        if value % divisor:
            raise PropertyError(key, f"{key}={value}: must be a positive multiple of {divisor}, because of {by}.", [by])
    most = one.compact_num_layers
    for key in ("dueg_layers", "user_llm_layers"):
        layers = getattr(one, key)
        if layers is not None and layers > most:
            text = f"{key}={layers}: the decoder of mirm_backbone={one.mirm_backbone} has {most} layers. Valid: 1 to {most}, or ~ for all."
            raise PropertyError(key, text, ["compact_num_layers"])
    if one.user_encoder == "SASRec" and one.user_encoder_heads and one.compact_hidden_size % one.user_encoder_heads:
        text = f"user_encoder_heads={one.user_encoder_heads}: must divide the embedding size, compact_hidden_size={one.compact_hidden_size}."
        raise PropertyError("user_encoder_heads", text, ["compact_hidden_size"])


def compact_encoders_are_models(one):
    """Heads divide the width of the compact encoders, patches the side of a picture."""
    for key, by in (("encoder_hidden_size", "encoder_heads"), ("encoder_image_side", "encoder_patch")):
        value, divisor = getattr(one, key), getattr(one, by)
        if value and divisor and value % divisor:
            raise PropertyError(key, f"{key}={value}: must be a multiple of {by}={divisor}.", [by])


ALL = (
    metrics_go_together, valid_metric_is_computed, sampled_candidates_have_one_target,
    text_has_columns, end_to_end_trains_mirm, several_id_models_are_frozen, given_id_models_are_all,
    distillation_has_a_teacher, something_tells_items_apart, compact_is_a_model, compact_encoders_are_models,
)  # fmt: skip
