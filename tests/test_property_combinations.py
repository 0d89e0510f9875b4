"""Values that contradict each other are refused before any work, with the place of each; what works together is not."""

import pytest

from recbole_molar.config import Config
from recbole_molar.property_combinations import ALL, heads_divide_width
from recbole_molar.property_error import PropertyError
from recbole_molar.property_schema import Properties
from recbole_molar.quick_start import make_id_configs

SAMPLED = {"mode": {"valid": "uni20", "test": "uni20"}}


def config(model, **given):
    return Config(config_dict={"model": model, "dataset": "tiny", **given})


REFUSED = {
    "heads": ("SASRec", {"n_heads": 3}, "n_heads=3: must divide hidden_size=64. .n_heads: command line; hidden_size: RecBole's model/SASRec.yaml, line 3"),
    "heads of the ID model": ("Molar", {"id_n_heads": 3}, "id_n_heads=3: must divide id_hidden_size=64. .id_n_heads: command line; id_hidden_size: prop"),
    "scores and rankings": ("SASRec", {"metrics": ["AUC", "NDCG"]}, "--metrics=.*AUC rates scores, the others rankings"),
    "scores of all items": ("SASRec", {"metrics": ["AUC"], "valid_metric": "AUC@10"}, "metrics=.*mode=full has none of.*eval_args: RecBole's protocol"),
    "validation without k": ("SASRec", {"metrics": ["GAUC"], "valid_metric": "GAUC@10"}, "GAUC has no k.*eval_step: RecBole's overall.yaml, line"),
    "k of the validation": ("SASRec", {"topk": 5}, "valid_metric=NDCG@10: not computed .*topk=.5.. .valid_metric: properties/overall.yaml, line .*topk: comm"),
    "metric of the validation": ("SASRec", {"metrics": "Recall"}, "valid_metric=NDCG@10: not computed .*metrics: command line"),
    "candidates of several targets": ("SASRec", {"eval_args": {**SAMPLED, "split": {"RS": [8, 1, 1]}}}, "eval_args.mode=uni20: sampled candidates need leave"),
    "two splits": ("SASRec", {"eval_args": {"split": {"LS": "valid_only", "RS": [8, 1, 1]}}}, "eval_args.split=.*must be"),
    "a split into two": ("SASRec", {"eval_args": {"split": {"RS": [0.8, 0.2]}}}, "eval_args.split=.*must be"),
    "a mode without a number": ("SASRec", {"eval_args": {"mode": "uni"}}, "eval_args.mode=uni: must be full"),
    "labels": ("SASRec", {"eval_args": {"mode": "labeled"}}, "eval_args.mode=labeled: must be full"),
    "hidden items of a model that hides none": ("SASRec", {"transform": "mask_itemseq"}, "transform=mask_itemseq: SASRec has no mask_ratio"),
    "cropped rows": ("SASRec", {"transform": "crop_itemseq"}, "--transform=crop_itemseq: must be mask_itemseq"),
    "columns of none": ("SASRec", {"load_col": {"inter": None}}, "load_col: inter: None: must be a list of columns"),
    "negatives of CE": ("SASRec", {"train_neg_sample_args": {"distribution": "uniform"}}, "loss_type=CE takes no negatives.*loss_type: RecBole's model/SASRec"),
    "no negatives for BPR": ("SASRec", {"loss_type": "BPR", "train_neg_sample_args": None, "train_all_positions": False}, "loss_type=BPR needs negatives"),
    "text of no column": ("Molar", {"item_text_fields": []}, "item_text_fields=..: item_modalities=.'text', 'image'. reads text"),
    "a frozen MIRM end to end": ("Molar", {"item_encoding": "end_to_end", "mirm_tuning": "frozen"}, "item_encoding=end_to_end: trains MIRM"),
    "a distillation into two scores": ("Molar", {"distill_weight": 0.5, "rec_loss": "bce"}, "distill_weight=0.5: rec_loss=bce has no distribution"),
    "several ID models, joint": ("Molar", {"id_weights": ["a", "b"], "id_training": "joint"}, "id_weights=.'a', 'b'.: id_training=joint trains one ID model"),
    "an untrained teacher": ("Molar", {"distill_weight": 1, "id_training": "joint"}, "distill_weight=1.0: id_training=joint has no trained ID model"),
    "items of nothing": ("Molar", {"item_content_scale": 0}, "item_content_scale=0: items without content.*item_id_residual: properties/model/Molar"),
    "no content, end to end": ("Molar", {"item_content_scale": 0, "item_id_residual": True, "item_encoding": "end_to_end"}, "no content is read, but"),
    "width of compact": ("Molar", {"compact_hidden_size": 30}, "compact_hidden_size=30: must be a positive multiple of 16, because of compact_num_heads"),
    "heads of compact": ("Molar", {"compact_num_kv_heads": 3}, "compact_num_heads=4: must be a positive multiple of 3, because of compact_num_kv_heads"),
    "eyes of compact": ("Molar", {"compact_vision_size": 20}, "compact_vision_size=20: must be a positive multiple of 16"),
    "layers of compact": ("Molar", {"dueg_layers": 4}, "dueg_layers=4: the decoder .* has 3 layers.*compact_num_layers: properties/backbone"),
    "weights of some ID models": (
        "Molar", {"id_weights": "a", "more_id_models": {"GRU4Rec": {}}}, "id_weights: names 1 of the 2 ID models.*more_id_models .GRU4Rec.. Name runs of all",
    ),
    "heads of the encoder": ("Molar", {"user_encoder": "SASRec", "user_encoder_heads": 5}, "user_encoder_heads=5: must divide the embedding size"),
}
ACCEPTED = {
    "several targets among all items": ("SASRec", {"eval_args": {"split": {"TS": [8, 1, 1]}}}),
    "popular candidates": ("SASRec", {"eval_args": {"mode": "pop20"}}),
    "hidden items": ("BERT4Rec", {"transform": "mask_itemseq"}),
    "weights of all ID models": ("Molar", {"id_weights": ["a", "b"], "more_id_models": {"GRU4Rec": {}}}),
    "sampled scores without validation": ("SASRec", {"metrics": ["AUC"], "valid_metric": "AUC@10", "eval_args": SAMPLED, "eval_step": 0}),
    "no validation by GAUC": ("SASRec", {"metrics": ["GAUC"], "valid_metric": "GAUC@10", "eval_step": 0}),
    "negatives of BPR": ("SASRec", {"loss_type": "BPR", "train_neg_sample_args": {"distribution": "popularity"}}),
    "BPR that draws its own": ("SASRec", {"loss_type": "BPR", "train_neg_sample_args": None}),
    "warm-up before a constant rate": ("SASRec", {"warmup_ratio": 0.1, "lr_schedule": "constant"}),
    "nothing but warm-up": ("SASRec", {"warmup_ratio": 1, "lr_schedule": "cosine"}),
    "LoRA on compact": ("Molar", {"mirm_tuning": "lora"}),
    "tasks for a frozen MIRM": ("Molar", {"mirm_tuning": "frozen"}),
    "a frozen MIRM in a table": ("Molar", {"mirm_tuning": "frozen", "item_encoding": "cached"}),
    "no stage 1, end to end": ("Molar", {"mirm_finetune_tasks": [], "item_encoding": "end_to_end"}),
    "a given ID model trained on": ("Molar", {"id_weights": "saved/run", "id_training": "joint"}),
    "a given ID model that is left out": ("Molar", {"id_weights": "saved/run", "align_weight": 0}),
    "nce of dot products": ("Molar", {"rec_loss": "nce", "score_function": "dot"}),
    "pictures alone": ("Molar", {"item_modalities": ["image"], "item_text_fields": []}),
    "a distillation, joint without one": ("Molar", {"distill_weight": 0, "id_training": "joint", "rec_loss": "bce"}),
    "IDs alone": ("Molar", {"item_content_scale": 0, "item_id_residual": True}),
    "one word for a list": ("Molar", {"item_modalities": "text", "metrics": "NDCG", "topk": 10}),
    "depth of another backbone": ("Molar", {"mirm_backbone": "Qwen/Qwen2-VL-2B-Instruct", "dueg_layers": 28, "compact_hidden_size": 30}),
    "heads of another encoder": ("Molar", {"user_encoder": "GRU4Rec", "compact_hidden_size": 16, "compact_num_heads": 2, "compact_num_kv_heads": 1}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    model, given, message = REFUSED[name]
    with pytest.raises(PropertyError, match=message):
        config(model, **given)


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name):
    model, given = ACCEPTED[name]
    assert config(model, **given)["model"] == model


def test_rules_pass_over_what_a_run_does_not_have():
    for rule in (heads_divide_width, *ALL):
        rule(Properties())


def test_a_model_of_the_users_own_may_mean_something_else(tmp_path, monkeypatch):
    text = "from recbole.model.sequential_recommender.sasrec import SASRec\nclass Mine(SASRec):\n    '''reads config[\"tau\"]'''\n"
    (tmp_path / "own_models.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    given = {"n_heads": 3, "tau": "soft", "loss_type": "CE"}
    assert config("own_models.Mine", **given)["tau"] == "soft"
    with pytest.raises(PropertyError, match="--id_tau=soft: must be a number"):
        config("Molar", id_model="DuoRec", id_tau="soft")


def test_what_only_the_id_model_knows_is_found_before_stage_1():
    """id_n_layers has no default in Molar's configuration; id_n_heads meets a default of RecBole's."""
    for given, message in (
        ({"id_mask_ratio": 2, "id_model": "BERT4Rec", "id_n_layers": 0}, "^--id_n_layers=0: must be a whole number"),
        ({"id_hidden_size": 15}, "^id_n_heads=2: must divide id_hidden_size=15. .id_n_heads: RecBole's model/SASRec.yaml, line 2; id_hidden_size: comm"),
        ({"id_model": "GRU4Rec", "id_dropout_prob": "x"}, "^--id_dropout_prob=x: must be a number"),
        ({"id_rm_dup_inter": "first"}, "^id_rm_dup_inter: an ID model reads the data and the split of its run.*set rm_dup_inter"),
        ({"more_id_models": {"GRU4Rec": {"user_inter_num_interval": "[5,inf)"}}}, "^more_id_models.GRU4Rec.user_inter_num_interval: an ID model reads"),
    ):
        with pytest.raises(PropertyError, match=message):
            make_id_configs(config("Molar", **given))
