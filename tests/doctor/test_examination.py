"""The command: exit codes, what it prints, what it leaves behind, and hostile text on the page."""

import json
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from toy_items import TINY, toy_content

from recbole_molar.__main__ import main
from recbole_molar.model.mirm import MIRM

SMALL = {
    "model": "Molar", "mirm_finetune_samples": 40, "mirm_image_size": [28, 28], "compact_hidden_size": 32, "compact_num_layers": 2,
    "compact_intermediate_size": 48, "compact_vision_size": 16, "compact_vision_layers": 1, "compact_vocab_size": 300, "id_hidden_size": 16,
    "id_inner_size": 16, "id_epochs": 1, "mirm_max_tokens": 40, "eval_batch_size": 8,
}


@pytest.fixture
def doctor(capsys, command_line):
    """Function: properties -> (exit code, standard output, standard error, report or None)."""

    def call(given):
        code = main(["doctor", *command_line(given)])
        out, err = capsys.readouterr()
        last = Path(out.strip().splitlines()[-1]) if out.strip() else Path("none")
        return code, out, err, json.loads(last.read_text()) if last.name == "report.json" else None

    return call


def test_nothing_is_uploaded(make_data, flags, doctor):
    """Wandb, which is not installed here, is not asked for: the doctor's trainings are no run."""
    make_data()
    code, _, err, report = doctor(flags(model="SASRec", log_wandb=True))
    assert code == 0 and err == "" and report["error"] is None


def test_molar_on_data_with_defects(make_data, flags, doctor, tmp_path):
    data_path = make_data(items=True, images=True)
    items, images = data_path / "tiny" / "tiny.item", data_path / "tiny" / "images"
    lines = items.read_text().splitlines()
    lines[1] = "i0\t<script>alert(1)</script> & more\tgenre0"
    items.write_text("\n".join([*lines[:-1], lines[1]]) + "\n")  # i29 has no row, i0 has two
    (images / "i1.png").unlink()
    (images / "i2.png").write_bytes(b"no picture")
    (images / "i3.png").write_bytes(b"")
    (images / "i4.png").write_bytes(_bomb())
    Image.new("RGB", (16, 16), (1, 2, 3)).save(images / "i999.png")
    code, out, err, report = doctor(flags(**SMALL))
    assert code == 0 and err == "" and report["error"] is None
    assert report["ids"]["without_row"] == {"count": 1, "examples": ["i29"]} and report["ids"]["repeated"]["examples"] == ["i0"]
    assert report["ids"]["picture_of_no_item"]["examples"] == ["i999"]
    assert report["images"]["missing"] == 1 and report["images"]["broken"]["examples"] == ["i2", "i3", "i4"] and report["images"]["tiny"]["count"] == 26
    assert report["text"]["tokens"]["cut"] > 0 and report["text"]["without_text"] == 1
    assert list(report["estimate"]["stages"]) == ["id_model", "mirm_finetune", "item_embedding", "Molar", "test"]
    assert all(stage["seconds"] >= 0 and stage["peak_gib"] > 0 for stage in report["estimate"]["stages"].values())  # rounded to 0.1 s
    assert report["estimate"]["parameters"] > 0
    assert "have no row in tiny.item (i29)" in report["problems"][0] and f"warning: {report['problems'][0]}" in out
    page = Path(report["page"]).read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page and "data:image/png;base64," in page
    assert "http" not in page.replace("http-equiv", "")
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["tiny"]  # no cache, and no run
    folders = list((tmp_path / "saved" / "tiny").iterdir())
    assert len(folders) == 1 and {path.name for path in folders[0].iterdir()} == {"report.json", "items.html"}


def test_a_baseline_needs_no_items(make_data, flags, doctor):
    make_data()
    code, out, _, report = doctor(flags())
    assert code == 0 and "text" not in report and list(report["estimate"]["stages"]) == ["SASRec", "test"]


def test_the_error_is_that_of_a_run(make_data, flags, doctor, command_line, capsys):
    make_data()
    given = flags(**SMALL)
    code, out, err, report = doctor(given)
    assert main(["run", *command_line(given)]) == 2
    assert code == 2 and err == capsys.readouterr().err and "tiny.item: missing" in err and report["error"] in err
    assert report["data"]["after_filter"]["users"] == 40 and "A run would stop:" in out


BAD_DATA = {  # what is done to the folder of the data set, and what the error says
    "no interactions": (lambda folder: (folder / "tiny.inter").unlink(), "tiny.inter: missing"),
    "no column of times": (lambda folder: _rewrite(folder / "tiny.inter", "timestamp:float", "when:float"), "has no column timestamp"),
    "no header": (lambda folder: _rewrite(folder / "tiny.inter", "user_id:token\titem_id:token", "user\titem"), "write name:type"),
    "one interaction each": (lambda folder: (folder / "tiny.inter").write_text(HEADER + ONE_EACH), "too few interactions"),
    "nothing but a header": (lambda folder: (folder / "tiny.inter").write_text(HEADER), "tiny"),
    "no texts": (lambda folder: (folder / "tiny.item").unlink(), "tiny.item: missing"),
    "other ids": (lambda folder: _rewrite(folder / "tiny.item", "\ni", "\nitem-"), "shares no item_id with the interactions"),
    "no picture of an item": (lambda folder: [path.rename(folder / "images" / f"p{path.name}") for path in (folder / "images").iterdir()], "no file there"),
}
HEADER, ONE_EACH = "user_id:token\titem_id:token\ttimestamp:float\n", "".join(f"u{number}\ti{number}\t{number}\n" for number in range(20))


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_ends_with_the_error_and_a_report(make_data, flags, doctor, case):
    spoil, expected = BAD_DATA[case]
    spoil(make_data(items=True, images=True) / "tiny")
    code, out, err, report = doctor(flags(**SMALL))
    assert code == 2 and expected in err and report["error"] in err and report["exit_code"] == 2 and "A run would stop:" in out


def test_one_user_without_pictures_is_enough(make_data, flags, doctor):
    data_path = make_data(rows=[("u", f"i{number}", number) for number in range(12)], items=True)
    code, out, _, report = doctor(flags(**SMALL, item_text_fields=["title"], align_weight=0, mirm_finetune_tasks=[]))
    assert code == 0 and report["data"]["after_filter"] == {"users": 1, "items": 12, "interactions": 12} and data_path.is_dir()
    assert any("no such folder" in text for text in report["problems"])
    stages = report["estimate"]["stages"]
    assert "align_weight=0" in stages["id_model"]["about"] and stages["mirm_finetune"]["about"] == "left out: mirm_finetune_tasks=[]"


def test_what_a_run_would_reuse_costs_nothing(make_data, flags, doctor, command_line, capsys):
    make_data(items=True)
    small = flags(**SMALL, align_weight=0.1)
    assert main(["run", *command_line(small)]) == 0
    finished = Path(capsys.readouterr().out.strip().splitlines()[-1]).parent
    code, out, _, report = doctor(small)
    stages = report["estimate"]["stages"]
    assert code == 0 and all("reused" in stages[name]["about"] for name in ("id_model", "mirm_finetune", "item_embedding"))
    assert report["estimate"]["total_seconds"] == pytest.approx(stages["Molar"]["seconds"] + stages["test"]["seconds"], abs=0.2)
    code, out, _, report = doctor({"run": finished})  # the comparison is with a run that found nothing
    assert code == 0 and not any("skipped" in stage for stage in report["estimate"]["stages"].values())
    assert main(["run", *command_line(flags())]) == 0
    baseline = Path(capsys.readouterr().out.strip().splitlines()[-1]).parent
    given = {**small, "mirm_weights": finished, "id_weights": baseline, "mirm_encode_batch_size": 7, "output_dir": finished.parent.parent / "other"}
    code, out, _, report = doctor(given)
    stages = report["estimate"]["stages"]
    assert code == 0 and stages["id_model"]["about"] == f"reused: id_weights={baseline}" and "mirm_weights" in stages["mirm_finetune"]["about"]
    assert stages["item_embedding"]["about"].endswith("items through MIRM")


def _rewrite(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def _bomb():
    """A PNG of a few hundred bytes that says it is 60,000 pixels wide and high."""
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(9))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts)


def test_bad_flags_write_nothing(make_data, flags, doctor, tmp_path):
    make_data()
    code, out, err, _ = doctor(flags(learning_rte=0.5))
    assert code == 2 and "learning_rate" in err and not (tmp_path / "saved").exists()
    code, _, err, _ = doctor({"run": str(tmp_path)})
    assert code == 2 and "holds no config.yaml" in err


def test_a_finished_run_beside_its_estimate(make_data, flags, doctor, command_line, capsys, tmp_path):
    make_data()
    assert main(["run", *command_line(flags())]) == 0
    folder = Path(capsys.readouterr().out.strip().splitlines()[-1]).parent
    code, out, _, report = doctor({"run": folder, "output_dir": tmp_path / "elsewhere"})
    assert code == 0 and "Estimated and measured" in out and (tmp_path / "elsewhere" / "tiny").is_dir()
    assert report["comparison"]["same_model"] and report["comparison"]["stages"]["SASRec"]["note"] == "epochs: 1"


def test_a_backbone_that_is_not_here_is_not_fetched(make_data, flags, doctor):
    make_data(items=True)
    code, out, _, report = doctor(flags(**SMALL, mirm_backbone="nobody/nothing-at-all"))
    assert code == 0 and "not on this machine" in out and "estimate" not in report and report["text"]["fields"]["title"]["filled"] == 1.0


def test_a_backbone_in_a_folder_is_loaded_and_timed(make_data, flags, doctor, tmp_path):
    make_data(items=True, images=True)
    made = MIRM.build(toy_content(tmp_path / "toy"), backbone_options=TINY, image_size=(28, 28)).backbone
    for part in (made.plain, made.processor):
        part.save_pretrained(tmp_path / "qwen2_vl")
    code, _, _, report = doctor(flags(**SMALL, mirm_backbone=tmp_path / "qwen2_vl", mirm_tuning="lora", align_weight=0))
    assert code == 0 and report["text"]["tokens"]["longest"] > 0
    assert [name for name, stage in report["estimate"]["stages"].items() if stage["peak_gib"]] == ["mirm_finetune", "item_embedding", "Molar", "test"]


def test_unknown_command_lists_what_there_is(capsys):
    assert main(["docter"]) == 2 and "run, doctor" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["evaluation", "training"])
def test_what_does_not_fit_is_told(make_data, flags, doctor, monkeypatch, what):
    """Not an error of the doctor's own, where its help is wanted most."""
    from recbole_molar.doctor import estimate
    from recbole_molar.doctor.rehearsal import DoesNotFit

    def fails(*_):
        raise DoesNotFit("out of memory")

    make_data()
    monkeypatch.setattr(*((estimate.Estimate, "_evaluation", fails) if what == "evaluation" else (estimate, "seconds_per_batch", fails)))
    code, out, err = doctor(flags())[:3]
    assert "does not fit" in out and "out of memory" in out and "unexpected" not in err, (code, out, err)
