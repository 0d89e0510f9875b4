"""From an encoder's embeddings of items to the item embeddings that the recommender uses: scaling, then a small trained map."""

import torch
from torch import nn

from recbole_molar.property_error import bad_value

RIDGE = 1e-3  # of the mean variance, added to each: directions that hold little but rounding stay small


def standardize(table):
    """Zero mean and unit variance in each dimension over the items; row 0 (padding) stays zero.

    LLM states share one large direction, which makes all cosines alike; its removal costs nothing.

    Args:
        table (Tensor): [n_items, D].

    Returns:
        Tensor: [n_items, D].
    """
    items = table[1:]
    scaled = (items - items.mean(0)) / items.std(0, unbiased=False).clamp_min(1e-6)
    return torch.cat([torch.zeros_like(table[:1]), scaled])


def scaling_of(table, kind):
    """What to subtract from embeddings, and by what to multiply them.

    Args:
        table (Tensor): [n_items, D]; rows of zeros do not count.
        kind (str): `none`; `standardize` (zero mean and unit variance in each dimension); `whiten` (no correlation between dimensions either, by the
            symmetric root, which is unique: "Are ID Embeddings Necessary? Whitening Pre-trained Text Embeddings", Zhang et al., ICDE 2024).

    Returns:
        tuple: [D], [D, D].
    """
    known = table[table.any(1)].double()
    if kind == "none" or len(known) == 0:
        return torch.zeros(table.size(1)), torch.eye(table.size(1))
    mean = known.mean(0)
    if kind == "standardize":
        return mean.float(), torch.diag(1 / known.std(0, unbiased=False).clamp_min(1e-6)).float()
    variances, directions = torch.linalg.eigh((known - mean).T @ (known - mean) / len(known))
    roots = (variances.clamp_min(0) + RIDGE * variances.mean()).clamp_min(1e-12).rsqrt()
    return mean.float(), ((directions * roots) @ directions.T).float()


def scaled(rows, mean, product):
    """Embeddings of some items, scaled as :func:`scaling_of` says: [N, D], [D], [D, D] -> [N, D]; rows of zeros stay."""
    known = rows.detach().any(1, keepdim=True)
    with torch.autocast(rows.device.type, enabled=False):  # bfloat16 would lose the directions that whitening makes larger
        return ((rows - mean) @ product) * known


class ItemScaling(nn.Module):
    """Molar's scaling of MIRM's table, [n_items, D] -> [n_items, D]; row 0 (padding) stays zero.

    Args:
        kind (bool or str): `item_standardize`: False, as it is; True, :func:`standardize`, by the mean and variance of whichever table comes; `whiten`, by
            the mean and covariance of `table`, for good: an eigenvalue problem at every step would cost more than the step.
        table (Tensor): [n_items, D].
    """

    def __init__(self, kind, table):
        super().__init__()
        self.kind = kind
        if kind == "whiten":
            for name, value in zip(("mean", "product"), scaling_of(table, "whiten"), strict=True):
                self.register_buffer(name, value)

    def forward(self, table):
        """[n_items, D] -> [n_items, D]."""
        if self.kind == "whiten":
            return scaled(table.float(), self.mean, self.product)
        return standardize(table) if self.kind else table


class ItemAdapter(nn.Module):
    """A small trained map over the embedding table, [N, D_in] -> [N, D_out].

    Args:
        kind (str): `none` (the paper's: the state is the embedding; needs D_in = D_out), `linear`, or `mlp` (a linear map plus a
            GELU layer, so that it starts no worse than linear).
        dim_in (int), dim_out (int): D_in, D_out.
        hidden (int): width of the hidden layer of `mlp`.
        dropout (float): on the hidden layer of `mlp`.

    Raises:
        ValueError: `none` with different dimensions.
    """

    def __init__(self, kind, dim_in, dim_out, hidden=1024, dropout=0.0):
        super().__init__()
        if kind == "none" and dim_in != dim_out:
            raise bad_value("item_adapter", "none", f"items have {dim_in} dimensions, the user encoder reads {dim_out}. Set item_adapter=linear.")
        self.linear = nn.Identity() if kind == "none" else nn.Linear(dim_in, dim_out)
        self.hidden = None
        if kind == "mlp":
            self.hidden = nn.Sequential(nn.Linear(dim_in, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim_out))

    def forward(self, table):
        """[N, D_in] -> [N, D_out]."""
        adapted = self.linear(table)
        return adapted if self.hidden is None else adapted + self.hidden(table)
