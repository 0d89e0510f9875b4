"""What came from somebody else cannot run code: pickles, YAML tags, expressions and modules of a stranger, in every place that is read."""

import ast
from pathlib import Path

import pytest
from hostile_bytes import all_run_code, numpy_pickled, pickled, python_call, torch_pickled, yaml_call
from raw_layouts import amazon, interactions, movielens, write_csv

from dataset_converters.__main__ import main as convert
from recbole_molar.__main__ import main
from recbole_molar.command_line import dump_yaml, properties_dir
from recbole_molar.config import CODE_KEYS, NOT_OF_A_DATA_SET, Config, refuse_foreign_code
from recbole_molar.property_schema import PICKLED

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted([*ROOT.glob("recbole_molar/**/*.py"), *ROOT.glob("dataset_converters/*.py"), ROOT / "run_recbole_molar.py", ROOT / "setup.py"])
UNSAFE_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pty"}
UNSAFE_CALLS = {
    "eval", "exec", "compile", "torch.load", "torch.save", "np.load", "numpy.load", "pd.read_pickle", "os.system", "os.popen", "subprocess.run",
    "subprocess.Popen", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "yaml.full_load_all",
}  # fmt: skip


def unsafe(source):
    """What in a source could run what it reads: (line, word)."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [(node.lineno, name) for name in names if name.split(".")[0] in UNSAFE_IMPORTS]
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            loader = next((ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg == "Loader"), "")
            without_pickle = name in ("np.load", "numpy.load") and "allow_pickle=False" in ast.unparse(node)
            this_program = name == "subprocess.run" and node.args and ast.unparse(node.args[0]).startswith("[sys.executable, '-m', 'recbole_molar'")
            if (name in UNSAFE_CALLS and not without_pickle and not this_program) or (name == "yaml.load" and loader != "yaml_loader()"):
                found.append((node.lineno, name))
            for keyword in node.keywords:
                value = ast.unparse(keyword.value)
                if (keyword.arg, value) in (("allow_pickle", "True"), ("weights_only", "False"), ("trust_remote_code", "True"), ("shell", "True")):
                    found.append((node.lineno, f"{keyword.arg}={value}"))
    return found


@pytest.mark.parametrize("source", [
    "import pickle", "from joblib import load", "np.load(f)", "subprocess.run([name])",
    "torch.load(f)", "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)", "eval('1')", "exec(x)",
    "yaml.load(f, Loader=yaml.Loader)", "yaml.load(f)", "A.from_pretrained(n, trust_remote_code=True)",
])  # fmt: skip
def test_the_search_finds_what_it_should(source):
    assert unsafe(source)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_source_runs_what_it_reads(file):
    assert unsafe(file.read_text(encoding="utf-8")) == []


def test_recboles_own_pickles_are_out_of_reach():
    """RecBole reads pickles in create_dataset, load_split_dataloaders, resume_checkpoint, evaluate and S3Rec: none of these is called here."""
    from recbole.trainer import Trainer

    from recbole_molar.trainer.sequential_trainer import SequentialTrainer

    for name in ("resume_checkpoint", "evaluate", "_save_checkpoint"):
        assert getattr(SequentialTrainer, name) is not getattr(Trainer, name)
    words = ("recbole.data.utils import create_dataset", "load_split_dataloaders", "recbole.quick_start", "load_data_and_model", "save_split_dataloaders")
    assert not [file for file in SOURCES for word in words if word in file.read_text(encoding="utf-8")]
    for key in PICKLED:
        with pytest.raises(ValueError, match=f"{key}=.*not offered"):
            Config(config_dict={"model": "SASRec", "dataset": "tiny", key: "x.pth"})


def test_the_means_work_where_they_are_obeyed(tmp_path):
    """Else the other tests here would show nothing."""
    assert all_run_code(tmp_path / "ran")


# ------------------------------------------------------------------ run files: see test_run_files.py, whose every row asserts that no code has run


@pytest.mark.parametrize("file", [
    "tiny.inter", "tiny.item", "dataset.yaml", "images/i1.png", "tiny.user", "tiny.pth", "SASRec-tiny.pth", "tiny-SequentialDataset.pth",
])  # fmt: skip
@pytest.mark.parametrize("make", [pickled, torch_pickled, numpy_pickled])
def test_pickles_in_a_data_set(make_data, flags, command_line, tmp_path, capsys, file, make):
    """Whether the run is refused or goes on without the file, the pickle is not read."""
    marker = tmp_path / "ran"
    data = make_data(items=True, images=True) / "tiny"
    (data / file).write_bytes(make(marker))
    code = main(["run", *command_line(flags(epochs=0))])
    assert code in (0, 2) and "Traceback" not in capsys.readouterr().err and not marker.exists()


@pytest.mark.parametrize("text", ["epochs: {}\n", "load_col: {{inter: [{}]}}\n", "? {}\n: 1\n", "<<: {}\n", "a: &a {}\nb: *a\n"])
def test_tags_in_yaml(make_data, flags, command_line, tmp_path, capsys, text):
    marker = tmp_path / "ran"
    data = make_data()
    for file, words in ((data / "tiny" / "dataset.yaml", []), (tmp_path / "mine.yaml", [f"--config_files={tmp_path / 'mine.yaml'}"])):
        file.write_text(text.format(yaml_call(marker)))
        assert main(["run", *command_line(flags()), *words]) == 2
        assert "not valid YAML" in capsys.readouterr().err and not marker.exists()
        file.unlink()


@pytest.mark.parametrize("make", [yaml_call, python_call])
@pytest.mark.parametrize("key", [
    "model", "dataset", "epochs", "topk", "eval_args", "user_inter_num_interval", "val_interval", "metrics", "load_col", "transform",
])  # fmt: skip
def test_expressions_on_the_command_line(make_data, flags, command_line, tmp_path, capsys, key, make):
    """RecBole itself hands these to `eval`."""
    marker = tmp_path / "ran"
    make_data()
    code = main(["run", *command_line(flags(**{key: make(marker)}))])
    assert code == 2 and "Traceback" not in capsys.readouterr().err and not marker.exists()


RAW = {
    "reviews": (lambda raw, marker: (raw / "Toys.jsonl"), "amazon", "2023"), "metadata": (lambda raw, marker: raw / "meta_Toys.jsonl", "amazon", "2023"),
    "ratings": (lambda raw, marker: raw / "ratings.csv", "movielens", "ml-25m"), "movies": (lambda raw, marker: raw / "movies.csv", "movielens", "ml-25m"),
}  # fmt: skip


@pytest.mark.parametrize("make", [pickled, torch_pickled, python_call, yaml_call])
@pytest.mark.parametrize("name", RAW)
def test_raw_files(tmp_path, capsys, name, make):
    place, converter, release = RAW[name]
    marker = tmp_path / "ran"
    raw = amazon(tmp_path / "raw", release) if converter == "amazon" else movielens(tmp_path, release)
    made = make(marker)
    place(raw, marker).write_bytes(made if isinstance(made, bytes) else f"{made}\n".encode())
    assert convert([converter, "--input-path", str(raw), "--output-path", str(tmp_path / "out"), "--dataset", "made"]) == 2
    assert not marker.exists() and not (tmp_path / "out").exists()


def test_a_dataframe_pickle_is_no_table(tmp_path, capsys):
    marker = tmp_path / "ran"
    for suffix in ("pkl", "pickle", "csv", "parquet", "jsonl"):
        (tmp_path / f"clicks.{suffix}").write_bytes(pickled(marker))
        assert convert(["tabular", "--input-path", str(tmp_path / f"clicks.{suffix}"), "--output-path", str(tmp_path / "out"), "--dataset", "made"]) == 2
    assert not marker.exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("data", ["%!PS-Adobe-3.0\n(x) (w) file\n", "<svg onload='x'/>", "push graphic-context\nfill 'url(https://x|touch y)'"])
def test_pictures_that_are_programs(tmp_path, data):
    """Pillow would start Ghostscript for EPS; only named formats are opened."""
    from dataset_converters.causes import Refused
    from dataset_converters.picture import decode
    from recbole_molar.data.image import decode_image

    with pytest.raises(Refused, match="not an image"):
        decode(data.encode(), (10, 10), 1000)
    (tmp_path / "x.png").write_text(data)
    assert decode_image(tmp_path / "x.png", (10, 10)) is None


# --------------------------------------------------------- whose word is taken


@pytest.fixture
def my_encoder(tmp_path, monkeypatch):
    """A module that makes a folder when it is imported."""
    (tmp_path / "my_parts.py").write_text(
        "import os\nos.mkdir(os.path.join(os.path.dirname(__file__), 'ran'))\nfrom recbole_molar.model.user_encoder.sasrec import SASRec as Mine\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "ran"
    import sys

    sys.modules.pop("my_parts", None)


def test_my_own_word_imports(my_encoder, tmp_path):
    """The command line and the user's own configuration files may name code."""
    (tmp_path / "mine.yaml").write_text("user_encoder: my_parts.Mine\n")
    Config(config_file_list=[tmp_path / "mine.yaml"], config_dict={"model": "Molar", "dataset": "tiny"})
    assert my_encoder.exists()


@pytest.mark.parametrize("key", CODE_KEYS)
def test_a_data_sets_word_does_not(my_encoder, tmp_path, key):
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "dataset.yaml").write_text(f"{key}: my_parts.Mine\n")
    with pytest.raises(ValueError, match=f"dataset.yaml, line 1: {key}: a data set may not set this"):
        Config(config_dict={"model": "Molar", "dataset": "tiny", "data_path": str(tmp_path)})
    assert not my_encoder.exists()


@pytest.mark.parametrize("key", CODE_KEYS)
def test_a_run_folders_word_does_unless_repeated(tmp_path, key):
    file = tmp_path / "config.yaml"
    for value in ("my_parts.Mine", ["image_text", "my_parts.Mine"], {"SASRec": {"rate": 0.5}, "my_parts.Mine": None}):
        file.write_text(dump_yaml({key: value}))
        for typed in ({}, {key: "other.Mine"}, {"debug": True}):
            with pytest.raises(ValueError, match=f"{key}=my_parts.Mine is code outside recbole_molar.*add --{key}="):
                refuse_foreign_code(file, typed)
        refuse_foreign_code(file, {key: value})
    file.write_text(f"{key}: SASRec\n")
    refuse_foreign_code(file, {})


def test_resume_with_the_word_repeated(make_data, flags, command_line, tmp_path, capsys, monkeypatch):
    (tmp_path / "my_models.py").write_text("from recbole.model.sequential_recommender.sasrec import SASRec\nclass Mine(SASRec):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    make_data()
    assert main(["run", *command_line(flags(model="my_models.Mine", loss_type="CE", n_layers=1, n_heads=2, hidden_size=8, inner_size=8,
                                         hidden_dropout_prob=0.1, attn_dropout_prob=0.1, hidden_act="gelu",
                                         layer_norm_eps=1e-12, initializer_range=0.02))]) == 0  # fmt: skip
    folder = Path(capsys.readouterr().out.strip().splitlines()[-1]).parent
    for words, code in (([], 2), (["--model=my_models.Mine"], 0), (["--model=SASRec"], 2)):
        assert main(["run", f"--resume={folder}", *words]) == code, words
    assert "model=my_models.Mine" in capsys.readouterr().err


def test_what_a_data_set_may_not_set_is_complete():
    """Each property that names code, a file or a service is either refused in a data set's own YAML or named here as harmless."""
    import re

    harmless = {
        "item_image_dir", "mirm_encode_batch_size", "item_encoding", "encoding", "require_pow", "item_text_fields", "compact_num_kv_heads", "seq_len",
    }  # item_image_dir is checked by itself
    known = Config(config_dict={"model": "Molar", "dataset": "tiny"}).known_keys
    names = re.compile(r"path|dir|file|weights|backbone|model$|encoder|tasks|wandb|save|resume|checkpoint_|dataset$|preload|suffix")
    found = {key for key in map(str, known) if names.search(key)} - harmless - set(PICKLED)
    assert found <= NOT_OF_A_DATA_SET, found - NOT_OF_A_DATA_SET
    assert (properties_dir() / "overall.yaml").is_file()


def test_written_interactions_are_plain(tmp_path):
    """Ids that would be formulas, tags or expressions elsewhere stay text."""
    rows = [(python_call("x") if place == 0 else user, item, time, rating) for place, (user, item, rating, time) in enumerate(interactions())]
    write_csv(tmp_path / "clicks.csv", ["user_id", "item_id", "timestamp", "rating"], rows)
    assert convert(["tabular", "--input-path", str(tmp_path / "clicks.csv"), "--output-path", str(tmp_path / "out"), "--dataset", "made"]) == 0
    with open(tmp_path / "out" / "made" / "made.inter", encoding="utf-8") as file:
        assert "__import__" in file.read() and not Path("x").exists()
