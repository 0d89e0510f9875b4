"""A large module in shards, one for each process, whole only while it computes: torch's FSDP2, driven by the step.

FSDP2's own hooks gather the weights of a module whenever it is called, so that each forward pass is a meeting of all processes. Here processes make passes of
their own: one has two batches of pictures and one of text, another three of text. So `fully_shard` is put on one module that is never called itself, the
backbone, whose hooks then sleep. Its weights are gathered where a step begins; where it ends gradients are averaged, each process keeping its shard's, and the
whole weights are freed. The optimizer knows shards alone. Without shards nothing here does anything.

A DeepSpeed configuration asks for the same, in ZeRO's words; its engine, which expects all processes to make the same passes, is not used (docs/scale.md).
"""

import contextlib
import json
import os
from pathlib import Path

import torch
import torch.distributed as dist

from recbole_molar.processes import n_processes, process_index

BUCKET = 2**24  # numbers that are exchanged at once
PLUGINS = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED")
# Of Accelerate's FSDP settings, what would change the result or the memory and is not done here: variable -> (key, the values that will do, what to do instead)
REFUSED = {
    "FSDP_VERSION": ("fsdp_version", ("2",), ""),
    "FSDP_OFFLOAD_PARAMS": ("fsdp_offload_params", ("false",), ""),
    "FSDP_ACTIVATION_CHECKPOINTING": ("fsdp_activation_checkpointing", ("false",), " The property gradient_checkpointing=True does it."),
}


def shards_wanted():
    """Whether Accelerate's configuration says `distributed_type: FSDP`, or DEEPSPEED with a ZeRO stage, and there are processes to share.

    Raises:
        ValueError: it says more than is done here.
    """
    fsdp, deepspeed = (os.environ.get(variable, "false").lower() == "true" for variable in PLUGINS)
    for variable, (key, valid, instead) in REFUSED.items() if fsdp else ():
        _check(key, os.environ.get(variable, valid[0]), valid, instead)
    return (fsdp or (deepspeed and _zero_stage() > 0)) and n_processes() > 1


def _zero_stage():
    """ZeRO's stage in a DeepSpeed configuration, in Accelerate's form or DeepSpeed's own; what else would change the result or the memory is checked."""
    path = os.environ.get("ACCELERATE_DEEPSPEED_CONFIG_FILE", "none")
    if path == "none":
        stage = os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", "2")
        offload = {key: os.environ.get(f"ACCELERATE_DEEPSPEED_{key.upper()}", "none") for key in ("offload_optimizer_device", "offload_param_device")}
        half = False
    else:
        try:
            given = json.loads(Path(path).read_text(encoding="utf-8"))
            zero = given.get("zero_optimization", {})
            stage, half = zero.get("stage", 0), given.get("fp16", {}).get("enabled", False)
            offload = {f"zero_optimization.{key}.device": zero.get(key, {}).get("device", "none") for key in ("offload_optimizer", "offload_param")}
        except (OSError, ValueError, AttributeError) as error:
            raise ValueError(f"deepspeed_config_file={path}: no DeepSpeed configuration can be read from it ({error}).") from error
    for key, value in offload.items():
        _check(key, value, ("none",))
    _check("fp16.enabled", half, ("false", "auto"), " The property precision=bf16 does what is wanted.")
    _check("zero_stage", stage, ("0", "1", "2", "3"))
    return int(stage)


def _check(key, value, valid, instead=""):
    if str(value).lower() not in valid:
        raise ValueError(f"{key}={value}, of Accelerate's configuration: not supported. Valid: {', '.join(valid)}.{instead} (docs/scale.md)")


@contextlib.contextmanager
def without_accelerates_plugin():
    """While inside, Accelerate does not see that it is asked for FSDP or DeepSpeed: it would wrap what it prepares, and transformers load in one process."""
    before = {variable: os.environ[variable] for variable in PLUGINS if variable in os.environ}
    os.environ.update({**dict.fromkeys(before, "false"), **({"FSDP_CPU_RAM_EFFICIENT_LOADING": "false"} if before else {})})
    try:
        yield
    finally:
        os.environ.update(before)


def shard(module, words, accelerator):
    """From now on, each process keeps its part of each parameter of a module; alike on all before.

    Args:
        module (nn.Module): is never called itself, only what is in it. words (nn.Module): its word embeddings.
        accelerator (Accelerator): device, and the precision in which the weights are gathered.
    """
    try:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    except ImportError as error:
        raise ValueError(f"distributed_type=FSDP: torch {torch.__version__} has no FSDP2. Take torch 2.6 or later, or distributed_type=MULTI_GPU.") from error
    low = torch.bfloat16 if accelerator.mixed_precision == "bf16" else None
    mesh = dist.init_device_mesh(accelerator.device.type, (n_processes(),))
    fully_shard(module, mesh=mesh, reshard_after_forward=False, mp_policy=MixedPrecisionPolicy(param_dtype=low))
    if low:  # as autocast does with whole weights: matrices are multiplied in bf16, but states are added up in fp32
        words.register_forward_hook(lambda embedding, given, output: output.float())


def has_shards(module):
    """Whether something in a module is sharded."""
    return bool(_units(module))


def prepare(accelerator, module, optimizer):
    """A module and its optimizer ready for training by several processes; one with shards is as it is: see :func:`share_gradients`."""
    return (module, optimizer) if has_shards(module) else accelerator.prepare(module, optimizer)


def gather(module):
    """Make what is sharded in a module whole, until :func:`share_gradients`; a meeting of all processes."""
    for unit in _units(module):
        unit.unshard()


@contextlib.contextmanager
def whole(module):
    """While inside, what is sharded in a module is whole, in the precision of computation; both ends are meetings of all processes. May be nested."""
    units = [unit for unit in _units(module) if any(map(_is_shard, unit.parameters()))]
    for unit in units:
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()


@torch.no_grad()
def share_gradients(module):
    """End of a step in a module with shards: all parameters have the mean of the processes' gradients, shards their part of it, and are shards again.

    A parameter that no process has used has none, as with one process; one that others alone have used counts as zero here.
    """
    if not has_shards(module):
        return
    given = [parameter for parameter in module.parameters() if parameter.requires_grad]  # whole
    used = torch.tensor([parameter.grad is not None for parameter in given], dtype=torch.int, device=given[0].device)
    dist.all_reduce(used, op=dist.ReduceOp.MAX)
    for unit in _units(module):
        unit.reshard()
    kept = [parameter for parameter in module.parameters() if parameter.requires_grad]
    pairs = [pair for *pair, is_used in zip(given, kept, used.tolist(), strict=True) if is_used]
    for average, chosen in ((_average, False), (_scatter, True)):
        for bucket in _buckets([pair for pair in pairs if _is_shard(pair[1]) is chosen]):
            gradients = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter, _ in bucket]
            average([gradient.to(own.dtype) for gradient, (_, own) in zip(gradients, bucket, strict=True)], [own for _, own in bucket])
            for parameter, own in bucket:
                parameter.grad = None if parameter is not own else own.grad


def _buckets(pairs):
    """Pairs in lists of at most `BUCKET` numbers each: few meetings, and little memory beside the gradients."""
    lists, size = [], BUCKET
    for pair in pairs:
        size += pair[0].numel()
        if size > BUCKET:
            lists, size = [*lists, []], pair[0].numel()
        lists[-1].append(pair)
    return lists


def _average(gradients, parameters):
    """Give whole parameters the mean of all processes' gradients."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= n_processes()
    for part, parameter in zip(flat.split([gradient.numel() for gradient in gradients]), parameters, strict=True):
        parameter.grad = part.view_as(parameter)


def _scatter(gradients, parameters):
    """Give shards their part of the mean of all processes' gradients, [R, ...]; process r has the rows of the r-th of W stretches of ceil(R / W)."""
    from torch.distributed.tensor import DTensor, Partial

    n, mesh = n_processes(), parameters[0].device_mesh
    rows = [gradient.flatten(1) if gradient.dim() > 1 else gradient[:, None] for gradient in gradients]
    rows = [torch.nn.functional.pad(row, (0, 0, 0, -len(row) % n)).view(n, -1) for row in rows]  # [W, ceil(R / W) · …]
    own = DTensor.from_local(torch.cat(rows, 1), mesh, [Partial()]).redistribute(placements=parameters[0].placements).to_local()[0] / n
    for part, parameter in zip(own.split([row.size(1) for row in rows]), parameters, strict=True):
        local = parameter.to_local()
        local = part[: local.numel()].view_as(local)
        parameter.grad = DTensor.from_local(local, mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride())


def clip_gradients(parameters, max_norm, norm_type=2.0, **options):
    """`torch.nn.utils.clip_grad_norm_`, where some of the parameters are shards: the norm is that of all together."""
    parts = [[], []]
    for parameter in parameters:
        if parameter.grad is not None:
            parts[_is_shard(parameter)].append(parameter)
    if not parts[1]:
        return torch.nn.utils.clip_grad_norm_(parts[0], max_norm, norm_type, **options)
    norms = [whole_tensor(torch.nn.utils.get_total_norm([parameter.grad for parameter in part], norm_type)) for part in parts if part]
    total = torch.linalg.vector_norm(torch.stack(norms), norm_type)
    for part in parts:
        torch.nn.utils.clip_grads_with_norm_(part, max_norm, total)
    return total


def whole_tensor(tensor):
    """A tensor of which each process has a shard as it was, a meeting of all processes; any other as it is."""
    return tensor.full_tensor() if _is_shard(tensor) else tensor


def whole_on_main(tensors):
    """Name -> whole tensor, on the main process's CPU, one by one; the others take part and get nothing."""
    found = {}
    for name, tensor in tensors.items():
        tensor = whole_tensor(tensor.detach())
        if not process_index():
            found[name] = tensor.cpu()
    return found


def shard_as(tensor, like):
    """A whole tensor, the same on all processes, as `like` is: sharded, or as it is."""
    if not _is_shard(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def _units(module):
    return [part for part in module.modules() if hasattr(part, "unshard")]


def _is_shard(tensor):
    return hasattr(tensor, "full_tensor")  # DTensor, whose import takes long and is for nothing where there is none
