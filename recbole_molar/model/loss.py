"""Next-item losses (stage 2): `bce`, the paper's; `nce` with shared negatives; `ce` over the whole catalogue. All are pure.

Each takes the M valid (position, next item) pairs of a batch, flattened: `user` [M, D] is the user embedding after a position.
"""

import math

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

# fp32 bytes of one block of logits. CPU: measured flat from 2 to 8 MiB, slower outside. GPU: large enough to fill it.
CPU_BLOCK_BYTES = 2**22
GPU_BLOCK_BYTES = 2**28
MIN_BLOCK = 128  # below, reading and writing the table's gradient for each block costs more than the products


def bce_loss(user, positive, negative):
    """Point-wise loss of the paper (L_bce): one sampled negative for each positive.

    Args:
        user, positive, negative (Tensor): [M, D]; scores are plain dot products.

    Returns:
        Tensor: mean over M of -log σ(s+) - log(1 - σ(s-)); 2·log 2 when all scores are zero.
    """
    positive_score = (user.float() * positive.float()).sum(-1)  # [M]
    negative_score = (user.float() * negative.float()).sum(-1)  # [M]
    return -(F.logsigmoid(positive_score) + F.logsigmoid(-negative_score)).mean()


def nce_loss(user, positive, negatives, target_ids, negative_ids, log_temperature, log_q=None):
    """Sampled softmax over the positive and K negatives that all rows share; cosine scores over a learnable temperature.

    Args:
        user, positive (Tensor): [M, D].
        negatives (Tensor): [K, D].
        target_ids (Tensor): [M], item ids of `positive`.
        negative_ids (Tensor): [K]; where one equals a row's target, that row does not see it.
        log_temperature (Tensor): scalar, log τ.
        log_q (Tensor, optional): [K], log-probability of each negative under the sampler. Its score becomes s - log(K·q), so that
            the denominator estimates the full softmax's without bias; the positive, always present, needs no correction
            (Bengio & Senécal, 2008).

    Returns:
        Tensor: mean over M; log(1 + K) when all scores are equal, nothing is masked and `log_q` is None.
    """
    scale = torch.exp(-log_temperature)
    user = F.normalize(user.float(), dim=-1)
    positive_score = (user * F.normalize(positive.float(), dim=-1)).sum(-1, keepdim=True) * scale  # [M, 1]
    negative_score = (user @ F.normalize(negatives.float(), dim=-1).T).float() * scale  # [M, K]
    if log_q is not None:
        negative_score = negative_score - (log_q + math.log(len(negatives)))
    is_target = target_ids[:, None] == negative_ids[None, :]  # [M, K]
    negative_score = negative_score.masked_fill(is_target, float("-inf"))
    return (torch.cat([positive_score, negative_score], dim=1).logsumexp(1) - positive_score[:, 0]).mean()


def ce_loss(user, table, target, block=None, first=1, teacher=None):
    """Softmax cross-entropy over the whole catalogue; the logits [M, N] never exist as a whole, forward or backward.

    Both gradients are computed in the forward pass, block by block, while the logits are at hand (the idea of Liger's fused linear
    cross-entropy and of "Cut Your Losses", arXiv 2411.09009). Under autocast the products run in its dtype, the softmax in fp32.

    Args:
        user (Tensor): [M, D]; for cosine scores or a temperature the caller scales it, and the table.
        table (Tensor): [N, D]; row 0 is padding: it is no candidate and gets no gradient.
        target (Tensor): [M], in first..N-1.
        block (int, optional): rows of `user` at a time; None takes 4 MiB of logits (CPU) or 256 MiB (GPU).
        first (int): row of the first candidate; RecBole's models count the padding as one, 0.
        teacher (tuple, optional): user embeddings [M, D'], item embeddings [N, D'] and a share β of another model, which gets no gradient: the
            target distribution is then (1 - β) · one-hot + β · the softmax of their products over the same candidates (distillation; Hinton et al.,
            2015, at temperature 1).

    Returns:
        Tensor: mean over M; log(N - first) when all scores are equal, 0 for M = 0.
    """
    if block is None:
        budget = CPU_BLOCK_BYTES if user.device.type == "cpu" else GPU_BLOCK_BYTES
        block = max(MIN_BLOCK, budget // (4 * len(table)))
    if not torch.is_grad_enabled():
        user, table = user.detach(), table.detach()  # a Function is told of requires_grad, not of no_grad
    return _BlockedCrossEntropy.apply(user, table, target, block, first, teacher)


class _BlockedCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over blocks of rows; what is kept for backward is [M, D] and [N, D]."""

    @staticmethod
    def forward(ctx, user, table, target, block, first, teacher):
        device = user.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        need_user, need_table = ctx.needs_input_grad[:2]
        items = table[first:].to(dtype)  # [N - first, D]
        teacher_user, teacher_items, share = (teacher[0].to(dtype), teacher[1][first:].to(dtype), teacher[2]) if teacher else (None, None, 0.0)
        user_grad = torch.empty_like(user, dtype=torch.float32) if need_user else None
        table_grad = torch.zeros_like(table, dtype=torch.float32) if need_table else None
        loss = torch.zeros((), device=user.device)
        with torch.autocast(device, enabled=False):
            for start in range(0, len(user), block):
                rows = slice(start, start + block)
                part = user[rows].to(dtype)
                wanted = (teacher_user[rows] @ teacher_items.T).float().softmax(1) if share else None  # [m, N - first]
                residual, inverse, part_loss = _softmax_residual(part @ items.T, target[rows, None] - first, wanted, share)
                loss += part_loss
                residual = residual.to(dtype)
                # 1/sum is applied to the thin [block, D] side, not to [block, N].
                if need_user:
                    torch.mul(residual @ items, inverse, out=user_grad[rows])
                if need_table:
                    _add_product(table_grad[first:], residual.T, (part * inverse).to(dtype))
        ctx.rows = max(1, len(user))
        ctx.dtypes = user.dtype, table.dtype
        ctx.save_for_backward(user_grad, table_grad)
        return loss / ctx.rows

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        scaled = (None if g is None else (g * (grad / ctx.rows)).to(dtype) for g, dtype in zip(ctx.saved_tensors, ctx.dtypes))
        return *scaled, None, None, None, None


def _softmax_residual(logits, target, wanted=None, share=0.0):
    """Turn logits [m, N] into sum·(softmax - targets), in place where they are fp32; targets are one-hot, or by a share those wanted [m, N].

    Returns:
        tuple: residual [m, N], 1/sum [m, 1], summed loss.
    """
    logits = logits.float()
    top = logits.amax(1, keepdim=True)
    target_score = logits.gather(1, target) - top
    logits.sub_(top)
    wanted_score = 0.0 if wanted is None else torch.linalg.vecdot(wanted, logits)[:, None]
    total = logits.exp_().sum(1, keepdim=True)
    loss = (total.log() - (1 - share) * target_score - share * wanted_score).sum()
    logits.scatter_add_(1, target, (share - 1) * total)
    if wanted is not None:
        logits.addcmul_(wanted, total, value=-share)
    return logits, total.reciprocal(), loss


def _add_product(out, left, right):
    """out += left @ right; one fused call where dtypes agree."""
    if left.dtype == out.dtype:
        out.addmm_(left, right)
    else:
        out += left @ right
