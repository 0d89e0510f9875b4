"""The command: exit codes, what it prints, what it leaves behind, and hostile text on the page."""

import json
from pathlib import Path

import pytest
from PIL import Image

from recbole_molar.__main__ import main

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


def test_molar_on_data_with_defects(make_data, flags, doctor, tmp_path):
    data_path = make_data(items=True, images=True)
    items, images = data_path / "tiny" / "tiny.item", data_path / "tiny" / "images"
    lines = items.read_text().splitlines()
    lines[1] = "i0\t<script>alert(1)</script> & more\tgenre0"
    items.write_text("\n".join([*lines[:-1], lines[1]]) + "\n")  # i29 has no row, i0 has two
    (images / "i1.png").unlink()
    (images / "i2.png").write_bytes(b"no picture")
    Image.new("RGB", (16, 16), (1, 2, 3)).save(images / "i999.png")
    code, out, err, report = doctor(flags(**SMALL))
    assert code == 0 and err == "" and report["error"] is None
    assert report["ids"]["without_row"] == {"count": 1, "examples": ["i29"]} and report["ids"]["repeated"]["examples"] == ["i0"]
    assert report["ids"]["picture_of_no_item"]["examples"] == ["i999"]
    assert report["images"]["missing"] == 1 and report["images"]["broken"]["examples"] == ["i2"] and report["images"]["tiny"]["count"] == 28
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


def test_unknown_command_lists_what_there_is(capsys):
    assert main(["docter"]) == 2 and "run, doctor" in capsys.readouterr().err
