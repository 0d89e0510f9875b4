"""Weights in 4 bits: what is refused and why; and, where bitsandbytes is installed, the whole path on a CPU, which it serves too, slowly."""

import pytest
import tiny_backbones
import torch
from test_backbone import SAVERS, build, close
from toy_items import toy_content

from recbole_molar.config import Config
from recbole_molar.model.backbone import quantization
from recbole_molar.model.backbone.quantization import check_quantization, full_weight
from recbole_molar.model.mirm import MIRM
from recbole_molar.stages import check_parts


@pytest.mark.parametrize("given, message", [
    (("8bit", "lora", "cuda"), "mirm_quantization=8bit: unknown. Valid: 4bit, or ~"),
    (("4bit", "full", "cuda"), "mirm_tuning=full would. Set mirm_tuning=lora"),
    (("4bit", "lora", "cuda", True), "mirm_backbone=compact is small"),
    (("4bit", "lora", "cpu"), "needs a GPU with CUDA, and this run is on cpu"),
])  # fmt: skip
def test_what_cannot_be_had_is_said(given, message):
    with pytest.raises(ValueError, match=message):
        check_quantization(*given)
    check_quantization(None, *given[1:])


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(quantization.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'needs bitsandbytes, which is not installed. pip install "recbole_molar\[quantization\]"'):
        check_quantization("4bit", "frozen", "cuda")


def test_a_run_says_it_at_the_start():
    given = {"mirm_quantization": "4bit", "mirm_backbone": "some/model", "mirm_tuning": "lora", "use_cpu": True}
    config = Config(model="Molar", dataset="ml-100k", config_dict=given)
    with pytest.raises(ValueError, match="mirm_quantization=4bit: needs a GPU"):
        check_parts(config, n_items=2)
    with pytest.raises(ValueError, match="compact is small"):
        check_parts(Config(model="Molar", dataset="ml-100k", config_dict={**given, "mirm_backbone": "compact"}), n_items=2)
    with pytest.raises(ValueError, match="compact is small"):
        MIRM.build(None, backbone="compact", quantization="4bit", tuning="lora")
    assert Config(model="Molar", dataset="ml-100k")["mirm_quantization"] is None


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return toy_content(tmp_path_factory.mktemp("items"))


@pytest.fixture(scope="module")
def content(items, folder):
    """The items, as far as the backbone can read them."""
    return items.only("text") if "save_text_" in folder else items


@pytest.fixture(scope="module", params=[name for name in SAVERS if name != "save_smolvlm"])  # Idefics3 is the same and wants no num2words
def folder(request, items, tmp_path_factory):
    pytest.importorskip("bitsandbytes")
    made = tmp_path_factory.mktemp(request.param)
    getattr(tiny_backbones, request.param)(made, items)
    return str(made)


@pytest.fixture
def four_bits(content, folder, monkeypatch):
    """Function that builds a MIRM in 4 bits, its adapter or nothing to be trained."""
    monkeypatch.setattr(quantization, "DEVICES", ("cuda", "cpu"))
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)  # it would pack weights anew for CPUs, in blocks too large for toys
    return lambda **options: build(content, folder, quantization="4bit", **options)


def packed_in(module):
    """Names of the layers in 4 bits."""
    return [name.removesuffix(".weight") for name, value in module.named_parameters() if value.dtype == torch.uint8]


def test_in_4_bits(content, folder, four_bits, tmp_path):
    mirm, frozen = four_bits(tuning="lora", gradient_checkpointing=True).train(), four_bits(tuning="frozen")
    linear = [name for name, module in frozen.named_modules() if isinstance(module, torch.nn.Linear) and "lm_head" not in name]
    assert packed_in(frozen) == linear and {value.dtype for value in mirm.backbone.weights().values()} == {torch.float32}
    fingerprint = frozen.fingerprint()
    with torch.no_grad():
        plain = build(content, folder, tuning="frozen")
        full = dict(plain.named_modules())
        assert not close(frozen.encode_items([1, 3]), plain.encode_items([1, 3]))
        for name in packed_in(frozen):
            full[name].weight.copy_(full_weight(frozen.get_submodule(name)))
        expected = plain.encode_items([1, 3])
        assert (frozen.encode_items([1, 3]) - expected).norm() < 0.05 * expected.norm()  # layers in 4 bits compute in bfloat16
    assert frozen.fingerprint() == fingerprint  # a pass changes nothing
    before = {name: value.detach().clone() for name, value in mirm.named_parameters()}
    optimizer = torch.optim.SGD([value for value in mirm.parameters() if value.requires_grad], lr=0.1)
    mirm.encode_items([1, 3]).pow(2).mean().backward()
    optimizer.step()
    changed = {name for name, value in mirm.named_parameters() if not torch.equal(value, before[name])}
    assert changed and changed <= {f"backbone.model.{name}" for name in mirm.backbone.weights()}
    mirm.eval().save(tmp_path / "mirm.safetensors")
    other = four_bits(tuning="lora").eval()
    assert other.fingerprint() != mirm.fingerprint()
    other.load_finished(tmp_path / "mirm.safetensors")
    assert other.fingerprint() == mirm.fingerprint()
    with torch.no_grad():
        assert close(other.encode_items([1, 3]), mirm.encode_items([1, 3]))
    with pytest.raises(ValueError, match="made with mirm_quantization=4bit, but this run has mirm_quantization=~"):
        build(content, folder, tuning="lora").load_finished(tmp_path / "mirm.safetensors")


@torch.no_grad()
def test_the_user_decoder_is_unpacked(four_bits):
    vectors, mask = torch.randn(2, 5, 32), torch.ones(2, 5, dtype=torch.long)
    for tuning in ("lora", "frozen"):
        backbone = four_bits(tuning=tuning).backbone
        decoder = backbone.user_decoder()
        assert all(value.dtype == torch.float32 and value.requires_grad for value in decoder.parameters())
        expected = backbone.decode(vectors, mask)
        assert (decoder(vectors) - expected).norm() < 0.02 * expected.norm()  # its layers compute in bfloat16
