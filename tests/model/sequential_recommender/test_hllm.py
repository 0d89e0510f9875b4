"""HLLM: the loss by hand, text alone, no leak, what is trained and kept, a run that was cut, the commands, bad input."""

import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from test_end_to_end import write_cycle

from recbole_molar.__main__ import main
from recbole_molar.data.prompt import CUR_ITEM
from recbole_molar.trainer.sequential_trainer import SequentialTrainer

COMPACT = {
    "compact_hidden_size": 32, "compact_num_layers": 2, "compact_intermediate_size": 48, "compact_vision_size": 16, "compact_vision_layers": 1,
    "compact_vocab_size": 300,
}  # fmt: skip
# The tiny vocabulary spells the prompt in bytes: with fewer tokens the items' own text is cut off.
SMALL = {"model": "HLLM", **COMPACT, "mirm_max_tokens": 96, "nce_negatives": 64, "learning_rate": 0.003}


def saved(result_folder, name="best"):
    """Names of the tensors in a checkpoint."""
    with safe_open(next(result_folder.iterdir()) / f"{name}.safetensors", "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("windows", ["chunks", "overlap"])
def test_the_loss_is_infonce_of_every_position_and_its_prefix(make_data, make, windows):
    make_data(items=True)
    _, prepared, model = make(item_encoding="cached", score_temperature=0.2, train_windows=windows)
    model.eval()
    batch, table = next(iter(prepared.loaders[0])), model.mirm_table
    torch.manual_seed(5)
    loss = model.calculate_loss(batch)
    torch.manual_seed(5)
    negatives = torch.randint(1, 31, (64,)).tolist()
    expected, left_out = [], 0
    for history, length, first, last in zip(*(batch[name].tolist() for name in ("item_id_list", "item_length", "first_target", "item_id"))):
        items = [*history[:length], last]
        for position in range(first, length):
            user = model.user_encoder.decoder(table[torch.tensor([items[: position + 1]])])[0, -1]  # of the prefix alone
            target = items[position + 1]
            others = [item for item in negatives if item != target]
            left_out += len(negatives) - len(others)
            scores = torch.stack([F.cosine_similarity(user, table[item], dim=0) for item in (target, *others)]) / 0.2
            expected.append(scores.logsumexp(0) - scores[0])
    assert left_out > 0 and len(expected) > len(batch)
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-5)


def test_scores_are_cosines_over_the_temperature(cosine_scores):
    cosine_scores()


def test_the_learned_temperature_is_held_above_a_hundredth_and_comes_back(make_data, make):
    make_data(items=True)
    _, prepared, model = make(item_encoding="cached")
    model.log_temperature.data.fill_(math.log(0.001))
    model.calculate_loss(next(iter(prepared.loaders[0]))).backward()
    assert model.log_temperature.item() == pytest.approx(math.log(0.01)) and model.log_temperature.grad < 0  # higher is better: random embeddings


def test_an_item_is_its_text_and_pictures_change_nothing(make_data, run):
    data = make_data(items=True, images=True) / "tiny"
    _, first, text = run()
    assert "no picture is read" in text and "30 no image" in text
    for picture in (data / "images").iterdir():
        picture.unlink()
    _, second, text = run(learning_rate=0.0031)  # another run, so that it is not found done
    assert "0 computed, 30 reused" in text
    file = data / "tiny.item"
    file.write_text(file.read_text().replace("Title number 7\t", "Another zebra\t"))
    _, third, text = run(mirm_weights="~")
    assert "30 computed" in text  # the compact tokenizer is trained on the texts
    (data / "images").rmdir()
    assert run()[1]["test_result"] == third["test_result"] != first["test_result"]


@pytest.mark.parametrize("encoding", ["cached", "end_to_end"])
def test_training_does_not_see_the_targets(blind_to_targets, encoding):
    blind_to_targets(item_encoding=encoding, end_to_end_items=8)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_an_end_to_end_step_trains_both_llms_and_the_special_token(make_data, make, tuning):
    make_data(items=True, images=True)
    _, prepared, model = make(mirm_tuning=tuning, end_to_end_items=6)
    model.train()
    before = model.mirm_table.clone()
    model.mirm_table.zero_()
    if tuning == "lora":  # its second factor starts at zero, and so does the gradient of the first
        for name, value in model.mirm.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value, std=1e-3)
    model.calculate_loss(next(iter(prepared.loaders[0]))).backward()
    fresh = model.mirm_table.any(1)
    assert 0 < fresh.sum() <= 6 and not fresh[0]
    torch.testing.assert_close(model.mirm_table[fresh], before[fresh], rtol=0.05, atol=0.05)
    graded = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    assert graded == trained and any(name.startswith("mirm.") for name in graded) and "log_temperature" in graded
    assert not any("visual" in name for name in trained) and any(name.startswith("user_encoder.decoder") for name in graded)
    words = next(value for name, value in model.named_parameters() if name in graded and ("embed_tokens" in name or "trainable_tokens_delta" in name))
    token = model.mirm.backbone.tokenizer.convert_tokens_to_ids(CUR_ITEM)
    assert words.grad[token].any() if tuning == "full" else words.grad.any()  # LoRA trains this row of the word embeddings alone


def test_each_llm_has_its_learning_rate(make_data, make):
    make_data(items=True)
    rates = {"learning_rate": 1e-3, "mirm_learning_rate": 1e-4, "weight_decay": 0.1}
    _, _, model = make()
    rate = {id(value): group["lr"] for group in model.parameter_groups(rates) for value in group["params"]}
    for name, value in model.named_parameters():
        assert rate.get(id(value)) == ((1e-4 if name.startswith("mirm.") else 1e-3) if value.requires_grad else None), name
    _, _, cached = make(item_encoding="cached")
    assert {group["lr"] for group in cached.parameter_groups(rates)} == {1e-3}


def test_cached_is_the_frozen_item_llm(make_data, make, run, tmp_path):
    make_data(items=True)
    _, _, model = make(item_encoding="cached")
    assert model.mirm is None and not any(name.startswith("mirm") for name, _ in model.named_parameters()) and "mirm_table" not in model.state_dict()
    assert torch.equal(model.mirm_table, make()[2].mirm_table)  # both forms start from the same embeddings
    code, result, text = run(item_encoding="cached", epochs=2)
    assert code == 0 and "the item LLM is random and stays so" in text
    assert not any("mirm" in name for name in saved(tmp_path / "saved" / "tiny"))


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_checkpoint_leaves_out_what_is_not_trained(make_data, run, tmp_path, tuning):
    make_data(items=True)
    assert run(mirm_tuning=tuning)[0] == 0
    kept = {name for name in saved(tmp_path / "saved" / "tiny") if name.startswith("model.mirm.")}
    assert kept and not any("visual" in name for name in kept)
    assert tuning == "full" or all("lora_" in name or "trainable_tokens" in name for name in kept)


@pytest.mark.parametrize("encoding", ["cached", "end_to_end"])
def test_resumes_exactly(make_data, run, tmp_path, monkeypatch, encoding):
    make_data(items=True)
    given = dict(item_encoding=encoding, end_to_end_items=6, epochs=3)
    whole = run(**given)[1]
    save = SequentialTrainer._save_checkpoint

    def cut(self, epoch, **kwargs):
        save(self, epoch, **kwargs)
        if epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(SequentialTrainer, "_save_checkpoint", cut)
    assert run(**given, output_dir=str(tmp_path / "cut"))[0] == 130
    monkeypatch.undo()
    resumed = run([f"--resume={next((tmp_path / 'cut' / 'tiny').iterdir())}"])[1]
    assert resumed["test_result"] == whole["test_result"] and resumed["best_valid_result"] == whole["best_valid_result"]


@pytest.mark.parametrize("encoding", ["cached", "end_to_end"])
def test_starts_from_the_weights_of_stage_1(make_data, run, make, tmp_path, flags, command_line, capsys, encoding):
    make_data(items=True)
    molar = flags(model="Molar", **COMPACT, align_weight=0, mirm_finetune_samples=30, item_modalities="[text]", epochs=0)
    assert main(["run", *command_line(molar)]) == 0
    folder = capsys.readouterr().out.strip().splitlines()[-1].removesuffix("/result.json")
    code, _, text = run(mirm_weights=folder, item_encoding=encoding)
    assert code == 0 and "is random" not in text
    assert not torch.allclose(make(mirm_weights=folder)[2].mirm_table, make()[2].mirm_table, atol=1e-3)
    code, _, text = run(mirm_weights=folder, compact_hidden_size=64)
    assert code == 2 and "another model's weights" in text


def test_finds_what_the_text_shows_and_nothing_of_a_picture(tmp_path, run):
    for telling in ("text", "image"):
        write_cycle(tmp_path / telling / "cycle", telling)  # 16 of 128 items are right, so chance is 1/8
    given = {
        "dataset": "cycle", "epochs": 8, "topk": "[16]", "valid_metric": "Recall@16", "MAX_ITEM_LIST_LENGTH": 8, "train_batch_size": 16,
        "nce_negatives": 128,
    }  # fmt: skip
    assert run(**given, data_path=str(tmp_path / "text"))[1]["test_result"]["recall@16"] > 0.8
    assert run(**given, data_path=str(tmp_path / "image"))[1]["test_result"]["recall@16"] < 0.3


BAD = {
    "layers": ({"user_llm_layers": 3}, "user_llm_layers=3: the decoder of mirm_backbone=compact has 2 layers"),
    "no layer": ({"user_llm_layers": 0}, "user_llm_layers=0: must be a whole number of at least 1, or ~ for all"),
    "frozen, end to end": ({"mirm_tuning": "frozen"}, "item_encoding=end_to_end: trains MIRM, which mirm_tuning=frozen forbids"),
    "no columns": ({"item_text_fields": []}, "item_text_fields=[]: this model reads text alone"),
    "pictures": ({"item_modalities": "[image]"}, "item_modalities: unknown property for model HLLM"),
    "alignment": ({"align_weight": 0}, "align_weight: unknown property for model HLLM"),
    "stage 1": ({"mirm_finetune_tasks": []}, "mirm_finetune_tasks: unknown property for model HLLM"),
    "weights": ({"mirm_weights": "nowhere"}, "mirm_weights=nowhere: no such file"),
    "temperature": ({"score_temperature": 0}, "score_temperature=0: must be a number of at least 0.001"),
    "no texts": ("tiny.item", "tiny.item: missing"),
    "data of pictures": ("item_modalities: [image]\n", "item_modalities=['image']: HLLM reads text alone"),
    "ID model": ({"model": "Molar", "id_model": "HLLM"}, "id_model=HLLM: reads item content itself"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input(make_data, run, tmp_path, flags, command_line, name):
    data, (given, message) = make_data(items=True) / "tiny", BAD[name]
    if given == "tiny.item":
        (data / given).unlink()
    elif isinstance(given, str):
        (data / "dataset.yaml").write_text(given)
    given = {} if isinstance(given, str) else given
    code, _, text = run(command_line(flags(**given)) if "model" in given else None, **given)
    assert code == 2 and message in text and "Traceback" not in text and len(text) < 5000
    assert not list((tmp_path / "saved" / "tiny").glob("*"))


def test_doctor(make_data, flags, command_line, capsys):
    make_data(items=True, images=True)

    def doctor(*more):
        assert main(["doctor", *given, *more]) == 0
        report = json.loads(open(capsys.readouterr().out.strip().splitlines()[-1]).read())
        return report, report["estimate"]["stages"]

    given = command_line(flags(**SMALL))
    report, stages = doctor()
    assert list(stages) == ["item_embedding", "HLLM", "test"] and "skipped" not in stages["item_embedding"] and "images" not in report
    assert report["text"]["tokens"]["limit"] == 96 and report["page"].endswith("items.html")
    assert main(["run", *given, "--item_encoding=cached"]) == 0
    capsys.readouterr()
    frozen, stages = doctor("--item_encoding=cached")
    assert "reused" in stages["item_embedding"]["about"] and frozen["estimate"]["parameters"] < report["estimate"]["parameters"] / 1.5


def test_compare_show_config_and_tune(make_data, flags, command_line, capsys, tmp_path):
    make_data(items=True, images=True)
    given = {key: value for key, value in flags(**SMALL).items() if key != "model"}
    both = "{HLLM: HLLM, frozen: {model: HLLM, item_encoding: cached}, Popularity: Popularity}"
    assert main(["compare", *command_line({**given, "models": both, "seeds": 1})]) == 0
    out = capsys.readouterr().out
    assert "frozen" in out and "failed" not in out
    (page,) = (tmp_path / "saved" / "tiny").glob("compare-*/report.html")
    assert "Title number" in page.read_text() and "data:image" in page.read_text()
    assert main(["show-config", "--model=HLLM", "--dataset=tiny", "--key=user_llm"]) == 0
    assert "properties/model/HLLM.yaml, line" in capsys.readouterr().out
    (tmp_path / "space.yaml").write_text("weight_decay: {log_uniform: [1.0e-3, 1.0e-2]}\nitem_encoding: {choice: [cached, end_to_end]}\n")
    assert main(["tune", *command_line({**given, "model": "HLLM", "space": tmp_path / "space.yaml", "trials": 2})]) == 0, capsys.readouterr().err
