"""Where to compute and in which precision: one Accelerator for every stage of a run."""

import contextlib
import ctypes
import os
from logging import getLogger

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin, InitProcessGroupKwargs

from recbole_molar.processes import WAIT_AT_MOST, n_processes
from recbole_molar.sharding import shards_wanted, without_accelerates_plugin

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of malloc.h


def has_cpu_bf16():
    """True where the CPU multiplies bf16 natively (elsewhere autocast is slower than fp32)."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return bool(supported() or amx())


def _libc():
    """glibc's C library, or None on other systems."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):
        return None


def return_freed_memory():
    """Hand what is freed but kept by glibc back to the system; nothing elsewhere.

    Batches of many shapes leave holes in the heap: stage 1 on ml-1m grew to 9 GiB without this.
    """
    libc = _libc()
    if libc:
        libc.malloc_trim(0)


@contextlib.contextmanager
def kept_freed_memory(device):
    """While inside, glibc keeps large freed blocks instead of handing each back to the system; nothing on a GPU or elsewhere.

    A training step on a CPU frees and takes the same few hundred MiB again and again; without this a third of the time of a
    small model goes into page faults (measured: 31 s became 21 s for three epochs of Molar on ml-100k). It is for steps of
    like shapes: over stage 1's many shapes the kept blocks added up to 8 GiB, so it is undone on leaving.

    Args:
        device (torch.device): where the work is done.
    """
    libc = _libc() if device.type == "cpu" else None
    if libc is None:
        yield
        return
    libc.mallopt(M_MMAP_THRESHOLD, 2**30)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # where glibc's own threshold ends up
        libc.mallopt(M_TRIM_THRESHOLD, 2**26)
        libc.malloc_trim(0)


def take_gpu(gpu_id):
    """Let this process compute on the GPU of RecBole's `gpu_id`, the first of several; one that is not there, as in a run begun elsewhere, is told."""
    name, n_gpus = str(gpu_id).split(",")[0].strip(), torch.cuda.device_count()
    if name.isdecimal() and int(name) < n_gpus:
        torch.cuda.set_device(int(name))
    else:
        getLogger().warning("gpu_id=%s: this process sees %d of them, counted from 0; taking the first.", gpu_id, n_gpus)


def computes_bf16(precision, cpu):
    """What the property `precision` comes to on the CPU, or on this process's GPU: bf16 where it has it (a GPU from compute capability 8 on), or is told to."""
    native = has_cpu_bf16() if cpu else torch.cuda.get_device_capability()[0] >= 8  # before, bf16 is emulated
    return precision == "bf16" or (precision == "auto" and native)


def make_accelerator(precision="auto", use_cpu=False, gpu_id=0):
    """Build the Accelerator of a run.

    Args:
        precision (str): `auto` (bf16 where the device has it), `bf16` or `fp32`.
        use_cpu (bool): stay on the CPU even where there is a GPU.
        gpu_id (int or str): which GPU, where this is the only process of the run.

    Raises:
        ValueError: an unknown precision; a way of sharing a model between processes that is not data parallel.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision={precision}: unknown. Valid: auto, bf16, fp32.")
    cpu = use_cpu or not torch.cuda.is_available()
    if not cpu and int(os.environ.get("WORLD_SIZE", 1)) == 1:
        take_gpu(gpu_id)
    mixed = "bf16" if computes_bf16(precision, cpu) else "no"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    between_processes = [
        # A task, or a batch without pictures, leaves parts of a model out; buffers (the item table) are kept equal by those who change them.
        DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True),
        InitProcessGroupKwargs(timeout=WAIT_AT_MOST),
    ]
    accumulation = GradientAccumulationPlugin(num_steps=1)  # ours is our own; as a plain number, a launch configuration's would win over it
    if n_processes() == 1 and AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed:
        AcceleratorState._reset_state()  # of an earlier run in this process, such as a trial of a search
    with without_accelerates_plugin():
        accelerator = Accelerator(mixed_precision=mixed, cpu=cpu, gradient_accumulation_plugin=accumulation, kwargs_handlers=between_processes)
    shards_wanted()  # for its errors
    kind = accelerator.distributed_type.value
    if kind != "NO" and not kind.startswith("MULTI_"):
        raise ValueError(
            f"distributed_type={kind}, of Accelerate's configuration: not supported. What each process encodes differs, and its passes would wait for each "
            "other's shards (docs/scale.md). Take FSDP with fsdp_version 2, DEEPSPEED, or MULTI_GPU with mirm_tuning=lora, mirm_quantization=4bit."
        )
    return accelerator


def computes_in(accelerator):
    """`bf16` or `fp32`: what the property `precision` came to on this device."""
    return "bf16" if accelerator.mixed_precision == "bf16" else "fp32"
