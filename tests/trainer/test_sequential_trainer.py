"""Training, exact resume and evaluation of every sequential model."""

import json
import math

import numpy as np
import pytest
import torch
from recbole.model.sequential_recommender import SASRec
from tiny_data import tiny_interactions
from tiny_run import make_model, make_trainer

from recbole_molar.checkpoint import load_tensors
from recbole_molar.config import Config
from recbole_molar.device import make_accelerator
from recbole_molar.model import like_lengths
from recbole_molar.trainer.schedule import warmup_cosine
from recbole_molar.trainer.sequential_trainer import BEST, CURVE, LAST, SequentialTrainer


@pytest.fixture
def trained(make_data, flags, tmp_path):
    """Function: folder, properties -> (Prepared, trainer after `fit`); the same folder goes on where it was left."""
    make_data()

    def fit(folder="a", until=None, **options):
        config = Config(config_dict=flags(**{"epochs": 4, **options}))
        prepared, trainer = make_trainer(config, tmp_path / folder)
        if until:  # a cut: the run is one of `epochs`, but ends here
            trainer.epochs, n_epochs = until, trainer.epochs
            trainer._set_learning_rate, real = (lambda n_steps: real(n_steps // until * n_epochs)), trainer._set_learning_rate
        trainer.fit(*prepared.loaders[:2])
        return prepared, trainer

    fit.flags = flags
    return fit


class FixedScores(torch.nn.Module):
    """Gives every user the same scores; keeps the shape of a recommender."""

    def __init__(self, scores):
        super().__init__()
        self.scores = torch.nn.Parameter(scores)

    def full_sort_predict(self, interaction):
        return self.scores.detach().expand(len(interaction), -1).clone()


# --------------------------------------------------------------------- resume


@pytest.mark.parametrize("options", [
    {}, {"loss_type": "BPR"}, {"model": "FPMC"}, {"model": "BERT4Rec"}, {"lr_schedule": "cosine", "warmup_ratio": 0.3, "learner": "adamw", "weight_decay": 0.1},
    {"learner": "sgd"}, {"learner": "adagrad"}, {"gradient_accumulation_steps": 2, "clip_grad_norm": {"max_norm": 0.1}},
], ids=str)
def test_resume_equals_an_uninterrupted_run(trained, tmp_path, options):
    prepared, whole = trained("whole", **options)
    _, cut = trained("cut", until=2, **options)
    assert len(cut.curve) == 2
    torch.rand(7), np.random.rand(7)  # whatever happens between the two processes
    _, resumed = trained("cut", **options)
    assert [entry["epoch"] for entry in resumed.curve] == [1, 2, 3, 4]

    def without_times(curve):
        return [{key: value for key, value in entry.items() if not key.endswith("_seconds")} for entry in curve]

    assert without_times(resumed.curve) == without_times(whole.curve)
    assert (resumed.best_valid_score, resumed.best_valid_result, resumed.cur_step) == (whole.best_valid_score, whole.best_valid_result, whole.cur_step)
    for file in (LAST, BEST):
        left, right = (load_tensors(tmp_path / folder / file)[0] for folder in ("whole", "cut"))
        assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left), file
    assert whole.evaluate(prepared.loaders[2]) == resumed.evaluate(prepared.loaders[2])


def test_the_check_above_can_fail(trained, tmp_path):
    """Dropout, order and negatives do depend on the random state: another seed gives other weights."""
    _, one = trained("one", epochs=1)
    _, other = trained("other", epochs=1, seed=1)
    assert not torch.equal(one.model.item_embedding.weight, other.model.item_embedding.weight)


def test_finished_run_is_not_trained_again(trained):
    _, first = trained()
    before = first.model.item_embedding.weight.clone()
    _, again = trained()
    assert len(again.curve) == 4 and torch.equal(again.model.item_embedding.weight, before)


def test_what_training_needs_is_not_made_where_nothing_is_trained(trained, monkeypatch):
    calls = []
    monkeypatch.setattr("recbole.model.sequential_recommender.SASRec.before_training", lambda self, data, trainer: calls.append(1), raising=False)
    trained("a", epochs=1)
    trained("a", epochs=1)
    assert calls == [1]


def test_a_run_that_comes_apart_is_told(trained, monkeypatch, caplog):
    scores = iter([0.2, 0.11, 0.09])
    monkeypatch.setattr("recbole_molar.trainer.sequential_trainer.SequentialTrainer._valid_epoch", lambda self, data, **options: (next(scores), {}))
    trained("a", epochs=3)
    told = [record.getMessage() for record in caplog.records if "come apart" in record.getMessage()]
    assert len(told) == 1 and told[0].startswith("epoch 3: valid ndcg@10 0.0900, and 0.2000 at best before") and "clip_grad_norm" in told[0]


@pytest.mark.parametrize(("scores", "told"), [("alike", True), ("random", True), ("learnt", False)])
def test_a_model_that_ranks_like_chance_is_told(trained, monkeypatch, caplog, scores, told):
    """A model whose embeddings have become alike has a loss and metrics that look like numbers."""

    def full_sort_predict(self, interaction):
        table = {"alike": torch.zeros, "random": torch.rand}.get(scores)
        return table(len(interaction), self.n_items) if table else original(self, interaction)

    original = SASRec.full_sort_predict
    monkeypatch.setattr(SASRec, "full_sort_predict", full_sort_predict)
    _, trainer = trained("a", epochs=8, learning_rate=0.02, mask_history=False)  # masking leaves the tiny catalogue too few items to tell by
    messages = [record.getMessage() for record in caplog.records if "random order" in record.getMessage()]
    assert any(message.startswith("epoch 8:") for message in messages) == told
    assert (trainer.share_before_target() > 0.4) == told


def test_early_stopping_holds_after_resume(trained):
    _, first = trained("a", epochs=30, stopping_step=1, learning_rate=0.0)
    assert len(first.curve) == 3  # the best, one without a rise, one more than stopping_step
    assert [entry.get("best", False) for entry in first.curve] == [True, False, False]
    _, again = trained("a", epochs=30, stopping_step=1, learning_rate=0.0)
    assert len(again.curve) == 3


def test_checkpoint_is_safetensors_and_json_only(trained, tmp_path):
    trained()
    files = {file.name for file in (tmp_path / "a").iterdir()}
    assert files == {LAST, BEST, CURVE}
    assert len(json.loads((tmp_path / "a" / CURVE).read_text())) == 4


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_checkpoint_is_a_clear_error(trained, tmp_path, keep):
    trained()
    content = (tmp_path / "a" / LAST).read_bytes()
    (tmp_path / "a" / LAST).write_bytes(content[:keep])
    with pytest.raises(ValueError, match="last.safetensors: not a readable checkpoint"):
        trained()


def test_checkpoint_of_another_model(trained):
    trained()
    with pytest.raises(ValueError, match="the checkpoint is of another model"):
        trained(hidden_size=16)


def test_no_epochs_still_gives_a_model_to_test(trained):
    prepared, trainer = trained(epochs=0)
    assert trainer.curve == [] and trainer.evaluate(prepared.loaders[2])


def test_without_the_best_epoch_no_other_is_tested(trained, tmp_path, monkeypatch):
    scores = iter(range(100, 0, -1))
    monkeypatch.setattr(SequentialTrainer, "_valid_epoch", lambda *_, **__: (next(scores), {"mrr@10": 0.5}))
    trained()
    (tmp_path / "a" / BEST).unlink()
    with pytest.raises(ValueError, match="best.safetensors: is gone, .*Delete last.safetensors beside it too"):
        trained()
    (tmp_path / "a" / LAST).unlink()
    assert len(trained()[1].curve) == 4


def test_cut_between_the_checkpoint_and_the_best_epoch(trained, tmp_path, monkeypatch):
    def cut(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(SequentialTrainer, "_save_best", cut)
        trained()
    assert (tmp_path / "a" / LAST).is_file() and not (tmp_path / "a" / BEST).is_file()
    (tmp_path / "a" / CURVE).unlink()
    make_trainer(Config(config_dict=trained.flags(epochs=4)), tmp_path / "a")
    (best, meta), (last, _) = (load_tensors(tmp_path / "a" / file) for file in (BEST, LAST))
    curve = json.loads((tmp_path / "a" / CURVE).read_text())
    assert all(torch.equal(best[name], last[name]) for name in best) and [entry["epoch"] for entry in curve] == [1] and meta["valid"] == curve[0]["valid"]


def test_no_validation_takes_the_last_epoch(trained, tmp_path):
    _, trainer = trained(eval_step=0)
    best, last = (load_tensors(tmp_path / "a" / file)[0] for file in (BEST, LAST))
    assert all(torch.equal(best[name], last[name]) for name in best) and trainer.best_valid_result is None


def test_the_best_epoch_is_tested(trained, tmp_path):
    prepared, trainer = trained()
    best = load_tensors(tmp_path / "a" / BEST)[0]
    first = trainer.evaluate(prepared.loaders[1])
    assert {name: float(value) for name, value in first.items()} == trainer.best_valid_result
    torch.nn.init.ones_(trainer.model.item_embedding.weight)
    trainer.evaluate(prepared.loaders[1], load_best_model=False)
    assert (trainer.model.item_embedding.weight == 1).all()
    assert trainer.evaluate(prepared.loaders[1]) == first
    assert torch.equal(trainer.model.item_embedding.weight, best["model.item_embedding.weight"])


# ------------------------------------------------------------------- training


def test_training_learns_the_chain(trained):
    prepared, trainer = trained(epochs=40, hidden_size=32, learning_rate=0.01, hidden_dropout_prob=0.1, attn_dropout_prob=0.1)
    assert trainer.evaluate(prepared.loaders[2])["recall@5"] > 0.6  # four steps in five go to the next item


def test_warm_up_and_cosine_by_hand(make_data, flags, tmp_path):
    make_data()
    options = {"warmup_ratio": 0.2, "lr_schedule": "cosine", "learning_rate": 0.5}
    _, trainer = make_trainer(Config(config_dict=flags(**options)), tmp_path)

    def rates(steps):
        found = []
        for trainer.global_step in steps:
            trainer._set_learning_rate(n_steps=20)
            found.append(trainer.optimizer.param_groups[0]["lr"])
        return found

    expected = [0.5 * 0.01, 0.5 * 0.505, 0.5, 0.5 * (0.01 + 0.99 * 0.5), 0.5 * 0.01]
    assert rates([0, 2, 4, 12, 20]) == pytest.approx(expected)
    trainer.config["lr_schedule"] = "constant"
    assert rates([0, 4, 12, 20]) == pytest.approx([0.005, 0.5, 0.5, 0.5])


def test_each_step_has_its_rate_and_a_clipped_gradient(make_data, flags, tmp_path):
    make_data()
    options = {"warmup_ratio": 0.2, "lr_schedule": "cosine", "learning_rate": 0.5, "epochs": 2, "train_batch_size": 16, "clip_grad_norm": {"max_norm": 0.01}}
    prepared, trainer = make_trainer(Config(config_dict=flags(**options)), tmp_path)
    rates, norms = [], []

    def look(optimizer, *_):
        rates.append(optimizer.param_groups[0]["lr"])
        norms.append(float(torch.stack([value.grad.norm() for group in optimizer.param_groups for value in group["params"] if value.grad is not None]).norm()))

    trainer.optimizer.register_step_pre_hook(look)
    trainer.fit(*prepared.loaders[:2])
    steps = 2 * len(prepared.loaders[0])
    warmup = int(0.2 * steps)
    assert len(rates) == steps > 4 and max(norms) == pytest.approx(0.01, rel=1e-3)
    assert rates == pytest.approx([0.5 * warmup_cosine(step, steps, warmup, final=0.01, cosine=True) for step in range(steps)]) and len(set(rates)) > 4


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_autocast_where_it_is_asked_for(make_data, flags, tmp_path, precision):
    make_data()
    config = Config(config_dict=flags(precision=precision, enable_amp=True))
    prepared, model = make_model(config)
    trainer, found, loss = SequentialTrainer(config, model, make_accelerator(precision, use_cpu=True), tmp_path), [], model.calculate_loss
    model.calculate_loss = lambda batch: found.append(torch.is_autocast_enabled("cpu")) or loss(batch)
    trainer.fit(prepared.loaders[0])
    assert set(found) == {precision == "bf16"}


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulation_equals_one_large_batch(make_data, flags, tmp_path, parts):
    make_data()
    weights = []
    for folder, accumulation, division in (("one", 1, 1), ("many", parts, parts)):
        options = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "learner": "sgd", "learning_rate": 0.5}
        prepared, trainer = make_trainer(Config(config_dict=flags(gradient_accumulation_steps=accumulation, **options)), tmp_path / folder)
        rows = prepared.loaders[0]._dataset.inter_feat
        same = rows[torch.nonzero(rows["item_length"] == 4).flatten()[:6]]  # as many targets in each part
        trainer._train_epoch([same[torch.arange(6) % division == part] for part in range(division)], 0)
        assert trainer.global_step == 1
        weights.append(trainer.model.item_embedding.weight)
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def test_last_incomplete_group_weighs_as_much_as_the_others(make_data, flags, tmp_path):
    make_data()
    prepared, trainer = make_trainer(Config(config_dict=flags(gradient_accumulation_steps=4, learner="sgd")), tmp_path)
    scale = torch.nn.Parameter(torch.zeros(()))
    trainer.optimizer = torch.optim.SGD([{"params": [scale], "initial_lr": 1.0}], lr=1.0)
    trainer._train_epoch([next(iter(prepared.loaders[0]))] * 6, 0, loss_func=lambda batch: scale * 1.0)  # groups of 4 and 2
    assert trainer.global_step == 2 and scale.item() == pytest.approx(-2.0)


def test_parts_of_the_loss_are_logged_apart(make_data, flags, tmp_path):
    make_data()
    prepared, trainer = make_trainer(Config(config_dict=flags()), tmp_path)
    stock = trainer.model.calculate_loss
    trainer.model.calculate_loss = lambda batch: (stock(batch), torch.full((1,), 0.25))  # RecBole's EmbLoss is of shape [1]
    trainer.fit(*prepared.loaders[:2])
    assert trainer.curve[0]["loss_2"] == 0.25 and trainer.curve[0]["loss_1"] > 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_loss_that_is_not_finite(make_data, flags, tmp_path, bad):
    make_data()
    prepared, trainer = make_trainer(Config(config_dict=flags()), tmp_path)
    before = trainer.model.item_embedding.weight.clone()
    trainer.model.calculate_loss = lambda batch: trainer.model.item_embedding.weight.sum() * bad
    with pytest.raises(ValueError, match=r"epoch 1, batch 1: the loss is not a finite number .*lower learning_rate \(now 0.001\)"):
        trainer.fit(*prepared.loaders[:2])
    assert torch.equal(trainer.model.item_embedding.weight, before) and not list(tmp_path.glob("*.safetensors"))


def test_scores_that_are_nan(make_data, flags, tmp_path):
    make_data()
    prepared, trainer = make_trainer(Config(config_dict=flags()), tmp_path)
    torch.nn.init.constant_(trainer.model.item_embedding.weight, math.nan)
    with pytest.raises(ValueError, match="the model's scores hold NaN"):
        trainer.evaluate(prepared.loaders[2], load_best_model=False)


# ----------------------------------------------------------------- evaluation


def evaluate_fixed(flags, tmp_path, score_of, **options):
    """Ranks by user, and metrics, where every user's scores are those of `score_of` (external item id -> score)."""
    config = Config(config_dict=flags(**{"topk": [1, 3], "valid_metric": "NDCG@3", **options}))
    prepared, _ = make_model(config)
    _, trainer = make_trainer(config, tmp_path / "t")
    tokens = prepared.dataset.field2id_token["item_id"]
    trainer.model = FixedScores(torch.tensor([score_of.get(token, -1.0) for token in tokens]))
    result = trainer.evaluate(prepared.loaders[2], load_best_model=False)
    trainer.save_ranks(tmp_path / "ranks.npz", prepared.dataset)
    with np.load(tmp_path / "ranks.npz", allow_pickle=False) as ranks:
        return {user: (item, int(rank), int(ties)) for user, item, rank, ties in zip(*(ranks[name] for name in ("user", "item", "rank", "ties")))}, dict(result)


@pytest.mark.parametrize("mask, ranks", [
    (True, {"a": ("i9", 2, 0), "b": ("i1", 1, 0), "c": ("i4", 3, 1)}), (False, {"a": ("i9", 5, 0), "b": ("i1", 1, 0), "c": ("i4", 4, 1)}),
])
def test_masked_history_by_hand(make_data, flags, tmp_path, mask, ranks):
    rows = [("a", item, n) for n, item in enumerate(["i1", "i2", "i3", "i8", "i9"])]  # i1, i2, i3 go before i9 unless masked; i5 never had
    rows += [("b", item, n) for n, item in enumerate(["i1", "i6", "i7", "i1"])]  # had i1 before: still a candidate
    rows += [("c", item, n) for n, item in enumerate(["i2", "i6", "i7", "i4"])]  # i5 has the same score as i4
    rows += [("d", item, 1) for item in ("i5", "i4")]  # trained only
    make_data(rows)
    scores = {"i1": 9.0, "i2": 8.0, "i3": 7.0, "i5": 6.0, "i4": 6.0, "i9": 6.0 - 0.5, "i8": 1.0}
    if mask:  # a: i5 and i4 are before i9, too
        ranks = {**ranks, "a": ("i9", 3, 0)}
    else:
        ranks = {**ranks, "a": ("i9", 6, 0)}
    found, result = evaluate_fixed(flags, tmp_path, scores, mask_history=mask, MAX_ITEM_LIST_LENGTH=2)
    assert found == ranks
    assert result["recall@1"] == pytest.approx(1 / 3, abs=1e-6)


def test_metrics_follow_from_the_ranks(trained, tmp_path):
    prepared, trainer = trained(epochs=3, metrics=["Recall", "NDCG", "MRR"])
    result = trainer.evaluate(prepared.loaders[2])
    ranks = trainer.ranks.all()
    assert len(ranks) == len(prepared.loaders[2]._dataset) and (ranks[:, 3] == 0).all()
    rank = ranks[:, 2].double()
    for k in (5, 10):
        hit = rank <= k
        assert result[f"recall@{k}"] == pytest.approx(hit.double().mean().item(), abs=1e-6)
        assert result[f"ndcg@{k}"] == pytest.approx((hit / torch.log2(rank + 1)).mean().item(), abs=1e-6)
        assert result[f"mrr@{k}"] == pytest.approx((hit / rank).mean().item(), abs=1e-6)


def test_mask_acts_on_every_model(make_data, flags, tmp_path):
    make_data(tiny_interactions(n_items=12))
    for name in ("SASRec", "FPMC", "DIN", "Popularity"):
        found = []
        for mask in (True, False):
            prepared, trainer = make_trainer(Config(config_dict=flags(model=name, mask_history=mask)), tmp_path / f"{name}{mask}")
            trainer.evaluate(prepared.loaders[2], load_best_model=False)
            found.append(trainer.ranks.all()[:, 2])
        assert (found[0] <= found[1]).all() and (found[0] < found[1]).any(), name


@pytest.mark.parametrize("mode", ["uni5", "pop5"])
def test_sampled_candidates_have_ranks_too(make_data, flags, tmp_path, mode):
    make_data(tiny_interactions())
    config = Config(config_dict=flags(eval_args={"mode": mode}, topk=[1, 5]) | {"valid_metric": "NDCG@5"})
    prepared, trainer = make_trainer(config, tmp_path / "a")
    result = trainer.evaluate(prepared.loaders[2], load_best_model=False)
    rank = trainer.ranks.all()[:, 2]
    assert len(rank) == len(prepared.loaders[2]._dataset) and rank.max() <= 6 and rank.unique().numel() > 2
    assert result["recall@1"] == pytest.approx((rank == 1).double().mean().item(), abs=1e-6)
    trainer.save_ranks(tmp_path / "ranks.npz", prepared.dataset)


@pytest.mark.parametrize("model, cut, last_only", [
    ("SASRec", True, True), ("DuoRec", True, True), ("GRU4Rec", True, True), ("BERT4Rec", True, True), ("FPMC", True, True), ("Caser", False, False),
])
def test_cut_histories_give_the_same_ranks(make_data, flags, tmp_path, monkeypatch, model, cut, last_only):
    make_data()
    monkeypatch.setitem(like_lengths.POSITIONS, "cpu", 8)  # several parts in each batch
    prepared, trainer = make_trainer(Config(config_dict=flags(model=model)), tmp_path)
    found = trainer.evaluate(prepared.loaders[2], load_best_model=False)
    ranks = trainer.ranks.all()
    assert trainer.cuts_histories is cut and trainer.last_only is last_only
    trainer.cuts_histories = False
    assert trainer.evaluate(prepared.loaders[2], load_best_model=False) == found and torch.equal(trainer.ranks.all(), ranks)


@pytest.mark.parametrize("longest", [2, 3])
def test_histories_of_one_item_do_not_tell_what_is_read(make_data, flags, tmp_path, longest):
    """CORE weighs the states of all items; of half of three items there is one."""
    make_data()
    prepared, trainer = make_trainer(Config(config_dict=flags(model="CORE", MAX_ITEM_LIST_LENGTH=longest)), tmp_path)
    found = trainer.evaluate(prepared.loaders[2], load_best_model=False)
    assert trainer.last_only is False
    trainer.cuts_histories = False
    assert trainer.evaluate(prepared.loaders[2], load_best_model=False) == found


@pytest.mark.parametrize("model, cut", [("SASRec", True), ("NextItNet", False), ("Caser", False), ("LightSANs", False)])
def test_whether_histories_may_be_cut_does_not_hang_on_the_first_batch(make_data, flags, tmp_path, model, cut):
    """Where its longest history fills all places there is nothing to cut in it; that was once taken for leave to cut the next batch."""
    make_data()
    prepared, trainer = make_trainer(Config(config_dict=flags(model=model)), tmp_path)
    first = next(iter(prepared.loaders[2]))[0]
    assert first["item_length"].max() == first["item_id_list"].size(1)
    trainer.evaluate(prepared.loaders[2], load_best_model=False)
    assert trainer.cuts_histories is cut


def test_a_model_that_reads_more_than_the_last_state_is_given_more(make_data, flags, tmp_path, monkeypatch):
    make_data()
    prepared, trainer = make_trainer(Config(config_dict=flags(model="SASRec")), tmp_path)
    gather = trainer.model.gather_indexes
    monkeypatch.setattr(trainer.model, "gather_indexes", lambda output, index: gather(output, index) + output[:, 0])
    trainer.evaluate(prepared.loaders[2], load_best_model=False)
    assert trainer.cuts_histories is True and trainer.last_only is False
