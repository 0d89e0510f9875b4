"""CoLLM: prompts, several in one pass, what each step trains and keeps, no leak, a run that was cut, the commands, bad input."""

import json

import pytest
import torch
from safetensors import safe_open

from recbole_molar.__main__ import main
from recbole_molar.data.prompt import HISTORY
from recbole_molar.model.sequential_recommender.collm import prompts_in_one

# The tiny vocabulary spells text in bytes: with fewer tokens the titles, "Title number 7", would all be cut alike.
SMALL = {
    "model": "CoLLM", "compact_hidden_size": 32, "compact_num_layers": 2, "compact_intermediate_size": 48, "compact_vision_size": 16,
    "compact_vision_layers": 1, "compact_vocab_size": 300, "mirm_max_tokens": 96, "nce_negatives": 16, "prompt_items": 3, "prompt_title_tokens": 20,
    "mapping_size": 16, "tuning_epochs": 1, "id_epochs": 1, "id_hidden_size": 8, "id_inner_size": 16, "id_n_layers": 1, "train_batch_size": 16,
}  # fmt: skip
TEXT = {"collaborative": False}


def test_rows_of_several_prompts_are_masked_as_prompts_of_their_own():
    seen, positions = prompts_in_one(3, torch.tensor([[1, 2]]), 2)
    assert seen[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0, 0], [1, 1, 1, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 1],
    ]  # fmt: skip
    assert positions.tolist() == [[0, 1, 2, 2, 3, 3, 4]]


@pytest.mark.parametrize("options", [TEXT, {}], ids=["step 1", "step 2"])
def test_queries_in_one_pass_are_those_of_single_prompts(make_data, make, options):
    make_data(items=True)
    _, _, model = make(**options)
    model.eval()
    items, histories = torch.tensor([[4, 9, 2], [7, 0, 0]]), [[4], [4, 9], [4, 9, 2], [7]]
    tokens = torch.randn(2, 3, 32) if model.id_model is not None else None
    queries = model.queries(items, torch.arange(3).expand(2, 3), tokens)
    backbone, prompt = model.mirm.backbone, model.mirm.collator.prompt
    for history, query in zip(histories, [*queries[0], queries[1, 0]], strict=True):
        ids, ends = model.prompt.write(history)
        embeds = backbone.embed(torch.tensor([ids]))
        own = [] if tokens is None else [tokens[int(history == [7]), len(history) - 1][None, None]]
        embeds = torch.cat([embeds, *own, backbone.embed(torch.tensor([[prompt.cur_item_id]]))], dim=1)
        torch.testing.assert_close(query, backbone.decode(embeds, torch.ones(embeds.shape[:2], dtype=torch.long))[0, -1], rtol=1e-4, atol=1e-5)
        assert ends[-1] == len(ids) - 1


@pytest.mark.parametrize("low", [True, False])
def test_users_are_read_in_the_precision_of_the_items(make_data, make, monkeypatch, low):
    """A backbone in shards has bfloat16 weights then, which states in float32 do not fit."""
    make_data(items=True)
    _, prepared, model = make(**TEXT)
    seen, queries = [], model.queries
    model.low_precision_products = low
    monkeypatch.setattr(model, "queries", lambda *given: seen.append(torch.is_autocast_enabled("cpu")) or queries(*given))
    scores = model.eval().full_sort_predict(next(iter(prepared.loaders[2]))[0])
    assert seen == [low] and scores.dtype == torch.float32


def test_a_prompt_holds_the_last_titles_in_order_and_nothing_of_the_target(make_data, make, monkeypatch):
    make_data(items=True)
    _, prepared, model = make(**TEXT)
    batch, written = next(iter(prepared.loaders[2]))[0], []
    write = model.prompt.write
    monkeypatch.setattr(model.prompt, "write", lambda items: written.append(items) or write(items))
    scores = model.eval().full_sort_predict(batch)
    histories = [row[:length] for row, length in zip(batch["item_id_list"].tolist(), batch["item_length"].tolist(), strict=True)]
    assert written == [history[-3:] for history in histories] and max(map(len, histories)) > 3
    titles = [model.mirm.content.items[item].title for item in written[-1]]
    assert model.mirm.backbone.tokenizer.decode(write(written[-1])[0]) == "\n".join([HISTORY, *titles])
    batch["item_id"] = batch["item_id"] % 30 + 1
    assert torch.equal(model.full_sort_predict(batch), scores)


def test_a_long_title_is_cut(make_data, make):
    make_data(items=True)
    _, _, model = make(**TEXT, prompt_title_tokens=4)
    head, (ids, ends) = len(model.prompt.head), model.prompt.write([3, 8])
    assert len(ids) == head + 8 and ends == [head + 3, head + 7]


@pytest.mark.parametrize("options", [TEXT, {}], ids=["step 1", "step 2"])
def test_scores_are_cosines_over_the_temperature(cosine_scores, options):
    cosine_scores(**options, mirm_learning_rate=0)


def test_collaborative_embeddings_of_users_and_items_change_scores(make_data, make):
    make_data(items=True)
    _, prepared, model = make()
    model.eval()
    batch, items = next(iter(prepared.loaders[2]))[0], torch.arange(1, 31)
    with torch.no_grad():
        model.mirm_table[1:] = model.encode_items(items)
        first, users = model.full_sort_predict(batch), model.user_tokens(batch)
        table = model.id_model.model.item_embedding.weight
        table[1:31] = table[1:31].flip(0).clone()
        assert not torch.allclose(model.user_tokens(batch), users, atol=1e-4)
        second = model.full_sort_predict(batch)  # the items' table is still the old one: users alone have changed
        fresh = model.encode_items(items)
        assert not torch.allclose(second, first, atol=1e-4) and not torch.allclose(fresh, model.mirm_table[1:], atol=1e-4)
        model.mapping[2].weight.zero_(), model.mapping[2].bias.zero_()
        assert not model.user_tokens(batch).any() and not model.item_tokens(items).any()
        without = model.full_sort_predict(batch)
        table[1:31] = torch.randn(30, 8)
        assert torch.equal(model.full_sort_predict(batch), without)  # a mapping of zeros lets nothing of the ID model through


def test_tokens_by_hand(make_data, make, monkeypatch):
    """Of unit size into the mapping, and out of it at the size of words as the LLM reads them, which some models scale."""
    make_data(items=True)
    config, prepared, model = make()
    model.eval()
    batch, items = next(iter(prepared.loaders[2]))[0], torch.arange(1, 31)
    with torch.no_grad():
        user, table = model.id_model(batch), model.id_model.item_embeddings()
        words = model.mirm.backbone.embed(torch.arange(len(model.mirm.backbone.plain.get_input_embeddings().weight)))
        size = words.square().mean().sqrt()
        expected = model.mapping(user / (user.square().mean(1, keepdim=True) + 1e-7).sqrt()) * size
        torch.testing.assert_close(model.user_tokens(batch), expected, rtol=1e-3, atol=1e-5)
        expected = model.mapping(table[items] / table[1:].square().mean().sqrt()) * size
        torch.testing.assert_close(model.item_tokens(items), expected, rtol=1e-4, atol=1e-6)
        embed = model.mirm.backbone.embed
        monkeypatch.setattr(model.mirm.backbone, "embed", lambda ids: 7 * embed(ids))
        other = type(model)(config, prepared.loaders[0]._dataset, model.mirm_table, model.mirm, model.id_model)
        torch.testing.assert_close(other.word_scale, 7 * model.word_scale)
        assert {"item_scale", "word_scale"} < set(model.state_dict()) and model.is_saved("word_scale")  # a checkpoint of other scales is another model's


def test_each_window_of_a_row_is_drawn(make_data, make, monkeypatch):
    """The last one too, which holds the newest targets."""
    make_data(items=True)
    _, prepared, model = make(**TEXT)
    batch, drawn, window = next(iter(prepared.loaders[0])), set(), model._window
    monkeypatch.setattr(model, "_window", lambda seq, length, first: drawn.update(zip(length.tolist(), first.tolist())) or window(seq, length, first))
    monkeypatch.setattr(model, "queries", lambda *_: 1 / 0)
    for _ in range(60):
        with pytest.raises(ZeroDivisionError):
            model.calculate_loss(batch)
    lengths = {length for length, _ in drawn}
    assert max(lengths) > 3 and drawn == {(length, first) for length in lengths for first in range(max(0, length - 3) + 1)}


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_step_1_trains_the_llm_and_step_2_the_mapping_alone(make_data, make, tuning):
    make_data(items=True)
    for options, trained in ((TEXT, {"mirm", "log_temperature"}), ({}, {"mapping"})):
        _, prepared, model = make(mirm_tuning=tuning, **options)
        before = {name: value.clone() for name, value in model.named_parameters()}
        rates = {"learning_rate": 0.01, "mirm_learning_rate": 0.02, "weight_decay": 0.0}
        groups = model.train().parameter_groups(rates)
        assert {group["lr"] for group in groups} == ({0.02} if options else {0.01})
        optimizer = torch.optim.AdamW(groups)
        for _ in range(2):  # LoRA's first factor has no gradient in the first step
            optimizer.zero_grad()
            model.calculate_loss(next(iter(prepared.loaders[0]))).backward()
            optimizer.step()
        changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        assert {name.partition(".")[0] for name in changed} == trained
        assert changed == {name for name, value in model.named_parameters() if value.requires_grad}


def test_step_2_begins_with_the_weights_of_step_1_which_others_share(make_data, run, make, tmp_path):
    make_data(items=True)
    _, result, _ = run()
    (cache,) = (tmp_path / "saved" / "cache" / "collm").iterdir()
    assert not result["tuning"]["reused"] and result["tuning"]["epochs_run"] == 1
    with safe_open(cache / "best.safetensors", "pt") as file:
        kept = {name: file.get_tensor(name) for name in file.keys()}
    _, _, model = make()
    state = model.state_dict()
    same = [name for name, value in kept.items() if torch.equal(value, state[name.removeprefix("model.")])]
    assert same == list(kept) and not any("visual" in name for name in kept)
    (folder,) = (tmp_path / "saved" / "tiny").iterdir()
    with safe_open(folder / "best.safetensors", "pt") as file:
        assert {name.split(".")[1] for name in file.keys()} == {"mapping", "mirm_table", "log_temperature", "item_scale", "word_scale"}
    _, result, _ = run(learning_rate=0.005, mapping_size=8, id_learning_rate=0.002)
    assert result["tuning"]["reused"] and not result["id_model"]["reused"]
    assert run(more_id_models="{GRU4Rec: {epochs: 1, embedding_size: 8, hidden_size: 8}}")[1]["tuning"]["reused"]
    assert not run(prompt_items=2)[1]["tuning"]["reused"]
    file = tmp_path / "data" / "tiny" / "tiny.item"
    file.write_text(file.read_text().replace("Title number 7\t", "Quite another zebra\t"))
    assert not run()[1]["tuning"]["reused"]  # other texts are another tokenizer, and other prompts


@pytest.mark.parametrize("options", [TEXT, {}], ids=["step 1", "step 2"])
def test_training_does_not_see_the_targets(blind_to_targets, options):
    blind_to_targets(end_to_end_items=8, **options)


@pytest.mark.parametrize("step", [1, 2])
def test_resumes_exactly(make_data, run, tmp_path, cut_after_two_epochs, step):
    make_data(items=True)
    given = dict(epochs=3, tuning_epochs=3 if step == 1 else 1, end_to_end_items=20)
    whole = run(**given)[1]
    with cut_after_two_epochs():
        assert run(**given, output_dir=str(tmp_path / "cut"))[0] == 130
    resumed = run([f"--resume={next((tmp_path / 'cut' / 'tiny').iterdir())}"])[1]
    assert resumed["test_result"] == whole["test_result"] and resumed["best_valid_result"] == whole["best_valid_result"]


BAD = {
    "frozen": ({"mirm_tuning": "frozen"}, "mirm_tuning=frozen: CoLLM tunes the LLM in its first step. Valid: full, lora."),
    "no item table": ({"id_model": "FPMC"}, "id_model=FPMC: has no table of item embeddings"),
    "ID model of content": ({"id_model": "HLLM"}, "id_model=HLLM: reads item content itself"),
    "no titles": ({"prompt_items": 0}, "prompt_items=0: must be a whole number of at least 1"),
    "no columns": ({"item_text_fields": []}, "item_text_fields=[]: this model reads text alone"),
    "alignment": ({"align_weight": 0}, "align_weight: unknown property for model CoLLM"),
    "misspelt": ({"promt_items": 3}, "promt_items: unknown property for model CoLLM. Did you mean prompt_items?"),
    "ID property": ({"id_hiden_size": 8}, "id_hiden_size: unknown property for model CoLLM"),
    "weights": ({"mirm_weights": "nowhere"}, "mirm_weights=nowhere: no such file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(make_data, run, tmp_path, flags, command_line, name):
    make_data(items=True)
    given, message = BAD[name]
    code, _, text = run(command_line(flags(model="CoLLM", **given)))
    assert code == 2 and message in text and "Traceback" not in text and len(text) < 5000
    assert not list((tmp_path / "saved" / "tiny").glob("*"))


def test_compare_show_config_doctor_and_tune(make_data, flags, command_line, capsys, tmp_path):
    make_data(items=True)
    given = flags(**SMALL)
    assert main(["doctor", *command_line(given)]) == 0
    estimate = json.loads(open(capsys.readouterr().out.strip().splitlines()[-1]).read())["estimate"]["stages"]
    assert list(estimate) == ["id_model", "item_embedding", "tuning", "CoLLM", "test"] and not any("skipped" in stage for stage in estimate.values())
    del given["model"]
    both = "{CoLLM: CoLLM, text: {model: CoLLM, collaborative: False}}"
    assert main(["compare", *command_line({**given, "models": both, "seeds": 1})]) == 0
    assert "failed" not in capsys.readouterr().out
    assert main(["doctor", *command_line({**given, "model": "CoLLM"})]) == 0
    estimate = json.loads(open(capsys.readouterr().out.strip().splitlines()[-1]).read())["estimate"]["stages"]
    assert {name for name, stage in estimate.items() if "reused" in stage["about"]} == {"id_model", "tuning"}
    assert main(["show-config", "--model=CoLLM", "--dataset=tiny", "--key=mapping"]) == 0
    assert "properties/model/CoLLM.yaml, line" in capsys.readouterr().out
    del given["mapping_size"]
    (tmp_path / "space.yaml").write_text("learning_rate: {log_uniform: [1.0e-3, 1.0e-2]}\nmapping_size: {choice: [8, 16]}\n")
    assert main(["tune", *command_line({**given, "model": "CoLLM", "space": tmp_path / "space.yaml", "trials": 2})]) == 0, capsys.readouterr().err
