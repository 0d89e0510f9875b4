"""Post-alignment (the paper's L_align): symmetric InfoNCE between the ID model's and DUEG's user embeddings; stage 1 takes it for two readings of items."""

import torch
import torch.nn.functional as F


def alignment_loss(id_user, content_user, temperature, user_ids=None):
    """Pull each user's two embeddings together, push other users of the batch apart.

    With s_ij = cos(id_user_i, content_user_j) / τ, the mean over users i of
    -log softmax_j(s_i·)[i] - log softmax_j(s_·i)[i]: both directions are **added**, as the paper writes it, not averaged (as CLIP
    does), so α weighs the sum.

    Args:
        id_user (Tensor): [B, D], E_u^id. Detached by the caller where the ID model is frozen.
        content_user (Tensor): [B, D], E_u^con.
        temperature (float or Tensor): τ > 0.
        user_ids (Tensor, optional): [B]; rows of the same user are then no negatives of each other.

    Returns:
        Tensor: scalar; 2·log B for zero embeddings, 0 for B = 1.
    """
    # fp32 also under autocast: at τ = 0.05 a bf16 cosine is off by up to 0.08 of a logit.
    with torch.autocast(id_user.device.type, enabled=False):
        scores = F.normalize(id_user.float(), dim=-1) @ F.normalize(content_user.float(), dim=-1).T / temperature  # [B, B]
    if user_ids is not None:
        same_user = user_ids[:, None] == user_ids[None, :]
        scores = scores.masked_fill(same_user.fill_diagonal_(False), float("-inf"))
    own = torch.arange(len(scores), device=scores.device)
    return F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)
