"""Bad input to a run: `.inter`, `.item`, pictures, YAML and the command line. Each row: how to spoil a good run, and what the error must say."""

import re

import pytest
from hostile_bytes import pickled, python_call, yaml_bomb, yaml_call
from outcome import assert_short_error, listing
from tiny_data import tiny_interactions

from recbole_molar.__main__ import main

MOLAR = {
    "model": "Molar", "mirm_finetune_samples": 30, "mirm_image_size": "[28, 28]", "compact_hidden_size": 32, "compact_num_layers": 2,
    "compact_intermediate_size": 48, "compact_vision_size": 16, "compact_vision_layers": 1, "compact_vocab_size": 400, "id_hidden_size": 16,
    "id_inner_size": 16, "id_epochs": 1, "mirm_max_tokens": 40,
}  # fmt: skip
HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"


def inter(content):
    """The data set's `.inter` replaced by text or bytes."""

    def spoil(data):
        (data / "tiny.inter").write_bytes(content if isinstance(content, bytes) else content.encode())

    return spoil


def rows(change=lambda rows: rows):
    return inter(HEADER + "".join("\t".join(map(str, row)) + "\n" for row in change(tiny_interactions())))


def one_time(value):
    """The time of the third row replaced."""
    return rows(lambda rows: [(user, item, value if place == 2 else time) for place, (user, item, time) in enumerate(rows)])


def item(change):
    """The data set's `.item`, changed as bytes."""

    def spoil(data):
        path = data / "tiny.item"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def folder_for(name):
    def spoil(data):
        (data / name).unlink(missing_ok=True)
        (data / name).mkdir()

    return spoil


def own_yaml(text):
    """dataset.yaml beside the data."""
    return lambda data: (data / "dataset.yaml").write_text(text)


INTER = {
    "no .inter": (lambda data: (data / "tiny.inter").unlink(), "tiny.inter: missing"),
    "a folder for .inter": (folder_for("tiny.inter"), "tiny.inter: missing"),
    "empty .inter": (inter(""), "tiny.inter, line 1: found"),
    "a header alone": (inter(HEADER), "no interaction is left"),
    "no header": (inter("u1\ti1\t5\nu1\ti2\t6\n"), "tiny.inter, line 1: found .*write name:type"),
    "a header without types": (inter("user_id\titem_id\ttimestamp\nu\ti\t1\n"), "tiny.inter, line 1: found .*write name:type"),
    "an unknown type": (inter("user_id:token\titem_id:token\ttimestamp:float\tx:image\nu\ti\t1\t2\n"), "tiny.inter: .*Type image from field x"),
    "another separator": (inter(HEADER.replace("\t", ",") + "u,i,1\n"), "tiny.inter, line 1: found"),
    "no column of times": (inter("user_id:token\titem_id:token\nu\ti\n"), "tiny.inter: has no column timestamp .TIME_FIELD"),
    "times as words": (inter("user_id:token\titem_id:token\ttimestamp:token\nu\ti\t1\n"), "column timestamp is of type token"),
    "a column twice": (inter("user_id:token\tuser_id:token\titem_id:token\ttimestamp:float\nu\tu\ti\t1\n"), "tiny.inter, line 1: a column stands there twice"),
    "a byte-order mark": (inter("\ufeff" + HEADER + "u\ti\t1\n"), "tiny.inter: begins with a byte-order mark. Set --encoding=utf-8-sig"),
    "Latin-1": (inter("user_id:token\titem_id:token\ttimestamp:float\né\ti\t1\n".encode("latin-1")), "tiny.inter.*(UTF-8|utf-8)"),
    "UTF-16": (inter((HEADER + "u\ti\t1\n").encode("utf-16")), "tiny.inter: not (utf|UTF)-8"),
    "binary rubbish": (inter(bytes(range(256)) * 50), "tiny.inter"),
    "a pickle for .inter": (inter(pickled("nowhere")), "tiny.inter"),
    "ragged rows": (inter(HEADER + "u\ti\t1\nu\ti\t2\t3\t4\n"), "tiny.inter, line 3: 5 columns, but the header has 3"),
    "a word for a time": (one_time("soon"), "tiny.inter, line 4: 'soon' is no number"),
    "NaN for a time": (one_time("nan"), "tiny.inter, row 3: timestamp is nan"),
    "no time": (one_time(""), "tiny.inter, row 3: timestamp is nan"),
    "an infinite time": (one_time("-inf"), "tiny.inter, row 3: timestamp is -inf"),
    "a row without a user": (rows(lambda rows: [*rows, ("", "i1", 5)]), "tiny.inter, row .*: no user_id. 1 such rows"),
    "a row without an item": (rows(lambda rows: [rows[0], ("u1", "", 5), *rows]), "tiny.inter, row 2: no item_id"),
    "a user called null": (rows(lambda rows: [("null" if user == "u7" else user, item, time) for user, item, time in rows]), "tiny.inter, row .*: no user_id"),
    "rows joined by quotes": (
        rows(lambda rows: [(user, {20: '"i1', 23: 'i2"'}.get(place, item), time) for place, (user, item, time) in enumerate(rows)]),
        "tiny.inter, line 22: a cell begins with a quotation mark.* rows, of which RecBole reads",
    ),
    "one user": (rows(lambda rows: [("u", item, place) for place, (_, item, _) in enumerate(rows)][:3]), "items; take a smaller topk"),
    "all too short": (rows(lambda rows: [(f"u{place}", item, time) for place, (_, item, time) in enumerate(rows)]), "part is empty. Leave-one-out needs users"),
    "one item": (rows(lambda rows: [(user, "i", time) for user, _, time in rows]), "tiny has 1 items; take a smaller topk"),
    "a data set of ours that cannot code": (own_yaml(f"load_col: {yaml_call('nowhere')}\n"), "dataset.yaml: not valid YAML: could not determine a constructor"),
    "a data set that names code": (own_yaml("user_encoder: os.system\n"), "dataset.yaml, line 1: user_encoder: a data set may not set this"),
    "a data set that writes elsewhere": (own_yaml("output_dir: /tmp\n"), "dataset.yaml, line 1: output_dir: a data set may not set this"),
    "a data set that uploads": (own_yaml("log_wandb: True\n"), "dataset.yaml, line 1: log_wandb: a data set may not set this"),
    "a data set whose ID model uploads": (own_yaml("id_log_wandb: True\n"), "dataset.yaml, line 1: id_log_wandb: a data set may not set this"),
    "a data set whose ID model reads elsewhere": (own_yaml("id_data_path: /tmp\n"), "dataset.yaml, line 1: id_data_path: a data set may not set this"),
    "a data set with others' pictures": (own_yaml("item_image_dir: ../../home\n"), "dataset.yaml, line 1: item_image_dir=../../home: .*below its folder"),
    "a data set with a misspelt key": (own_yaml("\nitem_txt_fields: [title]\n"), "dataset.yaml, line 2: item_txt_fields: .* Did you mean item_text_fields"),
    "a folder for dataset.yaml": (own_yaml("- 1\n"), "dataset.yaml: found a list"),
}

ITEM = {
    "no .item": (lambda data: (data / "tiny.item").unlink(), "tiny.item: missing"),
    "empty .item": (item(lambda _: b""), "tiny.item: has no header"),
    "a header alone in .item": (item(lambda text: text.split(b"\n")[0] + b"\n"), "tiny.item: shares no item_id"),
    ".item without ids": (item(lambda text: text.replace(b"item_id:token", b"movie:token")), "tiny.item: no column item_id in its header"),
    ".item with commas": (item(lambda text: text.replace(b"\t", b",")), "tiny.item: no column item_id"),
    "ids of others": (item(lambda text: text.replace(b"\ni", b"\nx")), "tiny.item: shares no item_id with the interactions"),
    "ragged .item": (item(lambda text: text.replace(b"i7\t", b"i7\textra\t")), "tiny.item, line 9: 4 columns, but the header has 3"),
    ".item in Latin-1": (item(lambda text: text.replace(b"Title number 7", b"Ti\xe9tle")), "tiny.item: not UTF-8"),
    ".item of rubbish": (item(lambda _: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9), "tiny.item"),
    "a folder for .item": (folder_for("tiny.item"), "tiny.item"),
    "a column that is not there": (own_yaml("item_text_fields: [titel]\n"), "item_text_fields: .*tiny.item has no column titel. Did you mean title"),
    "no picture of any item": (lambda data: [path.rename(path.with_name("x" + path.name)) for path in (data / "images").iterdir()], "no file there is named"),
    "pictures that lie elsewhere": (
        lambda data: [(path.rename(data / path.name), path.symlink_to(data / path.name)) for path in sorted((data / "images").iterdir())],
        "images: no file there is named",
    ),
}

YAML = {
    "a tag that calls": (f"epochs: {yaml_call('nowhere')}\n", "mine.yaml: not valid YAML: could not determine a constructor for the tag"),
    "a tag that names": ("epochs: !!python/name:os.system\n", "mine.yaml: not valid YAML: could not determine a constructor for the tag"),
    "a list": ("- epochs\n", "mine.yaml: found a list"), "a word": ("epochs\n", "mine.yaml: found a str"),
    "a bracket left open": ("topk: [1,\n", "mine.yaml: not valid YAML"), "a tab": ("a:\n\tb: 1\n", "mine.yaml: not valid YAML"),
    "an unknown key": ("epoch: 3\n", "mine.yaml, line 1: epoch: unknown property for model SASRec. Did you mean epochs"),
    "a key that is a number": ("1: 2\n", "mine.yaml, line 1: 1: unknown property"),
    "a key that is nothing": ("~: 2\n", "mine.yaml, line 1: None: unknown property"),
    "a key that is a list": ("? [1]\n: 2\n", "mine.yaml: not valid YAML"), "a key twice": ("epochs: 1\nepochs: 2\n", "mine.yaml: .*epochs: given twice"),
    "anchors that explode": (yaml_bomb(), "mine.yaml: not valid YAML: more than 100,000 values"),
    "an anchor in itself": ("topk: &a [*a]\n", "mine.yaml: not valid YAML: more than 100,000 values"),
    "nested without end": ("topk: " + "[" * 20_000, "mine.yaml: not valid YAML: nested too deeply"),
    "a number of 5,000 digits": ("epochs: " + "9" * 5000 + "\n", "mine.yaml: not valid YAML: Exceeds the limit"),
    "a truth that is none": ("debug: !!bool perhaps\n", "mine.yaml: not valid YAML"), "a NUL": ("epochs: \0\n", "mine.yaml: not valid YAML"),
    "not UTF-8": (b"epochs: \xff\n", "mine.yaml: not valid YAML"), "a pickle": (pickled("nowhere"), "mine.yaml: not valid YAML"),
    "a wrong type": ("hidden_size: wide\n", "mine.yaml, line 1: hidden_size=wide: must be a whole number"),
    "out of range": ("# mine\n\nepochs: -3\n", "mine.yaml, line 3: epochs=-3: must be a whole number of at"),
}

LINE = {
    "unknown model": ({"model": "SASrec"}, "model=SASrec: no such sequential model. Did you mean SASRec"),
    "a model that is no model": ({"model": "os.system"}, "model=os.system: is no subclass"),
    "a model that cannot be imported": ({"model": "no.such.Model"}, "model=no.such.Model: cannot import it"),
    "a model that is an expression": ({"model": python_call("nowhere")}, "model=__import__.*cannot import it"),
    "a data set of 300 letters": ({"dataset": "x" * 300}, "dataset=xxx.*must be the name"),
    "a path of 300 letters": ({"data_path": "x" * 300}, "data_path=xxx.*folder"),
    "unknown data set": ({"dataset": "tyni"}, "tyni.inter: missing"),
    "a data set that is a path": ({"dataset": "../tiny"}, "dataset=../tiny: must be the name"),
    "a data set that is a list": ({"dataset": "[tiny]"}, "dataset=.*must be the name"),
    "a data path that is a list": ({"data_path": "[a]"}, "data_path=.*path of a"),
    "a misspelt key": ({"learning_rte": 1}, "--learning_rte: unknown property for model SASRec. Did you mean learning_rate"),
    "a key of another model": ({"num_layers": 1}, "--num_layers: unknown property for model SASRec"),
    "a negative size": ({"hidden_size": -8}, "--hidden_size=-8: must be a whole number of at least 1"),
    "a size of nothing": ({"hidden_size": 0}, "--hidden_size=0: must be a whole number of at least 1"),
    "heads that do not divide": ({"n_heads": 3}, "n_heads=3: must divide hidden_size=8. .n_heads: command line; hidden_size: command line"),
    "no heads": ({"n_heads": 0}, "--n_heads=0: must be a whole number of at least 1"),
    "a fraction of a layer": ({"n_layers": 1.5}, "--n_layers=1.5: must be a whole number"),
    "a dropout of two": ({"hidden_dropout_prob": 2}, "--hidden_dropout_prob=2: must be a number from 0 to 1"),
    "no metric": ({"metrics": "[]"}, r"metrics=\[\]: is empty"), "no k": ({"topk": "[]"}, r"topk=\[\]: is empty"),
    "a seed beyond all": ({"seed": 2**70}, "--seed=1180591620717411303424: must be a whole number from 0 to 4294967295"),
    "a seed that is a word": ({"seed": "lucky"}, "seed=lucky: must be a whole number"),
    "a number that is none": ({"learning_rate": ".nan"}, "--learning_rate=nan: must be a number"),
    "no number": ({"train_batch_size": "~"}, "train_batch_size=None"),
    "an empty separator": ({"field_separator": "''"}, "field_separator"),
    "an unknown encoding": ({"encoding": "klingon"}, "encoding=klingon: unknown to Python"),
    "columns that are a number": ({"load_col": 5}, "load_col=5: must be a dictionary"),
    "columns of .inter that are a number": ({"load_col": "{inter: 5}"}, "load_col"),
    "no field": ({"ITEM_ID_FIELD": "~"}, "ITEM_ID_FIELD=None: must be the name of a column"),
    "a field that is a list": ({"USER_ID_FIELD": "[a]"}, "--USER_ID_FIELD=.*must be the name of a column"),
    "a split that is none": ({"eval_args": "{split: 5}"}, "eval_args"),
    "an evaluation of nothing": ({"eval_args": "{modes: full}"}, "eval_args: 'modes': unknown. Valid: split"),
    "a mode for nothing": ({"eval_args": "{mode: {vlid: full}}"}, "eval_args.mode=.*must be full"),
    "an unknown split": ({"eval_args": "{split: {XX: 1}}"}, "eval_args|split|XX"),
    "an interval that is none": ({"user_inter_num_interval": "many"}, "interval"),
    "an interval that calls": ({"item_inter_num_interval": f"[{python_call('nowhere')},5]"}, "interval|could not convert"),
    "negatives that are none": ({"train_neg_sample_args": "{distribution: evil}"}, "train_neg_sample_args.distribution=evil: unknown. Valid: uniform"),
    "clipping of nothing": ({"clip_grad_norm": "{norm: 1}"}, "clip_grad_norm"),
    "a choice that is a list": ({"lr_schedule": "[cosine]"}, "lr_schedule=.*unknown"),
    "a pickled data set": ({"save_dataset": True}, "save_dataset=True: not offered"),
    "a path to a pickle": ({"dataset_save_path": "x.pth"}, "dataset_save_path=x.pth: not offered"),
    "pickled loaders": ({"dataloaders_save_path": "x.pth"}, "dataloaders_save_path=x.pth: not offered"),
    "a config file that is a folder": ({"config_files": "/tmp"}, "/tmp: cannot read this configuration file"),
    "a config file with a NUL": ({"config_files": "['a\0b']"}, "config_files"),
    "an output that is a file": ({"output_dir": "FILE"}, "output_dir"),
}

MOLAR_LINE = {
    "unknown encoder": ({"user_encoder": "DUE"}, "user_encoder=DUE: no such part. Did you mean DUEG"),
    "an encoder that is a list": ({"user_encoder": "[]"}, r"user_encoder=\[\]: no such part"),
    "an encoder that is a number": ({"user_encoder": "0.5"}, "user_encoder=0.5: cannot import it"),
    "an encoder that is a function": ({"user_encoder": "os.system"}, "user_encoder=os.system: is no subclass of .*UserEncoder"),
    "an encoder of nowhere": ({"user_encoder": "..x"}, "user_encoder=..x: cannot import it"),
    "a task that is a function": ({"mirm_finetune_tasks": "[os.system]"}, "mirm_finetune_tasks: os.system is no subclass of .*FinetuneTask"),
    "a task that is a number": ({"mirm_finetune_tasks": "[5]"}, "mirm_finetune_tasks: no task 5"),
    "no modality": ({"item_modalities": "[]"}, "item_modalities="), "a modality of none": ({"item_modalities": "[~]"}, "item_modalities="),
    "a size that is none": ({"mirm_image_size": "[0, 0]"}, "mirm_image_size"), "a size for a giant": ({"mirm_image_size": "[99999, 5]"}, "mirm_image_size"),
    "weights of nowhere": ({"mirm_weights": "nowhere"}, "mirm_weights=nowhere: no such file"),
    "a run of nowhere": ({"id_weights": "x"}, "id_weights=x: not the folder"),
    "a negative layer": ({"compact_num_layers": -1}, "compact_num_layers=-1: must be a whole number of at least 1"),
    "an ID model of 300 digits": ({"id_model": 10**300}, "id_model=1000.*no such sequential model"),
    "an ID model that is a path": ({"id_model": "../recipe/paper"}, "id_model=../recipe/paper: cannot import it"),
    "an ID model's own key": ({"id_hidden_sise": 8}, "--id_hidden_sise: unknown property for model Molar. Did you mean id_hidden_size"),
    "an ID model of a wrong size": ({"id_hidden_size": -8}, "--id_hidden_size=-8: must be a whole number"),
    "fields that are a number": ({"item_text_fields": "[5]"}, "--item_text_fields=.5.: must be a list of columns"),
}

WORDS = {
    "nothing": ([], "--model is missing"), "no data set": (["--model=SASRec"], "--dataset is missing"),
    "a stray word": (["SASRec"], "SASRec: expected --key=value"),
    "a key without a value": (["--model"], "--model: has no value"), "a key twice": (["--seed=1", "--seed=2"], "--seed: given twice"),
    "dashes alone": (["--", "x"], "--: expected --key=value"), "an open bracket": (["--topk=[1,"], "--topk=.*not valid YAML"),
    "a tag": (["--topk=!!python/name:os.system"], "--topk=.*not valid YAML .could not determine a constructor"),
    "anchors": (["--topk=[&a [1,1], *a, *b]"], "--topk=.*not valid YAML"), "an anchor in itself": (["--topk=&a [*a]"], "--topk=.*more than 100,000 values"),
    "brackets": (["--topk=" + "[" * 20_000], "--topk=.*nested too deeply"), "half a character": (["--model=\udcff"], "--model=.*not valid YAML"),
    "resume of nothing": (["--resume=nowhere"], "--resume=nowhere: holds no config.yaml"),
    "resume with more": (["--resume=nowhere", "--epochs=3"], "--resume: .*leave out --epochs"),
}


def assert_refused(tmp_path, capsys, words, message):
    before = listing(tmp_path)
    code = main(["run", *words])
    out, err = capsys.readouterr()
    assert_short_error(code, out, err, message)
    after = listing(tmp_path)
    empty = {"saved", "saved/tiny"}  # folders without anything in them
    assert {name: content for name, content in after.items() if name not in empty} == before and "result.json" not in out


@pytest.mark.parametrize("name", INTER)
def test_inter(make_data, flags, command_line, tmp_path, capsys, name):
    spoil, message = INTER[name]
    spoil(make_data() / "tiny")
    assert_refused(tmp_path, capsys, command_line(flags()), message)


@pytest.mark.parametrize("name", ITEM)
def test_item(make_data, flags, command_line, tmp_path, capsys, name):
    spoil, message = ITEM[name]
    spoil(make_data(items=True, images=True) / "tiny")
    assert_refused(tmp_path, capsys, command_line(flags(**MOLAR)), message)


@pytest.mark.parametrize("name", YAML)
def test_yaml(make_data, flags, command_line, tmp_path, capsys, name):
    content, message = YAML[name]
    make_data()
    (tmp_path / "mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    given = {key: value for key, value in flags(config_files=str(tmp_path / "mine.yaml")).items() if key not in ("epochs", "hidden_size", "topk")}
    assert_refused(tmp_path, capsys, command_line(given), message)


@pytest.mark.parametrize("name", LINE)
def test_command_line(make_data, flags, command_line, tmp_path, capsys, name):
    given, message = LINE[name]
    make_data()
    (tmp_path / "file").write_text("mine")
    given = {key: str(tmp_path / "file") if value == "FILE" else value for key, value in given.items()}
    assert_refused(tmp_path, capsys, command_line(flags(**given)), message)


@pytest.mark.parametrize("name", MOLAR_LINE)
def test_command_line_of_molar(make_data, flags, command_line, tmp_path, capsys, name):
    given, message = MOLAR_LINE[name]
    make_data(items=True)
    assert_refused(tmp_path, capsys, command_line(flags(**{**MOLAR, **given})), message)


@pytest.mark.parametrize("name", WORDS)
def test_words(tmp_path, capsys, name):
    words, message = WORDS[name]
    assert_refused(tmp_path, capsys, words, message)


# --------------------------------------------------------- handled and counted


def ids_of_any_kind(rows):
    odd = ["../../x", "a/b", "~", "x" * 10_000, "\u202eoo", "=cmd|' /C calc'!A0", "-rf", "%00"]
    return [(odd[int(user[1:]) % 8] + user, odd[int(item[1:]) % 8] + item, time) for user, item, time in rows]


COUNTED = {
    "ids of any kind": (rows(ids_of_any_kind), "40 users, 30 items"), "times before 1970": (rows(lambda rows: [(u, i, -t) for u, i, t in rows]), "40 users"),
    "rows twice": (rows(lambda rows: rows + rows), "40 users, 30 items"), "Windows line ends": (rows(), "40 users, 30 items"),
}


@pytest.mark.parametrize("name", COUNTED)
def test_handled_and_counted(make_data, flags, command_line, capsys, name):
    spoil, message = COUNTED[name]
    data = make_data() / "tiny"
    spoil(data)
    if name == "Windows line ends":
        (data / "tiny.inter").write_bytes((data / "tiny.inter").read_bytes().replace(b"\n", b"\r\n"))
    code = main(["run", *command_line(flags(epochs=0))])
    out, err = capsys.readouterr()
    assert code == 0 and re.search(message, out), (out, err)


def test_pictures_of_which_none_can_be_read(make_data, flags, command_line, tmp_path, capsys):
    for picture in (make_data(items=True, images=True) / "tiny" / "images").iterdir():
        picture.write_bytes(b"<html>")
    given = flags(**MOLAR, item_modalities="[image]", align_weight=0)
    assert_refused(tmp_path, capsys, command_line(given), r"tiny: no item has text or a picture that can be read")


def test_pictures_that_are_none_are_counted(make_data, flags, command_line, capsys, caplog):
    """Broken, cut off, a bomb, no picture, a pickle, a link that leads out: the run goes on and the log says how many."""
    from hostile_bytes import png

    data = make_data(items=True, images=True) / "tiny"
    images = data / "images"
    bad = {"i1": b"", "i2": b"<html>", "i3": (images / "i3.png").read_bytes()[:40], "i4": png(60_000, 60_000), "i5": pickled("nowhere"), "i6": png(10, 10)}
    for name, content in bad.items():
        (images / f"{name}.png").write_bytes(content)
    (data / "secret.png").write_bytes((images / "i7.png").read_bytes())
    (images / "i7.png").unlink()
    (images / "i7.png").symlink_to(data / "secret.png")
    code = main(["run", *command_line(flags(**MOLAR, align_weight=0, mirm_finetune_tasks="[]", epochs=0))])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "broken images: 6" in out and "without image: 1" in out, out
    assert "1 symbolic links lead out of the folder and are not followed" in caplog.text
