"""Checkpoints, caches and run folders that are broken, of another run, or made to do harm.

One small run of SASRec and one of Molar are made once; each row works on a copy of them.
"""

import json
import shutil

import pytest
import torch
import yaml
from hostile_bytes import numpy_pickled, pickled, torch_pickled, yaml_call
from outcome import assert_short_error, listing
from safetensors.torch import save_file
from test_run_input import MOLAR
from tiny_data import tiny_interactions, write_inter, write_items

from recbole_molar.__main__ import main
from recbole_molar.checkpoint import load_tensors, save_tensors

TINY = {"dataset": "tiny", "use_cpu": True, "epochs": 1, "train_batch_size": 64, "MAX_ITEM_LIST_LENGTH": 6, "topk": [5, 10], "show_progress": False,
        "precision": "fp32"}  # fmt: skip
SASREC = {"model": "SASRec", "hidden_size": 16, "inner_size": 16, "n_layers": 1, "n_heads": 2}


def words(root, **given):
    given = {**TINY, "data_path": root / "data", "output_dir": root / "saved", **given}
    return [f"--{key}={value}" for key, value in given.items()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder with data/, and saved/ of a finished SASRec and a finished Molar, named `id` and `molar`."""
    root = tmp_path_factory.mktemp("finished")
    write_inter(root / "data" / "tiny", tiny_interactions())
    write_items(root / "data" / "tiny", 30)
    for name, given in (("id", SASREC), ("molar", MOLAR)):
        assert main(["run", *words(root, **given)]) == 0
        made = next(path for path in (root / "saved" / "tiny").iterdir() if "-" in path.name)
        made.rename(root / "saved" / "tiny" / name)
    return root


@pytest.fixture
def copied(finished, tmp_path):
    """A copy that a row may spoil; paths in its `config.yaml` are its own."""
    shutil.copytree(finished, tmp_path / "root")
    for config in (tmp_path / "root").rglob("config.yaml"):
        config.write_text(config.read_text().replace(str(finished), str(tmp_path / "root")))
    return tmp_path / "root"


# What a row does: (folder, marker) -> None. Folders: `id`, the SASRec run; `molar`, the Molar run; `cache`, saved/cache.


def content(name, make):
    """A file replaced by bytes or text; `make` may be a function of the marker."""

    def spoil(folder, marker):
        given = make(marker) if callable(make) else make
        (folder / name).write_bytes(given if isinstance(given, bytes) else given.encode())

    return spoil


def cut(name):
    def spoil(folder, marker):
        (folder / name).write_bytes((folder / name).read_bytes()[:-100])

    return spoil


def tensors(name, change):
    """A safetensors file changed by `change(tensors, meta)`."""

    def spoil(folder, marker):
        path = next(folder.glob(name))
        found, meta = load_tensors(path)
        change(found, meta)
        save_tensors(path, found, meta)

    return spoil


def settings(**change):
    def spoil(folder, marker):
        path = folder / "config.yaml"
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **change}))

    return spoil


def result(change):
    def spoil(folder, marker):
        path = folder / "result.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return spoil


def first(found):
    return next(name for name in found if name.startswith("model."))


def with_nan(found, meta):
    found[first(found)].view(-1)[0] = float("nan")


def without_a_tensor(found, meta):
    del found[first(found)]


def other_shape(found, meta):
    found[first(found)] = torch.zeros(7, 3)


def other_data(found, meta):
    meta["split_hash"] = "0" * 16


def foreign_tensors(folder, marker):
    save_file({"a": torch.ones(2)}, folder / "last.safetensors")


LAST = "last.safetensors"
RESUME = {  # --resume of the SASRec run, whose result is missing
    "a pickle for a checkpoint": (content(LAST, pickled), f"{LAST}: not a readable checkpoint"),
    "torch's pickle for a checkpoint": (content(LAST, torch_pickled), f"{LAST}: not a readable checkpoint"),
    "an empty checkpoint": (content(LAST, b""), f"{LAST}: not a readable checkpoint"),
    "a checkpoint cut off": (cut(LAST), f"{LAST}: not a readable checkpoint"),
    "a header of terabytes": (content(LAST, b"\xff" * 7 + b"\x7f{}"), f"{LAST}: not a readable checkpoint"),
    "a checkpoint of others": (foreign_tensors, f"{LAST}: not a readable checkpoint"),
    "a checkpoint of nothing": (tensors(LAST, lambda found, meta: meta.clear()), f"{LAST}: not the checkpoint of a run, it lacks epoch"),
    "NaN in a checkpoint": (tensors(LAST, with_nan), f"{LAST}: not a usable checkpoint .model.* holds NaN"),
    "a tensor missing": (tensors(LAST, without_a_tensor), "the checkpoint is of another model .missing"),
    "another shape": (tensors(LAST, other_shape), "the checkpoint is of another model"),
    "another split": (tensors(LAST, other_data), f"{LAST}: was trained on other data"),
    "an epoch that is a word": (tensors(LAST, lambda found, meta: meta.update(epoch="last")), f"{LAST}: not the checkpoint of this run"),
    "random numbers of nowhere": (tensors(LAST, lambda found, meta: meta.update(rng={})), f"{LAST}: not the checkpoint of this run"),
    "an optimizer of nowhere": (tensors(LAST, lambda found, meta: meta.update(optimizer=[])), f"{LAST}: not the checkpoint of this run"),
    "settings that call": (content("config.yaml", lambda marker: f"model: {yaml_call(marker)}\n"), "config.yaml: not valid YAML: could not determine a const"),
    "settings that are broken": (content("config.yaml", "a: [1,\n"), "config.yaml: not valid YAML"),
    "settings that are a list": (content("config.yaml", "- 1\n"), "config.yaml: found a list"),
    "empty settings": (content("config.yaml", ""), "--model is missing"),
    "an unknown setting": (settings(hidden_sise=8), r"config.yaml, line \d+: hidden_sise: unknown property"),
    "settings that name code": (settings(model="evil.SASRec"), r"config.yaml, line \d+: model=evil.SASRec is code outside .*add --model=evil.SASRec"),
    "an encoder that is code": (settings(model="Molar", user_encoder="evil.Foo"), "user_encoder=evil.Foo is code outside"),
    "a task that is code": (settings(model="Molar", mirm_finetune_tasks=["image_text", "evil.Foo"]), "mirm_finetune_tasks=evil.Foo is code outside"),
    "seconds that are broken": (content("seconds.json", "{"), "seconds.json: cannot be read as JSON"),
    "a result that is broken": (content("result.json", "{"), "result.json: cannot be read as JSON"),
    "a result that is a list": (content("result.json", "[]"), "result.json: holds a list"),
    "a result of nothing": (content("result.json", "{}"), "result.json: lacks test_result"),
    "a result nested without end": (content("result.json", "[" * 100_000), "result.json: cannot be read as JSON"),
}

ID = {  # --id_weights of the SASRec run
    "a pickle for the best epoch": (content("best.safetensors", pickled), "best.safetensors: not a readable checkpoint"),
    "the best epoch cut off": (cut("best.safetensors"), "best.safetensors: not a readable checkpoint"),
    "NaN in the best epoch": (tensors("best.safetensors", with_nan), "best.safetensors: not a usable checkpoint"),
    "another size": (settings(hidden_size=8), "the checkpoint is of another model"),
    "no result": (lambda folder, marker: (folder / "result.json").unlink(), "id_weights=.*not the folder of a finished run"),
    "a result that is broken ": (content("result.json", "nothing"), "result.json: cannot be read as JSON"),
    "a result without a split": (result(lambda found: {"model": "SASRec"}), "result.json: lacks split_hash"),
    "a run of another model": (result(lambda found: {**found, "model": "GRU4Rec"}), "a run of GRU4Rec, but id_model=SASRec"),
    "a run on other data": (result(lambda found: {**found, "split_hash": "0"}), "was trained on another split"),
    "settings that name code ": (settings(model="evil.SASRec"), r"config.yaml, line \d+: model=evil.SASRec is code outside recbole_molar.*add --id_model"),
}


def weights(make):
    """The stage-1 weights in the cache replaced by `make(path, marker)`."""

    def spoil(folder, marker):
        make(next(folder.glob("mirm-*.safetensors")), marker)

    return spoil


def bytes_of(make):
    return weights(lambda path, marker: path.write_bytes(make(marker) if callable(make) else make))


def changed(change):
    return tensors("mirm-*.safetensors", change)


MIRM = {  # --mirm_weights of the file in the cache
    "a pickle for weights": (bytes_of(pickled), "mirm-.*: not a readable checkpoint"), "torch's pickle": (bytes_of(torch_pickled), "not a readable checkpoint"),
    "weights cut off": (weights(lambda path, marker: path.write_bytes(path.read_bytes()[:5000])), "mirm-.*: not a readable checkpoint"),
    "weights of another backbone": (changed(lambda found, meta: meta.update(backbone="Qwen/Qwen2-VL-2B")), "made with mirm_backbone=Qwen"),
    "weights of another tuning": (changed(lambda found, meta: meta.update(tuning="lora")), "made with mirm_tuning=lora"),
    "weights of another shape": (changed(lambda found, meta: found.update({next(iter(found)): torch.zeros(3)})), "another model's weights"),
    "weights of NaN": (changed(lambda found, meta: next(iter(found.values())).fill_(float("nan"))), "mirm-.*not a usable checkpoint .* holds NaN"),
    "a tokenizer that is none": (changed(lambda found, meta: meta.update(tokenizer="{}")), "mirm_weights: their tokenizer cannot be read"),
    "a tokenizer that is a number": (changed(lambda found, meta: meta.update(tokenizer=5)), "mirm_weights: their tokenizer cannot be read"),
    "no tokenizer": (changed(lambda found, meta: meta.update(tokenizer=None)), "holds no tokenizer"),
}

BACKBONES = {  # --mirm_backbone of a folder with these files
    "a folder of nothing": ({}, "cannot load it"), "weights pickled": ({"config.json": "CONFIG", "pytorch_model.bin": torch_pickled}, "cannot load it"),
    "weights of rubbish": ({"config.json": "CONFIG", "model.safetensors": b"\xff" * 64}, "cannot load it"),
    "a config of rubbish": ({"config.json": b"\xff\xfe"}, "cannot load it"), "a config that is a list": ({"config.json": b"[1]"}, "cannot load it"),
    "code of its own": ({"config.json": b'{"model_type": "evil", "architectures": ["Evil"], "auto_map": {"AutoConfig": "evil.Evil", '
                                        b'"AutoProcessor": "evil.Evil", "AutoModelForImageTextToText": "evil.Evil"}}', "evil.py": "CODE"}, "cannot load it"),
    "a processor of its own": ({"config.json": "CONFIG", "preprocessor_config.json": b'{"processor_class": "Evil", "auto_map": {"AutoProcessor": "evil.Evil"}}',
                                "evil.py": "CODE"}, "cannot load it"),
    "a processor that is a list": ({"config.json": "CONFIG", "processor_config.json": b"[1]"}, "cannot load it"),
}  # fmt: skip


def refused(capsys, root, given, message, marker):
    """Run; the error is as expected, no code has run, and nothing but log lines of a resumed run is new."""
    before = listing(root)
    code = main(["run", *given])
    out, err = capsys.readouterr()
    assert_short_error(code, out, err, message)
    after = listing(root)
    logs = {name for name in after if name.endswith(("train.log", "seconds.json"))}
    assert {name: after[name] for name in after.keys() - logs} == {name: before[name] for name in before.keys() - logs}
    assert logs <= before.keys() and not marker.exists()


@pytest.fixture
def marker(tmp_path):
    """A folder that exists once hostile code has run."""
    return tmp_path / "code-has-run"


@pytest.mark.parametrize("name", RESUME)
def test_resume(copied, capsys, marker, name):
    spoil, message = RESUME[name]
    folder = copied / "saved" / "tiny" / "id"
    if "result" not in name:
        (folder / "result.json").unlink()
    spoil(folder, marker)
    refused(capsys, copied, [f"--resume={folder}"], message, marker)


@pytest.mark.parametrize("name", ID)
def test_id_weights(copied, capsys, marker, name):
    spoil, message = ID[name]
    spoil(copied / "saved" / "tiny" / "id", marker)
    refused(capsys, copied, words(copied, **MOLAR, id_weights=copied / "saved" / "tiny" / "id"), message, marker)


@pytest.mark.parametrize("name", MIRM)
def test_mirm_weights(copied, capsys, marker, name):
    spoil, message = MIRM[name]
    spoil(copied / "saved" / "cache", marker)
    file = next((copied / "saved" / "cache").glob("mirm-*.safetensors"))
    refused(capsys, copied, words(copied, **MOLAR, align_weight=0, mirm_weights=file), message, marker)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(copied, capsys, marker, monkeypatch, name):
    from transformers import Qwen2VLConfig

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files, message = BACKBONES[name]
    folder = copied / "backbone"
    folder.mkdir()
    for file, made in files.items():
        if made == "CONFIG":
            made = Qwen2VLConfig().to_json_string().encode()
        elif made == "CODE":
            made = f"import os\nos.mkdir({str(marker)!r})\nclass Evil: pass\n".encode()
        (folder / file).write_bytes(made(marker) if callable(made) else made)
    refused(capsys, copied, words(copied, **{**MOLAR, "mirm_backbone": folder}, align_weight=0), message, marker)


DOCTOR = {
    "no result": (lambda folder, marker: (folder / "result.json").unlink(), "--run=.*holds no result.json"),
    "a broken result": (content("result.json", "{"), "result.json: cannot be read as JSON"),
    "a result without seconds": (content("result.json", '{"model": "SASRec"}'), "result.json: lacks seconds"),
    "settings that name code": (settings(model="evil.SASRec"), "model=evil.SASRec is code outside"),
}


@pytest.mark.parametrize("name", DOCTOR)
def test_doctor_of_a_run(copied, capsys, marker, name):
    spoil, message = DOCTOR[name]
    folder = copied / "saved" / "tiny" / "id"
    spoil(folder, marker)
    before = listing(copied)
    code = main(["doctor", f"--run={folder}"])
    assert_short_error(code, *capsys.readouterr(), message)
    assert listing(copied) == before


# --------------------------------------------------------- handled and counted


def items(change):
    return tensors("items-*.safetensors", change)


CACHES = {  # what the caches hold is made anew, with a warning
    "a pickle for the table": (lambda folder, marker: next(folder.glob("items-*")).write_bytes(pickled(marker)), "items-.*not a readable checkpoint"),
    "the table changed": (items(lambda found, meta: found["rows"].add_(1)), "items-.*its checksum does not hold"),
    "a table of another width": (items(lambda found, meta: found.update(rows=torch.zeros(30, 5))), "items-.*holds no item embeddings of 32"),
    "a table without rows": (items(lambda found, meta: found.update(rows=found.pop("rows")[:3])), "items-.*holds no item embeddings"),
    "a table of others": (items(lambda found, meta: (found.clear(), meta.clear())), "items-.*holds no item embeddings"),
    "a pickle for stage 1": (bytes_of(pickled), "mirm-.*not a readable checkpoint.*Stage 1 runs again"),
    "stage 1 without a report": (changed(lambda found, meta: meta.pop("report")), "holds no report of stage 1.*Stage 1 runs again"),
    "stage 1 of another shape": (changed(lambda found, meta: found.update({next(iter(found)): torch.zeros(3)})), "another model's weights.*Stage 1 runs again"),
}


@pytest.mark.parametrize("name", CACHES)
def test_caches_are_made_anew(copied, capsys, marker, name):
    import re

    spoil, message = CACHES[name]
    spoil(copied / "saved" / "cache", marker)
    code = main(["run", *words(copied, **MOLAR, align_weight=0)])
    out, err = capsys.readouterr()
    assert code == 0 and re.search(message, out, re.S), (out, err)
    assert not marker.exists()


@pytest.mark.parametrize("file, make, message", [
    ("best.safetensors", pickled, "best.safetensors: not a readable checkpoint.*Delete the folder .*SASRec-"),
    ("done.json", b"[", "done.json: cannot be read as JSON"),
])  # fmt: skip
def test_the_cached_id_model(copied, capsys, marker, file, make, message):
    path = next((copied / "saved" / "cache" / "id_model").glob(f"SASRec-*/{file}"))
    path.write_bytes(make(marker) if callable(make) else make)
    refused(capsys, copied, words(copied, **MOLAR), message, marker)


def test_files_that_nobody_reads(copied, capsys, marker):
    """ranks.npz and curve.json are written only: pickled arrays there are never loaded."""
    folder = copied / "saved" / "tiny" / "id"
    (folder / "result.json").unlink()
    (folder / "ranks.npz").write_bytes(numpy_pickled(marker))
    (folder / "curve.json").write_bytes(pickled(marker))
    assert main(["run", f"--resume={folder}"]) == 0, capsys.readouterr().err
    assert not marker.exists()


def test_a_resumed_folder_is_never_removed(copied, capsys):
    """`--resume` of a folder that holds more than a run: bad input in a later stage must not take it away."""
    folder = copied / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    run = copied / "saved" / "tiny" / "molar"
    (folder / "config.yaml").write_text((run / "config.yaml").read_text() + "\n")
    settings(mirm_backbone="./no-such-folder")(folder, None)
    assert main(["run", f"--resume={folder}"]) == 2 and "cannot load it" in capsys.readouterr().err
    assert (folder / "thesis.txt").read_text() == "years of work"
