"""One comparison of three tiny models with hostile titles, and its report, made once for all tests here."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from tiny_data import tiny_interactions, write_inter, write_items

from recbole_molar.__main__ import main

EVIL = "<script>document.documentElement.dataset.hacked='yes'</script>"
ESCAPING = ('"><img src=x onerror=alert(1)>', "</script><b>evil</b>", "{{ 7*7 }}", "<!--", "&amp; ' \" `")
SMALL = {
    "mirm_finetune_samples": 30, "mirm_image_size": [28, 28], "compact_hidden_size": 32, "compact_num_layers": 2, "compact_intermediate_size": 48,
    "compact_vision_size": 16, "compact_vision_layers": 1, "compact_vocab_size": 400, "id_hidden_size": 16, "id_inner_size": 16, "id_epochs": 1,
    "mirm_max_tokens": 40,
}  # fmt: skip


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """SimpleNamespace: `found` (dict), `folder` (Path), `page` (text of report.html), `out` (what was printed)."""
    import contextlib
    import io

    base = tmp_path_factory.mktemp("compared")
    data = base / "data" / "tiny"
    write_inter(data, tiny_interactions(n_users=60))
    write_items(data, 30, images=True)
    lines = (data / "tiny.item").read_text().splitlines()
    for place, title in enumerate((EVIL, *ESCAPING), start=1):
        cells = lines[place].split("\t")
        lines[place] = "\t".join([cells[0], title, cells[2]])
        (data / "images" / f"{cells[0]}.png").unlink()  # so that the title is what is shown
    (data / "tiny.item").write_text("\n".join(lines) + "\n")
    (data / "images" / "i20.png").write_bytes(b"no picture")
    molar = {"model": "Molar", **SMALL}
    fused = {**molar, "align_weight": 0, "score_fusion_weight": 1}  # it has an ID model, of another size, and is not aligned with it
    models = {"Molar <i>": molar, "w/o CL": fused, "SASRec": {"model": "SASRec", "hidden_size": 16, "inner_size": 16}}
    words = {
        "models": json.dumps(models), "dataset": "tiny", "data_path": base / "data", "output_dir": base / "saved", "use_cpu": True, "epochs": 2, "seeds": 1,
        "topk": "[5, 10]", "MAX_ITEM_LIST_LENGTH": 6, "train_batch_size": 64, "show_progress": False, "precision": "fp32",
    }  # fmt: skip
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["compare", *(f"--{key}={value}" for key, value in words.items())]) == 0, out.getvalue()
    folder = Path(out.getvalue().strip().splitlines()[-1])
    found = json.loads((folder / "comparison.json").read_text())
    return SimpleNamespace(found=found, folder=folder, page=(folder / "report.html").read_text(encoding="utf-8"), out=out.getvalue())
