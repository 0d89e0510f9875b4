"""The backbone as far as this machine has it: built for `compact`, loaded for a Hugging Face model that is on the disk and fits."""

from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from recbole_molar.doctor.rehearsal import GIB, free_memory
from recbole_molar.lookup import built_here
from recbole_molar.quick_start import stages_of

FP32_PER_STORED = 2  # published weights are bf16, ours are fp32
FOUR_BITS_PER_STORED = 0.75  # at most: linear layers take a quarter, word embeddings double (tests/benchmarks/backbone_memory.py)


def build_here(config, content):
    """MIRM with its untrained or published weights, without a download.

    Returns:
        tuple: MIRM or None; dict with `name` and, where it is None, `why_not`.

    Raises:
        ValueError: what a run would stop with.
    """
    name, build_mirm = str(config["mirm_backbone"]), stages_of(config.model_class).build_mirm
    if built_here(name):
        return build_mirm(config, content), {"name": name}
    folder = local_folder(name)
    if folder is None:
        return None, {"name": name, "why_not": "it is not on this machine (a run would download it), so tokens, time and memory are not known"}
    per_stored = FOUR_BITS_PER_STORED if config["mirm_quantization"] else FP32_PER_STORED
    needed = per_stored * sum(file.stat().st_size for file in folder.glob("*.safetensors")) / GIB
    free, _ = free_memory(config["device"])
    if needed > free:
        return None, {"name": name, "why_not": f"its weights take about {needed:.1f} GiB, and {free:.1f} GiB are free", "needed_gib": round(needed, 2)}
    return build_mirm(config, content), {"name": name}


def local_folder(name):
    """Folder of a Hugging Face model on this machine; None where a run would download it."""
    if Path(name).is_dir():
        return Path(name)
    try:
        found = try_to_load_from_cache(name, "config.json")
    except ValueError:  # no possible name; building it gives the run's own error
        return Path(name)
    return Path(found).parent if isinstance(found, str) else None
