"""Molar by the whole command: one changed item, kill -9 in each stage, modalities, end to end, bad input."""

import gc
import json
import shutil
import signal
import time

import pytest
from safetensors import safe_open
from test_main import result_of, start

from recbole_molar import quick_start
from recbole_molar.__main__ import main
from recbole_molar.checkpoint import load_tensors, save_tensors
from recbole_molar.model.mirm import MIRM
from recbole_molar.stages import text_columns

SMALL = {
    "model": "Molar", "mirm_finetune_samples": 30, "mirm_image_size": "[28, 28]", "compact_hidden_size": 32, "compact_num_layers": 2,
    "compact_intermediate_size": 48, "compact_vision_size": 16, "compact_vision_layers": 1, "compact_vocab_size": 400, "id_hidden_size": 16,
    "id_inner_size": 16, "id_epochs": 1, "mirm_max_tokens": 40,
}  # fmt: skip


@pytest.fixture
def run(capsys, flags, command_line):
    """Function: properties of a small Molar, or words -> (exit code, output, errors)."""

    def call(words=None, **given):
        code = main(["run", *(words or command_line(flags(**{**SMALL, **given})))])
        return (code, *capsys.readouterr())

    return call


@pytest.mark.parametrize("changed", ["text", "poster"])
def test_one_changed_item_costs_one_pass(make_data, run, changed):
    data = make_data(items=True, images=True) / "tiny"
    first, folder = result_of(run(align_weight=0)[1])
    weights = first["stage_1"]["weights"]
    assert weights in (folder / "train.log").read_text()
    if changed == "text":
        file = data / "tiny.item"
        file.write_text(file.read_text().replace("Title number 7\t", "Quite another zebra\t"))
    else:
        (data / "images" / "i7.png").write_bytes((data / "images" / "i8.png").read_bytes())
    for given in (weights, folder):
        second, folder = result_of(run(align_weight=0, mirm_weights=given)[1])
        log = (folder / "train.log").read_text()
        assert ("1 computed, 29 reused" if given == weights else "0 computed, 30 reused") in log and "held-out loss" not in log
        assert second["stage_1"] == {"weights": weights, "reused": True}


@pytest.mark.parametrize("encoding, left", [("cached", 0), ("end_to_end", 1)])
def test_mirm_is_gone_before_stage_2_where_it_is_not_trained_on(make_data, run, monkeypatch, encoding, left):
    """A large one would stay on the GPU beside DUEG and its optimizer: its parts refer to each other, and nothing else looks for such."""
    make_data(items=True, images=True)
    alive, train = [], quick_start.train

    def counted(*given):
        alive.append(sum(type(thing) is MIRM for thing in gc.get_objects()))
        return train(*given)

    gc.collect()
    gc.disable()
    monkeypatch.setattr(quick_start, "train", counted)
    try:
        before = sum(type(thing) is MIRM for thing in gc.get_objects())
        assert run(align_weight=0, item_encoding=encoding, epochs=1)[0] == 0
    finally:
        gc.enable()
    assert [number - before for number in alive] == [left]


@pytest.mark.parametrize("tasks, options, wanted", [
    ("[image_text,structured_attributes]", {}, True), ("[structured_attributes]", {"mirm_view_contrast_weight": 0}, False),
    ("[structured_attributes,user_behavior]", {}, False), ("[structured_attributes,user_behavior]", {"mirm_view_contrast_weight": 0.5}, True),
], ids=str)
def test_without_users_readings_of_an_item_are_contrasted(make_data, run, tasks, options, wanted):
    make_data(items=True, images=True)
    _, folder = result_of(run(align_weight=0, epochs=1, mirm_finetune_tasks=tasks, **options)[1])
    assert ("structured_attributes view_contrast" in (folder / "train.log").read_text()) == wanted


def test_weights_that_do_not_fit_are_refused(make_data, run):
    make_data(items=True, images=True)
    weights = result_of(run(align_weight=0)[1])[0]["stage_1"]["weights"]
    for options, message in (({"compact_hidden_size": 64}, "another model's weights"), ({"mirm_tuning": "lora"}, "made with mirm_tuning=full")):
        code, _, err = run(align_weight=0, mirm_weights=weights, **options)
        assert code == 2 and message in err and "Traceback" not in err


SASREC = dict(
    hidden_size=16, inner_size=16, n_layers=2, hidden_dropout_prob=0.2, attn_dropout_prob=0.2, train_batch_size=2048, learning_rate=0.001, stopping_step=5,
    metrics="[Recall, NDCG, MRR]",
)  # the ID model of SMALL as a run  # fmt: skip


def test_a_finished_run_of_the_same_configuration_is_the_id_model(make_data, run, flags, command_line, tmp_path):
    """As if it had been trained there; another seed, properties, split or a cut run is not taken."""
    make_data(items=True, images=True)
    own, _ = result_of(run(output_dir=tmp_path / "elsewhere")[1])
    _, given = result_of(run(command_line(flags(**SASREC)))[1])
    taken, folder = result_of(run()[1])
    assert taken["id_model"] == {"model": "SASRec", "reused": True, "epochs_run": None} and "id_model" not in taken["seconds"]
    assert f"id_model: {given}, a finished run" in (folder / "train.log").read_text() and not (folder.parents[1] / "cache" / "id_model").exists()
    assert taken["test_result"] == own["test_result"]
    for other in ({"id_epochs": 2}, {"seed": 3}):
        assert not result_of(run(**other)[1])[0]["id_model"]["reused"]
    shutil.copytree(given, given.parent / "SASRec-99999999-999999-torn")  # newer than the other
    (given.parent / "SASRec-99999999-999999-torn" / "result.json").write_text("{")
    assert result_of(run()[1])[0]["id_model"]["reused"]
    (given.parent / "torn").mkdir()
    (given.parent / "torn" / "config.yaml").write_text("a: [")  # of no concern
    best = (given / "best.safetensors").read_bytes()
    (given / "best.safetensors").write_bytes(best[:100])
    code, _, err = run()
    assert code == 2 and f"Delete the folder {given}, and it is trained anew." in err
    (given / "best.safetensors").write_bytes(best)
    result = json.loads((given / "result.json").read_text())
    (given / "result.json").write_text(json.dumps({**result, "split_hash": "another"}))
    assert not result_of(run()[1])[0]["id_model"]["reused"]


def test_a_finished_id_model_is_taken_as_it_is(make_data, run, flags, command_line):
    make_data(items=True, images=True)
    own, folder = result_of(run()[1])
    assert "id_model" in own["seconds"]
    _, given = result_of(run(command_line(flags(**SASREC)))[1])
    given = given.resolve()
    code, out, err = run(id_weights=given)
    assert code == 0, err
    taken, folder = result_of(out)
    assert "id_model" not in taken["seconds"] and str(given) in (folder / "train.log").read_text()
    assert taken["test_result"] == own["test_result"]
    result = json.loads((given / "result.json").read_text())
    for key, message in (("model", "a run of another, but id_model=SASRec"), ("split_hash", "was trained on another split")):
        (given / "result.json").write_text(json.dumps({**result, key: "another"}))
        code, _, err = run(id_weights=given)
        assert code == 2 and message in err


def test_several_finished_id_models(make_data, run, flags, command_line):
    make_data(items=True, images=True)
    given = [result_of(run(command_line(flags(model=name, metrics="[Recall, NDCG, MRR]")))[1])[1].resolve() for name in ("SASRec", "GRU4Rec")]
    options = {"id_weights": f"[{given[0]}, {given[1]}]", "distill_weight": 0.5, "score_fusion_weight": 2}
    code, out, err = run(**options)
    assert code == 0, err
    log = (result_of(out)[1] / "train.log").read_text()
    assert all(f"ID model {name} of {folder}" in log for name, folder in zip(("SASRec", "GRU4Rec"), given))
    for weights, message in ((f"[{given[1]}, x]", "a run of GRU4Rec, but id_model=SASRec"), (f"[{given[0]}, x]", "id_weights=x: not the folder")):
        code, _, err = run(**{**options, "id_weights": weights})
        assert code == 2 and message in err


def test_other_id_models_are_trained_beside_it(make_data, run):
    """Each with its own properties, in the cache of ID models; a second run finds them."""
    make_data(items=True, images=True)
    options = {"more_id_models": "{GRU4Rec: {hidden_size: 12, epochs: 1, loss_type: CE}}", "distill_weight": 0.5, "score_fusion_weight": 2}
    code, out, err = run(**options)
    assert code == 0, err
    first, folder = result_of(out)
    cache = folder.parents[1] / "cache" / "id_model"
    assert sorted(path.name.split("-")[0] for path in cache.iterdir()) == ["GRU4Rec", "SASRec"] and not first["id_model_GRU4Rec"]["reused"]
    with safe_open(next(cache.glob("GRU4Rec-*")) / "best.safetensors", "pt") as weights:
        assert weights.get_slice("model.gru_layers.weight_hh_l0").get_shape() == [36, 12]
    again, _ = result_of(run(**options, nce_negatives=7)[1])
    assert again["id_model_GRU4Rec"]["reused"] and again["id_model"]["reused"] and again["test_result"] == first["test_result"]


BAD = {
    "task": ({"mirm_finetune_tasks": "[image_txt]"}, "no task image_txt"), "encoder": ({"user_encoder": "DUE"}, "Did you mean DUEG?"),
    "ID model": ({"id_model": "SASReck"}, "Did you mean SASRec"), "field": ({"item_text_fields": "[titel]"}, "Did you mean title?"),
    "no modality": ({"item_modalities": "[]"}, "item_modalities=[]"),
    "modality": ({"item_modalities": "[imgae]"}, "--item_modalities=imgae: unknown. Valid: text, image."),
    "backbone": ({"mirm_backbone": "./no-such-folder"}, "mirm_backbone=./no-such-folder: cannot load it"),
    "layers": ({"dueg_layers": 9}, "dueg_layers=9: the decoder"), "readout": ({"mirm_readout": "cur_itm"}, "mirm_readout=cur_itm: unknown"),
    "weights": ({"mirm_weights": "nowhere.safetensors"}, "mirm_weights=nowhere.safetensors: no such file"),
    "ID run": ({"id_weights": "nowhere"}, "id_weights=nowhere: not the folder of a finished run"),
    "another ID model": ({"more_id_models": "{GRU4Rc: {}}"}, "more_id_models=GRU4Rc: no such sequential model. Did you mean GRU4Rec?"),
    "key of another ID model": ({"more_id_models": "{GRU4Rec: {n_layers: 1}}"}, "more_id_models.GRU4Rec.n_layers: unknown property for model GRU4Rec"),
    "value of another ID model": ({"more_id_models": "{GRU4Rec: {hidden_size: x}}"}, "--more_id_models.GRU4Rec.hidden_size=x: must be"),
    "another ID model of content": ({"more_id_models": "{HLLM: {}}"}, "more_id_models=HLLM: reads item content itself"),
    "other ID models as a list": ({"more_id_models": "[GRU4Rec]"}, "more_id_models=['GRU4Rec']: must be {model: {key: value}}, or ~"),
    "other ID models, joint": ({"more_id_models": "{GRU4Rec: {}}", "id_training": "joint"}, "id_training=joint trains one ID model"),
    "objective": ({"mirm_finetune_objective": "state"}, "mirm_finetune_objective=state: unknown"),
    "ids": ("items", "shares no item_id"), "pictures": ("images", "no file there is named"), "empty": ("empty", "has no header"),
    "header only": ("header", "shares no item_id"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_leaves_nothing(make_data, run, tmp_path, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data, (given, message) = make_data(items=True, images=True) / "tiny", BAD[name]
    file = data / "tiny.item"
    if given == "items":
        file.write_text(file.read_text().replace("\ni", "\nx"))
    elif given == "images":
        for picture in (data / "images").iterdir():
            picture.rename(picture.with_name("x" + picture.name))
    elif given in ("empty", "header"):
        file.write_text("" if given == "empty" else file.read_text().splitlines()[0] + "\n")
    code, _, err = run(**(given if isinstance(given, dict) else {}))
    assert code == 2 and message in err and "Traceback" not in err and len(err) < 1500
    assert not list((tmp_path / "saved" / "tiny").glob("*")) and not list((tmp_path / "saved").rglob("*.*"))


@pytest.mark.parametrize("modality, left, missing", [
    ("[image]", "i3.png", "1 no image"), ("[text]", None, "1 no text"), ("[text, image]", "i3.png", "1 no image"),
])  # fmt: skip
def test_modalities_and_items_without_them(make_data, run, modality, left, missing):
    data = make_data(items=True, images=left is not None) / "tiny"
    if left:
        (data / "images" / left).unlink()
    file = data / "tiny.item"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"i4\tTitle number 4\tgenre1\n", b"").replace(b"\n", b"\r\n"))  # BOM and CRLF
    code, out, err = run(item_modalities=modality, align_weight=0)
    assert code == 0, err
    assert missing in out and (modality == "[image]" or "1 no text" in out)


def test_end_to_end_resumes_exactly(make_data, run, tmp_path, cut_after_two_epochs):
    make_data(items=True, images=True)
    given = dict(item_encoding="end_to_end", end_to_end_items=6, eval_step=3, epochs=4, align_weight=0)
    whole, _ = result_of(run(**given)[1])
    with cut_after_two_epochs():
        assert run(**given, output_dir=str(tmp_path / "cut"))[0] == 130
    folder = next((tmp_path / "cut" / "tiny").iterdir())
    with safe_open(folder / "last.safetensors", "pt") as file:
        assert {"model.mirm_table"} < set(file.keys()) and any(name.startswith("model.mirm.") for name in file.keys())
    resumed, _ = result_of(run([f"--resume={folder}"])[1])
    assert resumed["test_result"] == whole["test_result"] and resumed["best_valid_result"] == whole["best_valid_result"]


def test_a_part_without_validation_is_taken_again(make_data, run):
    make_data(items=True)
    given = {"mirm_finetune_tasks": "[]", "id_eval_step": 0}
    assert not result_of(run(**given)[1])[0]["id_model"]["reused"]
    assert result_of(run(**given, align_weight=0.03)[1])[0]["id_model"]["reused"]


def test_a_cut_run_goes_on_from_anywhere_but_over_no_other_id_model(make_data, run, tmp_path, monkeypatch, cut_after_two_epochs):
    make_data(items=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    given = {"mirm_finetune_samples": 10, "epochs": 3, "output_dir": "saved"}
    whole, _ = result_of(run(**{**given, "output_dir": "whole"})[1])
    assert run(**given)[0] == 0  # the parts lie in the cache
    with cut_after_two_epochs():
        assert run(**given, align_weight=0.2)[0] == 130
    cut = next(folder.resolve() for folder in (tmp_path / "saved" / "tiny").iterdir() if not (folder / "result.json").is_file())
    best = next((tmp_path / "saved" / "cache" / "id_model").glob("*/best.safetensors"))
    kept, (tensors, meta) = best.read_bytes(), load_tensors(best)
    monkeypatch.chdir(tmp_path / "elsewhere")
    save_tensors(best, {name: 2 * value for name, value in tensors.items()}, meta)
    code, _, err = run([f"--resume={cut}"])
    assert code == 2 and "was trained over another id_model." in err and "Start a new run" in err
    best.write_bytes(kept)
    code, out, err = run([f"--resume={cut}"])
    assert code == 0 and result_of(out)[0]["stage_1"]["reused"] and not list((tmp_path / "elsewhere").iterdir()), err
    assert whole["test_result"].keys() == result_of(out)[0]["test_result"].keys()


def test_kill_9_in_each_stage(make_data, run, flags, command_line, tmp_path):
    """Killed in stage 1, and again in stage 2: the end is that of a run never cut."""
    make_data(items=True, images=True)
    given = {**SMALL, "epochs": 6, "stopping_step": 100, "train_batch_size": 4, "mirm_finetune_epochs": 6, "mirm_finetune_batch_size": 8}  # fmt: skip
    whole, _ = result_of(run(**{**given, "output_dir": str(tmp_path / "whole")})[1])
    words = command_line(flags(**given))
    for mark, after in (("== mirm_finetune", "Stage 1, epoch 2:"), ("== Molar", "epoch 2/6")):
        process, log, deadline = start(words, tmp_path), [], time.time() + 90
        while time.time() < deadline and process.poll() is None:
            log = list((tmp_path / "saved" / "tiny").glob("*/train.log"))
            if log and after in log[0].read_text().rpartition(mark)[2] and mark in log[0].read_text():
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        err = process.communicate()[1].decode()
        assert process.returncode == -signal.SIGKILL and not (log[0].parent / "result.json").exists(), err
        words = [f"--resume={log[0].parent}"]
    code, out, err = run(words)
    assert code == 0, err
    text = log[0].read_text()
    assert "going on after epoch" in text and "Stage 1 goes on at epoch" in text
    for key in ("test_result", "best_valid_result", "best_epoch", "split_hash"):
        assert result_of(out)[0][key] == whole[key], key
    assert json.dumps(whole["stage_1"]["tasks"]) == json.dumps(result_of(out)[0]["stage_1"]["tasks"])


def test_a_run_on_other_texts_is_neither_resumed_nor_taken_for_done(make_data, run, flags, command_line, tmp_path, capsys, cut_after_two_epochs):
    """The order of interactions, which split_hash holds, stays; what Molar reads of the items does not."""
    make_data(items=True)
    given = {**SMALL, "mirm_finetune_tasks": [], "align_weight": 0, "seed": 1, "item_text_fields": "[title]"}
    file = tmp_path / "data" / "tiny" / "tiny.item"
    header, *rows = file.read_text().splitlines()  # a description that MIRM does not read, but stage 1 would write
    file.write_text("\n".join([f"{header}\tplot:token_seq", *(f"{row}\tplot of {place}" for place, row in enumerate(rows))]) + "\n")
    kept = file.read_text()
    assert result_of(run(**given)[1])[0]["content_hash"]
    with cut_after_two_epochs():
        assert main(["run", *command_line(flags(**{**given, "epochs": 3}))]) == 130
    cut = next(folder for folder in (tmp_path / "saved" / "tiny").iterdir() if not (folder / "result.json").is_file())
    options = {key: value for key, value in flags(**given).items() if key not in ("model", "seed")}
    compare = ["compare", "--models=Molar", "--seeds=[1]", "--report=False", *command_line(options)]
    capsys.readouterr()
    assert main(compare) == 0 and "1 of them done before" in capsys.readouterr().out
    for old, new in (("plot of 7", "plot of a zebra"), ("Title number 7\t", "Quite another zebra\t")):
        file.write_text(kept.replace(old, new))
        assert main(compare) == 2 and "have changed since" in capsys.readouterr().err
    cached = {path: path.stat().st_mtime_ns for path in (tmp_path / "saved" / "cache").rglob("*.safetensors")}
    assert main(["run", f"--resume={cut}"]) == 2 and "content_hash differs" in capsys.readouterr().err
    assert cached == {path: path.stat().st_mtime_ns for path in (tmp_path / "saved" / "cache").rglob("*.safetensors")}  # before any stage is repeated
    file.write_text(kept)
    assert main(["run", f"--resume={cut}"]) == 0


def test_an_id_model_of_other_features_is_trained_anew(make_data, run, flags, command_line, tmp_path, capsys):
    """split_hash holds who had what; SASRecF reads the items' genres beside it."""
    make_data(items=True)
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "genre"]}
    given = {"mirm_finetune_tasks": [], "id_model": "SASRecF", "id_selected_features": "[genre]", "id_load_col": json.dumps(columns)}
    plain = flags(**{**SASREC, "model": "SASRecF", "selected_features": "[genre]", "load_col": json.dumps(columns)})
    finished = result_of(run(command_line(plain))[1])
    assert not result_of(run(**given)[1])[0]["id_model"]["reused"] and result_of(run(**given)[1])[0]["id_model"]["reused"]
    weights = result_of(run(**given, id_weights=finished[1])[1])[0]
    assert weights["id_model"]["reused"]
    file = tmp_path / "data" / "tiny" / "tiny.item"
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, *(row[:-1] + str(int(row[-1]) ** 2 % 3) for row in rows)]) + "\n")
    again = result_of(run(**given)[1])[0]
    assert not again["id_model"]["reused"] and again["split_hash"] == weights["split_hash"]
    code, _, err = run(**given, id_weights=finished[1])
    assert code == 2 and "trained on other features" in err


def test_links_are_no_text(tmp_path):
    (tmp_path / "x.item").write_text("item_id:token\ttitle:token_seq\timage_url:token\tpurl\tprice:float\tblurb:token_seq\tImage_File:token\n")
    assert text_columns(tmp_path / "x.item", {"field_separator": "\t", "ITEM_ID_FIELD": "item_id", "encoding": None}) == ["title", "purl", "blurb"]
