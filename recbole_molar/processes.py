"""Several processes that share one run: which rows are this one's, and what they tell each other. With one process nothing here does anything.

The mean over processes of the gradients is the gradient of one process with the whole batch, as DistributedDataParallel takes it. W is their number.
"""

import contextlib
import functools
import os
from datetime import timedelta

import torch
import torch.distributed as dist

WAIT_AT_MOST = timedelta(hours=12)  # of one process for the others: while another run, or the main process alone, is at a stage
_stands_in = False  # see standing_in


def n_processes():
    """W, 1 where nothing was launched."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def process_index():
    """0 to W - 1; 0 is the main one."""
    return dist.get_rank() if n_processes() > 1 else 0


def bar_off():
    """For `tqdm(disable=...)`: no progress bar but the main process's, on a terminal."""
    return True if process_index() else None


def own_part(sequence):
    """This process's stretch of a list or tensor, the same on all; the stretches together are the whole, and their lengths differ by one at most."""
    size, n, index = len(sequence), n_processes(), process_index()
    return sequence[index * size // n : (index + 1) * size // n]


@contextlib.contextmanager
def standing_in(stands_in=True):
    """While inside, this process has no row of the batch and computes on the others', to take part: :func:`of_whole_batch` leaves it out."""
    global _stands_in
    _stands_in, before = stands_in, _stands_in
    try:
        yield
    finally:
        _stands_in = before


def gathered(rows):
    """The rows of all processes, in the order of processes, with gradients.

    Args:
        rows (Tensor): [R, ...]; R may differ between processes, and be 0.

    Returns:
        Tensor: [sum of R, ...].
    """
    if n_processes() == 1:
        return rows
    if not (torch.is_grad_enabled() and rows.is_floating_point()):
        return _all_rows(rows)[0]
    # Each process must take part in the backward pass, one without rows too.
    return _Gathered.apply(rows if rows.requires_grad else rows.detach().requires_grad_())


def of_whole_batch(rows):
    """What belongs to the rows of a batch, as :func:`gathered` from all processes: their users' embeddings, to be told from each other."""
    return gathered(rows[:0] if _stands_in else rows)


def of_all(value):
    """What each process has in this place, a list in the order of processes; anything that can be pickled."""
    if n_processes() == 1:
        return [value]
    found = [None] * n_processes()
    dist.all_gather_object(found, value)
    return found


def from_main(tensor):
    """The main process's tensor, of the same shape on all: a random draw that all must share."""
    if n_processes() > 1:
        dist.broadcast(tensor, src=0)
    return tensor


def main_says(truth, device):
    """What is true for the main process, for all: a clock, or a file that not all have seen yet, must not part them."""
    return truth if n_processes() == 1 else bool(from_main(torch.tensor([truth], dtype=torch.int, device=device)))


def mean_over_processes(tensor):
    """Mean of a tensor of the same shape on all; in place."""
    if n_processes() > 1:
        dist.all_reduce(tensor)
        tensor /= n_processes()
    return tensor


def own_noise(*numbers):
    """Seed torch by these whole numbers and by the process: dropout must not be the same on all. The main process goes on as if alone."""
    if process_index():
        torch.manual_seed(functools.reduce(lambda seed, number: (seed * 1_000_003 + number) % 2**63, (*numbers, process_index())))


def first_to_fail():
    """True for the first process that asks of those that a launcher started: an error is told once, though it may come to all."""
    try:
        store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False, timeout=timedelta(seconds=5))
        return store.add("recbole_molar/errors", 1) == 1
    except (KeyError, RuntimeError, ValueError):  # whoever held the store is gone
        return True


def _all_rows(rows):
    """Rows of all processes, and how many each gave."""
    mine = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(mine) for _ in range(n_processes())]
    dist.all_gather(sizes, mine)
    sizes = torch.cat(sizes).tolist()
    padded = rows.new_zeros(max(sizes), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    found = [torch.empty_like(padded) for _ in sizes]
    if max(sizes):
        dist.all_gather(found, padded)
    return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)]), sizes


@functools.cache
def _backward_group(device):
    """A group of its own, for what is exchanged inside a backward pass: DistributedDataParallel's exchanges there come in another order."""
    group = dist.new_group(timeout=WAIT_AT_MOST)
    dist.all_reduce(torch.zeros(1, device=device), group=group)  # it connects here, not inside that pass
    return group


class _Gathered(torch.autograd.Function):
    """Backward: the gradients of all processes with respect to the own rows, added up."""

    @staticmethod
    def forward(ctx, rows):
        everything, sizes = _all_rows(rows)
        start = sum(sizes[: process_index()])
        ctx.own, ctx.group = slice(start, start + len(rows)), _backward_group(rows.device)
        return everything

    @staticmethod
    def backward(ctx, grad):
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, group=ctx.group)
        return grad[ctx.own]
