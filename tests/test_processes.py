"""Two processes do what one does with the same batches; they end together where one fails. Dropout is off where results are compared."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate.utils import DistributedType
from safetensors import safe_open
from several_processes import Toy
from test_molar_runs import SMALL
from tiny_data import tiny_interactions, write_inter, write_items

from recbole_molar import device, sharding
from recbole_molar.__main__ import main

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
SASREC = {"model": "SASRec", "hidden_size": 8, "inner_size": 16, "n_layers": 1, "n_heads": 2, "train_batch_size": 64}
# 63 rows in batches of 31, and 29 samples of each task in batches of 7: the last batch is one row, of which one process has none.
MOLAR = {**SMALL, "item_dropout": 0.0, "dueg_dropout": 0.0, "id_hidden_dropout_prob": 0.0, "id_attn_dropout_prob": 0.0, "train_batch_size": 31,
         "mirm_finetune_batch_size": 7}  # fmt: skip
HLLM = {"model": "HLLM", **{key: value for key, value in SMALL.items() if key.startswith("compact_")}, "mirm_max_tokens": 40, "nce_negatives": 8}
COLLM = {**HLLM, "model": "CoLLM", "prompt_items": 6, "prompt_title_tokens": 20, "mapping_size": 16, "tuning_epochs": 1, "end_to_end_items": 30,
         **{key: value for key, value in MOLAR.items() if key.startswith("id_")}}  # fmt: skip
RUNS = {
    "SASRec": {**SASREC, **NO_DROPOUT},
    "accumulation": {**SASREC, **NO_DROPOUT, "train_all_positions": False, "gradient_accumulation_steps": 2, "clip_grad_norm": "{max_norm: 0.5}"},
    "BERT4Rec": {**SASREC, **NO_DROPOUT, "model": "BERT4Rec"},  # as many targets as are hidden
    "DuoRec": {**SASREC, **NO_DROPOUT, "model": "DuoRec", "contrast": "un", "contrast_rows": 1000},  # all positions: no draw
    "Molar": {**MOLAR, "distill_weight": 0.5, "score_fusion_weight": 1},
    "HLLM": {**HLLM, "item_encoding": "end_to_end", "end_to_end_items": 30},
    "CoLLM": COLLM,  # windows of whole histories: no draw
    "end to end": {**MOLAR, "item_encoding": "end_to_end", "end_to_end_items": 12, "id_training": "joint", "rec_loss": "nce"},
}

# MIRM in shards: who asks for them, and where a run is cut, to be resumed
SHARDED = {"end to end": ("FSDP", {"cut_stage_1": 7}), "HLLM": ("DEEPSPEED", {"cut": 1}), "CoLLM": ("FSDP", {})}


def words(folder, **given):
    """Command line of a short run on the tiny data, with its own output folder."""
    base = {
        "dataset": "tiny", "data_path": folder / "data", "output_dir": folder / "saved", "use_cpu": True, "epochs": 2, "MAX_ITEM_LIST_LENGTH": 6,
        "topk": "[5, 10]", "show_progress": False, "precision": "fp32", "eval_batch_size": 5,
    }  # fmt: skip
    return [f"--{key}={value}" for key, value in {**base, **given}.items()]


def launch(jobs, folder, n=2):
    """Do jobs in `n` processes: (exit code, output, errors)."""
    file = folder / "jobs.json"
    file.write_text(json.dumps(jobs, default=str))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}", Path(__file__).parent / "several_processes.py", file]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])})  # fmt: skip
    try:
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder with the tiny data set in `data/`."""
    folder = tmp_path_factory.mktemp("several")
    write_inter(folder / "data" / "tiny", tiny_interactions())
    write_items(folder / "data" / "tiny", 30, images=True)
    return folder


@pytest.fixture(scope="module")
def both(data):
    """All RUNS by one process, in `one/`, and by two, in `two/`; these do one more, whole, and cut and resumed, and a bad one: their output, errors."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in `launch`: another number adds up in another order, which stage 1 makes larger
    for name, given in RUNS.items():
        assert main(["run", *words(data, **given, output_dir=data / "one" / name)]) == 0
    torch.set_num_threads(n_threads)
    jobs = [{"words": words(data, **given, output_dir=data / "two" / name)} for name, given in RUNS.items()]
    jobs += [{"words": words(data, **SASREC, dataset="nowhere"), "code": 2}, {"gathered": data / "gathered"}]
    jobs += [{"words": words(data, **SASREC, epochs=3, output_dir=data / "whole")}]
    jobs += [{"words": words(data, **SASREC, epochs=3, output_dir=data / "cut"), "cut": 2, "code": 130}, {"resume": data / "cut"}]
    jobs += [{"stepped": data / "stepped"}]
    for name, (plugin, cut) in SHARDED.items():
        folder = data / "sharded" / name
        jobs += [{"words": words(data, **RUNS[name], output_dir=folder), "sharded": plugin, "code": 130 if cut else 0, **cut}]
        jobs += [{"resume": folder, "sharded": plugin}] if cut else []
    code, out, err = launch(jobs, data)
    assert code == 0, err
    return out, err


def found(folder):
    """The result of the one run below a folder, its curve, and the curves of what it trained before, without times."""
    (result,) = folder.glob("tiny/*/result.json")
    curves = [*folder.glob("tiny/*/curve.json"), *folder.glob("cache/*/*/curve.json")]
    curves = [[{key: value for key, value in entry.items() if not key.endswith("_seconds")} for entry in json.loads(file.read_text())] for file in curves]
    return json.loads(result.read_text()), curves, result.parent


@pytest.mark.parametrize("two, name", [*(("two", name) for name in RUNS), *(("sharded", name) for name in SHARDED)])
def test_two_processes_learn_what_one_does(both, data, two, name):
    (one, one_curves, _), (two, two_curves, folder) = (found(data / n / name) for n in ("one", two))
    assert (one["machine"]["processes"], two["machine"]["processes"]) == (1, 2) and len(one_curves) == len(two_curves)
    for ours, theirs in zip(sum(one_curves, []), sum(two_curves, []), strict=True):
        parts = {key: value for key, value in ours.items() if key not in ("valid", "best")}
        # Adam makes large what rounding leaves of a gradient of nearly zero; stage 1 is full of them: any other order of sums moves this loss by .001.
        assert {key: theirs[key] for key in parts} == pytest.approx(parts, rel=3e-3 if "mirm_finetune_samples" in RUNS[name] else 1e-5)
        assert theirs["valid"] == pytest.approx(ours["valid"], abs=0.03)  # rounding may move one user's target by a place
    assert two["test_result"] == pytest.approx(one["test_result"], abs=0.03)
    assert "processes that share each batch" in (folder / "train.log").read_text()


@pytest.mark.parametrize("name", RUNS)
def test_each_user_is_ranked_once(both, data, name):
    users = []
    for n in ("one", "two"):
        with np.load(found(data / n / name)[2] / "ranks.npz") as ranks:
            users.append(ranks["user"].tolist())
            assert len(ranks["top"]) == len(ranks["user"])
    assert users[0] == users[1] and len(set(users[0])) == len(users[0])


def test_stage_1_learns_the_same(both, data):
    one, two = (found(data / n / "Molar")[0]["stage_1"]["tasks"] for n in ("one", "two"))
    assert one.keys() == two.keys() and len(one) == 3
    for task, losses in one.items():
        assert losses["loss_after"] < losses["loss_before"] and two[task] == pytest.approx(losses, rel=3e-4)


def test_the_table_is_the_same(both, data):
    rows = []
    for n in ("one", "two"):
        (file,) = (data / n / "Molar" / "cache").glob("items-*.safetensors")
        with safe_open(file, "np") as content:
            rows.append(dict(zip(json.loads(content.metadata()["meta"])["items"], content.get_tensor("rows"), strict=True)))
    assert rows[0].keys() == rows[1].keys() and len(rows[0]) == 30
    for mark, row in rows[0].items():
        np.testing.assert_allclose(rows[1][mark], row, atol=3e-3)


def test_a_resumed_run_ends_as_one_never_cut(both, data):
    (whole, whole_curves, _), (resumed, curves, _) = found(data / "whole"), found(data / "cut")
    assert curves == whole_curves and resumed["test_result"] == whole["test_result"]


def test_gathered_rows_have_the_gradients_of_all_processes(both, data):
    first, second = (json.loads(Path(f"{data / 'gathered'}-{index}").read_text()) for index in (0, 1))
    assert first["rows"] == second["rows"] == [[1.0, 1.0], [2.0, 2.0], [2.0, 2.0]]
    assert first["grad"] == [[6.0, 6.0]] and second["grad"] == [[12.0, 12.0]] * 2  # (1 + 2) · 2 x
    assert first["without"] == second["without"] == [[1.0, 1.0]]
    assert first["shared"] == second["shared"] == [0] and first["part"] + second["part"] == [0, 1, 2, 3, 4]


def test_the_main_process_alone_tells_the_result(both):
    out, err = both
    assert sum(line.endswith("result.json") for line in out.splitlines()) == out.count("== test") == len(RUNS) + len(SHARDED) + 2
    assert err.count("nowhere.inter: missing") == 1  # bad input, which all processes find


def test_a_step_in_shards_is_that_of_one_process(both, data):
    toy = Toy()
    ((toy.loss(0) + toy.loss(1)) / 2).backward()
    norm = torch.nn.utils.clip_grad_norm_(toy.parameters(), 1.0)
    gradients = {name: value.grad for name, value in toy.named_parameters()}
    torch.optim.AdamW([value for value in toy.parameters()], lr=0.1).step()
    for index in (0, 1):
        there = json.loads(Path(f"{data / 'stepped'}-{index}").read_text())
        assert there["norm"] == pytest.approx(norm.item()) and there["gradients"]["backbone.never.weight"] is None
        for name, value in toy.named_parameters():
            torch.testing.assert_close(torch.tensor(there["weights"][name]), value.detach())
            torch.testing.assert_close(gradients[name] if gradients[name] is None else torch.tensor(there["gradients"][name]), gradients[name])
        # 7 x 3 words, 5 x 3 + 5 for pictures, 3 x 3 + 3 never used: of an odd number of rows the first process has one more
        assert there["kept"] == {"weights": [[32, 21][index], 53], "gradients": [[24, 17][index], 41], "optimizer": [[24, 17][index], 41]}


def test_each_process_keeps_its_part_of_mirm(both, data):
    for name in SHARDED:
        log = (found(data / "sharded" / name)[2] / "train.log").read_text()
        kept, whole = (int(number.replace(",", "")) for number in re.search("this process keeps ([0-9,]+) of ([0-9,]+) parameters", log).groups())
        assert whole / 2 <= kept < 0.51 * whole
    assert "Stage 1 goes on at epoch 1, batch 7" in (found(data / "sharded" / "end to end")[2] / "train.log").read_text()


def test_checkpoints_of_shards_are_those_of_one_process(both, data, tmp_path):
    for name, file in (("HLLM", "last.safetensors"), ("end to end", "best.safetensors")):
        one, two = (safe_open(found(data / n / name)[2] / file, "pt") for n in ("one", "sharded"))
        shapes = [{key: tuple(content.get_slice(key).get_shape()) for key in content.keys()} for content in (one, two)]
        assert shapes[0] == shapes[1] and any(key.startswith("model.mirm.") for key in shapes[0])


@pytest.mark.parametrize("setting, message", [
    ({"FSDP_VERSION": "1"}, "fsdp_version=1.*Valid: 2"),
    ({"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params=true.*Valid: false"),
    ({"FSDP_ACTIVATION_CHECKPOINTING": "true"}, "gradient_checkpointing=True"),
])  # fmt: skip
def test_what_shards_do_not_do_is_refused(monkeypatch, setting, message):
    for variable, value in {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", **setting}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=message):
        sharding.shards_wanted()


def deepspeed(monkeypatch, tmp_path, content=None, **variables):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    if content is not None:
        file = tmp_path / "deepspeed.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    for key, value in variables.items():
        monkeypatch.setenv(f"ACCELERATE_DEEPSPEED_{key.upper()}", value)


@pytest.mark.parametrize("n, content, stage, wanted", [
    (2, None, "2", True), (2, None, "0", False), (1, None, "3", False),
    (2, {"zero_optimization": {"stage": 1}, "fp16": {"enabled": "auto"}, "train_batch_size": "auto"}, "0", True), (2, {}, "2", False),
])  # fmt: skip
def test_a_deepspeed_configuration_asks_for_shards(monkeypatch, tmp_path, n, content, stage, wanted):
    deepspeed(monkeypatch, tmp_path, content, zero_stage=stage)
    monkeypatch.setattr(sharding, "n_processes", lambda: n)
    assert sharding.shards_wanted() is wanted
    with sharding.without_accelerates_plugin():
        assert os.environ["ACCELERATE_USE_DEEPSPEED"] == "false"
    assert os.environ["ACCELERATE_USE_DEEPSPEED"] == "true"


@pytest.mark.parametrize("content, variables, message", [
    (None, {"offload_optimizer_device": "cpu"}, "offload_optimizer_device=cpu.*Valid: none"),
    (None, {"offload_param_device": "nvme"}, "offload_param_device=nvme"),
    (None, {"zero_stage": "4"}, "zero_stage=4.*Valid: 0, 1, 2, 3"),
    ({"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}, {}, "zero_optimization.offload_param.device=cpu"),
    ({"fp16": {"enabled": True}}, {}, "fp16.enabled=True.*precision=bf16"),
    ("{", {}, "deepspeed_config_file=.*deepspeed.json: no DeepSpeed configuration"),
    ("[]", {}, "deepspeed_config_file=.*deepspeed.json: no DeepSpeed configuration"),
])  # fmt: skip
def test_what_deepspeed_alone_does_is_refused(monkeypatch, tmp_path, content, variables, message):
    deepspeed(monkeypatch, tmp_path, content, **variables)
    with pytest.raises(ValueError, match=message):
        sharding.shards_wanted()


@pytest.mark.parametrize("kind, refused", [("MEGATRON_LM", True), ("MULTI_GPU", False), ("NO", False)])
def test_other_ways_to_share_are_refused(monkeypatch, kind, refused):
    monkeypatch.setattr(device, "Accelerator", lambda **options: SimpleNamespace(distributed_type=DistributedType(kind)))
    with pytest.raises(ValueError, match=f"distributed_type={kind}.*docs/scale.md") if refused else contextlib.nullcontext():
        device.make_accelerator("fp32", use_cpu=True)


def test_accumulation_is_the_runs_own(monkeypatch):
    """Not that of a launch configuration, by which a loss would be divided."""
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    weight = torch.ones((), requires_grad=True)
    accelerator = device.make_accelerator("fp32", use_cpu=True)
    accelerator.backward(8 * weight)
    assert accelerator.gradient_accumulation_steps == 1 and weight.grad == 8


def test_runs_of_one_process_may_differ_in_precision():
    """As trials of a search do."""
    assert [device.make_accelerator(precision, use_cpu=True).mixed_precision for precision in ("fp32", "bf16", "bf16", "fp32")] == ["no", "bf16", "bf16", "no"]


def test_other_commands_refuse_a_launcher(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["doctor", "--dataset=tiny"]) == 2
    assert "doctor: one process" in capsys.readouterr().err


def test_an_error_of_one_process_ends_all_and_is_told_once(data, tmp_path):
    code, out, err = launch([{"words": words(data, **SASREC, output_dir=tmp_path / "saved"), "fails": 1}], tmp_path)
    assert code and err.count("error: this process alone fails") == 1 and "unexpected" not in err
    assert "result.json" not in out and not list(tmp_path.glob("saved/**/result.json"))


@pytest.mark.parametrize("capability, has_it", [((7, 5), False), ((8, 0), True), ((12, 0), True)])
def test_bf16_is_taken_where_a_gpu_has_it(monkeypatch, capability, has_it):
    """Older ones emulate it, slower than float32."""
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: capability)
    assert device.computes_bf16("auto", cpu=False) is has_it and device.computes_bf16("bf16", cpu=False) and not device.computes_bf16("fp32", cpu=False)


@pytest.mark.parametrize("gpu_id, world, taken, told", [
    ("0", None, [0], False), ("1,0", None, [1], False), (1, "1", [1], False), ("3", None, [], True), ("1", "2", [], False),
])
def test_the_gpu_that_was_chosen_is_taken(monkeypatch, caplog, gpu_id, world, taken, told):
    calls = []
    for name, value in {"is_available": lambda: True, "device_count": lambda: 2, "get_device_capability": lambda: (8, 0), "set_device": calls.append}.items():
        monkeypatch.setattr(f"torch.cuda.{name}", value)
    monkeypatch.setattr(device, "Accelerator", lambda **options: SimpleNamespace(distributed_type=DistributedType.NO))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world:
        monkeypatch.setenv("WORLD_SIZE", world)
    device.make_accelerator(gpu_id=gpu_id)
    assert calls == taken and ("gpu_id=3: this process sees 2" in caplog.text) == told
