"""Contract of the ID model: whatever RecBole model stands behind it, one user embedding for each row."""

import pytest
import torch
from tiny_run import make_model

from recbole_molar.config import Config
from recbole_molar.model.fused_layers import encoders, fuse_layers, last_layer_at
from recbole_molar.model.id_model.id_model import IDModel, IDModels, check_teacher

NAMES = [
    "SASRec", "GRU4Rec", "BERT4Rec", "CORE", "FPMC", "LightSANs", "NARM", "Caser", "STAMP", "NextItNet", "SRGNN",
    "GCSAN", "HGN", "SHAN", "SINE", "FEARec", "TransRec", "DuoRec",
]


@pytest.fixture
def make(make_data, flags):
    """Function: name -> (IDModel, a batch of test rows, a batch of training rows)."""

    def build(name, trains=False, **options):
        make_data()
        prepared, model = make_model(Config(config_dict=flags(model=name, **options)))
        return IDModel(model, trains), next(iter(prepared.loaders[2]))[0], next(iter(prepared.loaders[0]))

    return build


@pytest.mark.parametrize("name", NAMES)
def test_one_embedding_for_each_row(make, name):
    id_model, rows, _ = make(name)
    user = id_model(rows)
    assert user.dim() == 2 and len(user) == len(rows) and user.isfinite().all() and not user.requires_grad
    assert user.size(1) < 200 and user.std(0).max() > 0  # an embedding, not scores; and not the same for all users
    torch.testing.assert_close(id_model(rows[:3]), user[:3], rtol=1e-4, atol=1e-5)  # no dropout, and no other row in it
    assert {"forward", "gather_indexes"}.isdisjoint(vars(id_model.model))


@pytest.mark.parametrize("name", NAMES)
def test_frozen(make, name):
    id_model, rows, _ = make(name, trains=False)
    assert not id_model.model.training and not any(parameter.requires_grad for parameter in id_model.parameters())
    outer = torch.nn.ModuleList([id_model]).train()
    assert outer.training and not any(module.training for module in id_model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_joint(make, name):
    id_model, rows, train_rows = make(name, trains=True)
    id_model.train()
    assert id_model.model.training
    id_model(train_rows).square().sum().backward()
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in id_model.parameters())
    assert id_model.calculate_loss(train_rows).requires_grad
    with torch.no_grad():
        assert not id_model(rows).requires_grad


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec", "NARM", "LightSANs", "FPMC"])
def test_the_embedding_is_that_of_the_scores(make, name):
    id_model, rows, _ = make(name)
    model = id_model.model
    items = torch.cat([model.IU_emb.weight, model.IL_emb.weight], dim=1) if name == "FPMC" else model.item_embedding.weight
    torch.testing.assert_close(id_model(rows) @ items.T, model.full_sort_predict(rows), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, longest", [("SASRec", 3), ("LightSANs", 3), ("Caser", 3), ("BERT4Rec", 3), ("CORE", 3), ("GRU4Rec", None), ("FPMC", None)])
def test_a_model_with_a_table_of_positions_reads_the_last_items_of_longer_histories(make, name, longest):
    options = {"mask_ratio": 0.5} if name == "BERT4Rec" else {}
    own, short_rows, _ = make(name, MAX_ITEM_LIST_LENGTH=3, **options)
    _, rows, train_rows = make(name, **options)
    id_model = IDModel(own.model, trains=False, max_length=6)
    assert id_model.length == longest and rows["item_length"].max() == 6
    if longest:
        torch.testing.assert_close(id_model(rows), own(short_rows))
        torch.testing.assert_close(id_model.full_sort_predict(rows), own.model.full_sort_predict(short_rows))
        torch.testing.assert_close(id_model.predict(rows), own.model.predict(short_rows))
        scores, users, fused = own.model.full_sort_predict(short_rows), own(short_rows), fuse_layers(id_model)
        each, lengths = torch.arange(len(rows))[:, None], rows["item_length"][:, None]
        with last_layer_at(fused, (each, lengths - 1)):  # what Molar's evaluation asks of every encoder below it
            torch.testing.assert_close(fused.full_sort_predict(rows), scores)
            torch.testing.assert_close(fused(rows), users)
            assert all(encoder.asking is not None for encoder in encoders(fused))
    if name != "BERT4Rec":  # whose batches hold masked items of their own
        assert id_model.calculate_loss(train_rows).isfinite() and id_model.n_targets(train_rows) > 0


@pytest.mark.parametrize("name", ["SASRec", "GRU4Rec"])
def test_users_at_all_positions_are_those_of_the_prefixes(make, name):
    id_model, rows, _ = make(name)
    check_teacher(id_model.model, 6)
    item_seq, lengths = rows["item_id_list"], rows["item_length"]
    first = lengths // 3
    users = id_model.all_users(item_seq, lengths, first)
    ends = [(row, end) for row, length in enumerate(lengths.tolist()) for end in range(first[row], length)]
    assert len(users) == len(ends) and not id_model.model.reads_all_positions
    for user, (row, end) in list(zip(users, ends))[::7]:
        prefix = item_seq[row : row + 1] * (torch.arange(6) <= end)
        torch.testing.assert_close(user[None], id_model.model.forward(prefix, torch.tensor([end + 1])), rtol=1e-4, atol=1e-5)


def test_several_models_are_the_mean_of_their_scores(make):
    sasrec, rows, _ = make("SASRec")
    gru4rec, *_ = make("GRU4Rec")
    both = IDModels([sasrec, gru4rec])
    scores = (sasrec.full_sort_predict(rows) + gru4rec.full_sort_predict(rows)) / 2
    torch.testing.assert_close(both.full_sort_predict(rows), scores)
    torch.testing.assert_close(both.predict(rows), (sasrec.predict(rows) + gru4rec.predict(rows)) / 2)
    torch.testing.assert_close(both(rows) @ both.item_embeddings().T / 2, scores, rtol=1e-4, atol=1e-5)
    users = both.all_users(rows["item_id_list"], rows["item_length"], torch.zeros_like(rows["item_length"]))
    torch.testing.assert_close(users[rows["item_length"].cumsum(0) - 1] @ both.item_embeddings().T, scores, rtol=1e-4, atol=1e-5)
    assert not any(parameter.requires_grad for parameter in both.parameters())


@pytest.mark.parametrize("name, options, message", [
    ("GRU4Rec", {"loss_type": "BPR"}, "id_model=GRU4Rec: is not trained on all positions by the cross-entropy"), ("NARM", {}, "id_model=NARM: is not"),
    ("DuoRec", {}, "id_model=DuoRec: is not"), ("SASRec", {"MAX_ITEM_LIST_LENGTH": 5}, "id_MAX_ITEM_LIST_LENGTH=5: for distill_weight .*LENGTH=6"),
])
def test_models_that_cannot_teach(make, name, options, message):
    id_model, *_ = make(name, **options)
    with pytest.raises(ValueError, match=message):
        check_teacher(id_model.model, 6)


def test_parameters_that_a_model_froze_itself_stay_frozen(make):
    id_model, *_ = make("SASRec", trains=True)
    id_model.model.item_embedding.weight.requires_grad_(False)
    assert not IDModel(id_model.model, trains=True).model.item_embedding.weight.requires_grad


def test_own_user_embedding_goes_first(make):
    id_model, rows, _ = make("SASRec")
    id_model.model.user_embedding = lambda interaction: torch.ones(len(interaction), 3)
    assert id_model(rows).tolist() == [[1.0] * 3] * len(rows)


@pytest.mark.parametrize("name", ["RepeatNet", "DIN"])
def test_model_without_a_user_embedding(make, name):
    id_model, rows, _ = make(name)
    with pytest.raises(ValueError, match=f"id_model={name}: shows no user embedding"):
        id_model(rows)
