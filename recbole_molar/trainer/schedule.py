"""Learning-rate schedule of both stages (paper, section 4.1): warm-up from 1/100 of the peak, then a cosine."""

import math


def warmup_cosine(step, steps, warmup, final=0.0, cosine=True):
    """Share of the peak learning rate at a step.

    Args:
        step (int): from 0. steps (int): in all. warmup (int): steps in which it rises linearly from 1/100.
        final (float): share at the end. cosine (bool): False keeps the peak after the warm-up.
    """
    if step < warmup:
        return 0.01 + 0.99 * step / warmup
    if not cosine:
        return 1.0
    progress = min(1.0, (step - warmup) / max(1, steps - warmup))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))
