"""From an encoder's embedding of an item to the item embedding that the recommender uses."""

import torch
from torch import nn

from recbole_molar.property_error import bad_value


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
