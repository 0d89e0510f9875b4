"""A saved backbone by the whole command, twice: both ways of encoding items, the second run from the cache of the first."""

import pytest
import tiny_backbones
from safetensors import safe_open
from test_main import result_of
from toy_items import toy_content

from recbole_molar.__main__ import main

GIVEN = {
    "model": "Molar", "mirm_tuning": "lora", "mirm_finetune_samples": 30, "mirm_image_size": "[28, 28]", "mirm_max_tokens": 40, "align_weight": 0,
    "end_to_end_items": 6, "gradient_checkpointing": True,
}  # fmt: skip


@pytest.mark.parametrize("encoding", ["cached", "end_to_end"])
def test_a_run_with_a_saved_backbone(make_data, flags, command_line, capsys, tmp_path, encoding):
    make_data(items=True, images=True)
    for name in ("toy", "backbone"):
        (tmp_path / name).mkdir()
    tiny_backbones.save_internvl(tmp_path / "backbone", toy_content(tmp_path / "toy"))
    words = command_line(flags(**GIVEN, mirm_backbone=tmp_path / "backbone", item_encoding=encoding))
    results = []
    for _ in range(2):
        code = main(["run", *words])
        out, err = capsys.readouterr()
        assert code == 0, err
        results.append(result_of(out))
    (first, folder), (second, again) = results
    assert first["test_result"] == second["test_result"] and second["stage_1"]["reused"] and "0 computed, 30 reused" in (again / "train.log").read_text()
    with safe_open(folder / "best.safetensors", "pt") as file:
        of_mirm = [name for name in file.keys() if name.startswith("model.mirm.")]
    assert bool(of_mirm) is (encoding == "end_to_end") and all("lora_" in name or "trainable_tokens" in name for name in of_mirm)


@pytest.mark.parametrize("name", ["qwen2_vl", "internvl", "mllama", "text_llama", "text_gemma3"])
def test_hllm_with_a_saved_backbone(make_data, flags, command_line, capsys, tmp_path, name):
    make_data(items=True, images=True)
    for folder in ("toy", "backbone"):
        (tmp_path / folder).mkdir()
    getattr(tiny_backbones, f"save_{name}")(tmp_path / "backbone", toy_content(tmp_path / "toy"))
    given = {key: value for key, value in GIVEN.items() if key not in ("model", "mirm_finetune_samples", "mirm_image_size", "align_weight")}
    assert main(["run", *command_line(flags(model="HLLM", **given, mirm_backbone=tmp_path / "backbone"))]) == 0
    result, folder = result_of(capsys.readouterr().out)
    assert "never trained" not in (folder / "train.log").read_text()
    with safe_open(folder / "best.safetensors", "pt") as file:
        kept = [name for name in file.keys() if name.startswith("model.mirm.")]
    assert result["epochs_run"] == 1 and kept and all("lora_" in name or "trainable_tokens" in name for name in kept)


@pytest.mark.parametrize("readout, said", [("cur_item", True), ("mean", False)])
def test_a_frozen_item_llm_is_not_read_at_an_untrained_token_in_silence(make_data, flags, command_line, capsys, tmp_path, readout, said):
    make_data(items=True)
    for folder in ("toy", "backbone"):
        (tmp_path / folder).mkdir()
    tiny_backbones.save_text_llama(tmp_path / "backbone", toy_content(tmp_path / "toy"))
    given = {"model": "HLLM", "mirm_backbone": tmp_path / "backbone", "item_encoding": "cached", "mirm_readout": readout, "mirm_max_tokens": 40}
    assert main(["run", *command_line(flags(**given))]) == 0
    folder = result_of(capsys.readouterr().out)[1]
    assert ("read at a token that was never trained" in (folder / "train.log").read_text()) is said


@pytest.mark.parametrize("given", [
    {**GIVEN, "item_modalities": "[text]", "item_encoding": "end_to_end"}, {"model": "CoLLM", "mirm_tuning": "lora", "tuning_epochs": 1, "mirm_max_tokens": 40},
], ids=["Molar", "CoLLM"])  # fmt: skip
def test_a_language_model(make_data, flags, command_line, capsys, tmp_path, given):
    make_data(items=True, images=True)
    for folder in ("toy", "backbone"):
        (tmp_path / folder).mkdir()
    tiny_backbones.save_text_qwen3(tmp_path / "backbone", toy_content(tmp_path / "toy"))
    words = command_line(flags(**given, mirm_backbone=tmp_path / "backbone"))
    assert main(["run", *words]) == 0
    assert result_of(capsys.readouterr().out)[0]["epochs_run"] == 1
    if given["model"] == "Molar":
        words = [word for word in words if not word.startswith("--item_modalities")]
        assert main(["run", *words]) == 2
        assert "Set item_modalities=[text]" in capsys.readouterr().err


@pytest.mark.parametrize("given, message", [
    ({"dueg_user_token": "last", "MAX_ITEM_LIST_LENGTH": 16}, "dueg_user_token=last: reads all prefixes in one pass, where the window of 16 tokens"),
    ({"user_encoder": "SASRec", "user_encoder_heads": 5}, "user_encoder_heads=5: must divide the embedding size of mirm_backbone="),
], ids=["window", "heads"])  # fmt: skip
def test_what_a_published_decoder_cannot_do_is_said_before_any_stage(make_data, flags, command_line, capsys, tmp_path, given, message):
    make_data(items=True)
    for folder in ("toy", "backbone"):
        (tmp_path / folder).mkdir()
    tiny_backbones.save_text_gemma3(tmp_path / "backbone", toy_content(tmp_path / "toy"))
    words = command_line(flags(**{"model": "Molar", "item_modalities": "[text]", "mirm_backbone": tmp_path / "backbone", **given}))
    assert main(["run", *words]) == 2
    out, err = capsys.readouterr()
    assert message in err and "==" not in out
