"""SASRecContent: three forms, all positions, no leak, what an end-to-end step trains, the whole command, bad input."""

import json

import pytest
import torch
from PIL import Image
from saved_encoders import save_bert, save_vit
from test_end_to_end import write_cycle

from recbole_molar.__main__ import main
from recbole_molar.device import make_accelerator
from recbole_molar.model.all_positions import AllPositions, allows_all_positions
from recbole_molar.trainer.sequential_trainer import SequentialTrainer

SMALL = {
    "model": "SASRecContent", "hidden_size": 8, "inner_size": 16, "n_layers": 1, "n_heads": 2, "encoder_hidden_size": 16, "encoder_layers": 1,
    "encoder_heads": 2, "encoder_vocab_size": 300, "encoder_image_side": 16, "encoder_epochs": 1, "item_adapter_size": 16, "text_max_tokens": 24,
}  # fmt: skip


@pytest.mark.parametrize("modalities, width", [(["text"], 16), (["image"], 16), (["text", "image"], 32)])
def test_three_forms(make_data, make, modalities, width):
    make_data(items=True, images=True)
    _, prepared, model = make(item_modalities=modalities)
    assert torch.cat(model.item_embedding.tables, 1).shape == (31, width) and prepared.note == "all positions of a history in one pass"
    assert not any("table" in name or "encoder." in name and "trm" not in name for name in model.state_dict())
    batch = next(iter(prepared.loaders[2]))[0]
    model.eval()
    scores = model.full_sort_predict(batch)
    user, table = model.forward(batch["item_id_list"], batch["item_length"]), model.item_embedding.weight
    torch.testing.assert_close(scores, user @ table.T)
    torch.testing.assert_close(model.predict(batch), scores[torch.arange(len(scores)), batch["item_id"]])


def test_all_positions_equal_prefixes(make_data, make):
    make_data(items=True)
    for options in ({}, {"loss_type": "BPR"}):
        _, _, model = make(**options)
        assert isinstance(model, AllPositions) and allows_all_positions(model)
    _, prepared, model = make(train_all_positions=False)
    assert not isinstance(model, AllPositions) and prepared.note.startswith("one row for each prefix")
    assert torch.isfinite(model.calculate_loss(next(iter(prepared.loaders[0]))))


def test_equal_scores_give_log_of_the_catalogue(make_data, make):
    make_data(items=True)
    _, prepared, model = make()
    with torch.no_grad():
        for value in model.item_embedding.parameters():
            value.zero_()
    loss = model.calculate_loss(next(iter(prepared.loaders[0])))
    assert loss.item() == pytest.approx(torch.tensor(30.0).log().item(), rel=1e-5)


def test_training_does_not_see_the_targets(blind_to_targets):
    blind_to_targets(images=True)


@pytest.mark.parametrize("telling, silent", [("text", "image"), ("image", "text")])
def test_finds_what_the_telling_modality_shows_and_nothing_without_it(tmp_path, run, telling, silent):
    write_cycle(tmp_path / "cycle", telling)  # 16 of 128 items are right, so chance is 1/8
    given = {
        **{"dataset": "cycle", "data_path": str(tmp_path), "epochs": 8, "hidden_size": 32, "inner_size": 64, "topk": "[16]", "valid_metric": "Recall@16"},
        **{"MAX_ITEM_LIST_LENGTH": 8, "learning_rate": 0.003, "train_batch_size": 64},
    }
    assert run(**given, item_modalities=f"[{telling}]")[1]["test_result"]["recall@16"] > 0.8
    assert run(**given, item_modalities=f"[{silent}]")[1]["test_result"]["recall@16"] < 0.3


def test_an_evaluation_computes_the_item_embeddings_once(make_data, make, tmp_path):
    make_data(items=True)
    config, prepared, model = make(eval_batch_size=2)
    trainer, calls = SequentialTrainer(config, model, make_accelerator("fp32", use_cpu=True), tmp_path), []
    model.item_embedding.adapter.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        model.train()
        trainer.evaluate(prepared.loaders[2], load_best_model=False)
    assert len(prepared.loaders[2]) > 1 and len(calls) == 2


def test_a_refill_brings_every_row_up_to_date(make_data, make, tmp_path):
    make_data(items=True, images=True)
    _, _, model = make(item_encoding="end_to_end")
    before = [table.clone() for table in model.item_embedding.tables]
    model.refill(make_accelerator("fp32", use_cpu=True))
    for table, old in zip(model.item_embedding.tables, before):
        torch.testing.assert_close(table, old, rtol=1e-3, atol=1e-3)  # the encoders are as they were
        table.zero_()
    model.refill(make_accelerator("fp32", use_cpu=True))
    assert all(table[1:].any(1).all() for table in model.item_embedding.tables)


def test_an_end_to_end_step_trains_the_encoders(make_data, make):
    make_data(items=True, images=True)
    _, prepared, model = make(item_encoding="end_to_end", end_to_end_items=6)
    rates = {"learning_rate": 1e-3, "encoder_learning_rate": 1e-4}
    groups = model.parameter_groups(rates)
    (theirs,) = (group["params"] for group in groups if group["lr"] == 1e-4)
    assert {id(value) for value in theirs} == {id(value) for value in model.encoders.parameters() if value.requires_grad}
    assert sum(len(group["params"]) for group in groups) == sum(value.requires_grad for value in model.parameters())
    model.train()
    before = [table.clone() for table in model.item_embedding.tables]
    for table in model.item_embedding.tables:
        table.zero_()
    model.calculate_loss(next(iter(prepared.loaders[0]))).backward()
    graded = {name.split(".")[1] for name, value in model.named_parameters() if name.startswith("encoders.") and value.grad is not None and value.grad.any()}
    assert graded == {"0", "1"}
    for table, old in zip(model.item_embedding.tables, before):
        fresh = table.any(1)
        assert 0 < fresh.sum() <= 6  # the items that were encoded anew, and no other
        torch.testing.assert_close(table[fresh], old[fresh], rtol=1e-3, atol=1e-3)  # without dropout, as they were
    _, _, cached = make()
    assert not cached.encoders and len(cached.parameter_groups(rates)) == 1


def test_end_to_end_resumes_exactly(make_data, run, tmp_path, cut_after_two_epochs):
    make_data(items=True, images=True)
    given = dict(item_encoding="end_to_end", end_to_end_items=6, epochs=3)
    whole = run(**given)[1]
    with cut_after_two_epochs():
        assert run(**given, output_dir=str(tmp_path / "cut"))[0] == 130
    resumed = run([f"--resume={next((tmp_path / 'cut' / 'tiny').iterdir())}"])[1]
    assert resumed["test_result"] == whole["test_result"] and resumed["best_valid_result"] == whole["best_valid_result"]


def test_a_second_run_reuses_encoders_and_features(make_data, run):
    data = make_data(items=True, images=True) / "tiny"
    _, first, text = run()
    assert not first["text_encoder"]["reused"] and not first["image_encoder"]["reused"] and text.count("30 computed, 0 reused") == 2
    _, second, text = run(learning_rate=0.002)
    assert second["text_encoder"]["reused"] and second["image_encoder"]["reused"] and text.count("0 computed, 30 reused") == 2
    Image.new("RGB", (16, 16), (1, 2, 3)).save(data / "images" / "i7.png")
    fixed = {f"{kind}_encoder": first[f"{kind}_encoder"]["folder"] for kind in ("text", "image")}
    _, third, text = run(**fixed)
    assert "1 computed, 29 reused" in text and "0 computed, 30 reused" in text and "text_encoder" not in third


def test_saved_encoders_by_the_whole_command(make_data, run, tmp_path):
    make_data(items=True, images=True)
    from toy_items import toy_content

    bert, vit = save_bert(tmp_path / "bert", toy_content(tmp_path / "toy")), save_vit(tmp_path / "vit")
    code, result, text = run(text_encoder=bert, image_encoder=vit, epochs=2)
    assert code == 0 and result["epochs_run"] == 2 and f"text_encoder={bert}: 16 dimensions" in text and f"image_encoder={vit}: 16 dimensions" in text
    cached = result["parameters"]
    code, result, text = run(text_encoder=bert, image_encoder=vit, epochs=1, item_encoding="end_to_end", end_to_end_items=4)
    assert code == 0 and result["parameters"] > 2 * cached and "item_encoding=end_to_end" in text


def test_items_without_a_picture_and_data_without_any(make_data, run):
    data = make_data(items=True, images=True) / "tiny"
    (data / "images" / "i3.png").unlink()
    (data / "images" / "i4.png").write_bytes(b"no picture")
    assert "image features of 30 items, 2 of them without" in run()[2]
    for picture in (data / "images").iterdir():
        picture.write_bytes(b"no picture")
    code, result, text = run()
    assert code == 0 and "image_encoder" not in result["seconds"] and "the items are read without images" in text
    code, _, text = run(item_modalities="[image]")
    assert code == 2 and "item_modalities=['image']: no item of tiny has any that can be read" in text


BAD = {
    "encoder": ({"text_encoder": "./no-such-folder"}, "text_encoder=./no-such-folder: cannot load it"),
    "image encoder": ({"image_encoder": "./no-such-folder"}, "image_encoder=./no-such-folder: cannot load it"),
    "heads": ({"encoder_heads": 3}, "encoder_hidden_size=16: must be a multiple of encoder_heads=3"),
    "patch": ({"encoder_patch": 5}, "encoder_image_side=16: must be a multiple of encoder_patch=5"),
    "pooling": ({"encoder_pooling": "last"}, "encoder_pooling=last: unknown"),
    "adapter": ({"item_adapter": "none"}, "item_adapter=none: items have 32 dimensions"),
    "no texts": ("tiny.item", "tiny.item: missing"), "no pictures": ("images", "no such folder"),
    "ID model": ({"model": "Molar", "id_model": "SASRecContent"}, "id_model=SASRecContent: reads item content itself"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(make_data, run, tmp_path, monkeypatch, flags, command_line, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data, (given, message) = make_data(items=True, images=True) / "tiny", BAD[name]
    if isinstance(given, str):
        (data / given).rename(data / f"not-{given}")
        given = {"item_modalities": "[image]"} if given == "images" else {}
    words = command_line(flags(**given)) if "model" in given else None
    code, _, text = run(words, **given)
    assert code == 2 and message in text and "Traceback" not in text and len(text) < 5000
    assert not [path for path in (tmp_path / "saved" / "tiny").glob("*") if not path.name.startswith("doctor")]


def test_doctor(make_data, flags, command_line, capsys):
    make_data(items=True, images=True)
    given = command_line(flags(**SMALL))
    assert main(["doctor", *given]) == 0
    report = json.loads(open(capsys.readouterr().out.strip().splitlines()[-1]).read())
    assert list(report["estimate"]["stages"]) == ["text_encoder", "image_encoder", "item_features", "SASRecContent", "test"]
    assert report["images"]["missing"] == 0 and report["text"]["fields"]["title"]["filled"] == 1.0
    assert main(["run", *given]) == 0
    capsys.readouterr()
    assert main(["doctor", *given]) == 0
    stages = json.loads(open(capsys.readouterr().out.strip().splitlines()[-1]).read())["estimate"]["stages"]
    assert all("reused" in stages[name]["about"] for name in ("text_encoder", "image_encoder", "item_features"))
    assert main(["doctor", *given, "--item_encoding=end_to_end"]) == 0
    report = json.loads(open(capsys.readouterr().out.strip().splitlines()[-1]).read())["estimate"]
    assert report["parameters"] > 10_000 and "seconds" in report["stages"]["item_features"] and not report["stages"]["item_features"].get("skipped")
    assert main(["doctor", *given, "--text_encoder=nobody/nothing-at-all"]) == 0
    assert "not on this machine" in capsys.readouterr().out
