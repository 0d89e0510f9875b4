"""Parts of a run under the run's own protocol."""

from toy_items import toy_content
from trainer.test_mirm_finetune_trainer import trainer

from recbole_molar.config import Config
from recbole_molar.quick_start import make_id_configs


def test_the_id_model_has_the_runs_protocol(make_data, flags):
    make_data(items=True)
    given = {"model": "Molar", "valid_metric": "MRR@5", "mask_history": False, "train_windows": "last", "eval_batch_size": 77, "seed": 5}
    config = Config(config_dict=flags(**given))
    id_config = make_id_configs(config)["id_model"]
    for key in ("eval_args", "metrics", "topk", "valid_metric", "mask_history", "train_windows", "train_all_positions", "eval_batch_size", "seed"):
        assert id_config[key] == config[key], key


def test_no_sample_is_held_out_and_trained(tmp_path):
    train, held_out, _ = trainer(toy_content(tmp_path), tmp_path, tasks=["user_behavior"], samples=100)._draw_samples()
    assert (len(train["user_behavior"]), len(held_out["user_behavior"])) == (95, 5)
