"""A handful of users: what they had, what came next, and what each model put first."""

import numpy as np

from recbole_molar.compare.per_user import read_ranks
from recbole_molar.run_folder import RANKS

KINDS = ("the models disagree", "every model hits", "no model hits")
PER_KIND = 2
SHOWN = 10  # recommendations
HISTORY = 8  # items of a history; with the test item as wide as the recommendations


def sample_users(ranks, k=SHOWN, seed=0):
    """Users drawn at random, the same number from each kind.

    Args:
        ranks (list of Ranks): of each model, the same users.

    Returns:
        list of tuple: index of the user, kind.
    """
    hit = np.stack([one.rank + one.ties <= k for one in ranks])  # [models, U]
    kinds = {KINDS[0]: hit.any(0) & ~hit.all(0), KINDS[1]: hit.all(0), KINDS[2]: ~hit.any(0)}
    random = np.random.default_rng(seed)
    return [(int(user), kind) for kind, chosen in kinds.items() for user in random.permutation(np.flatnonzero(chosen))[:PER_KIND]]


def user_panels(found, catalogue, k=SHOWN):
    """What the page shows of each sampled user.

    Args:
        found (dict): of `comparison.examine`; catalogue (Catalogue).

    Returns:
        list of dict: `name`, `kind`, `k` (recommendations that count), `history` (items, newest last), `earlier` (how many
            before those), `target` (item), and `models`, a list of `label`, `colour`, `place` (rank of the test item) and `items` (with `hit`).
            An item is `id`, `title`, `tile`.
    """
    ranks = [read_ranks(f"{model['folders'][0]}/{RANKS}") for model in found["models"]]
    k = min(k, *(one.top.shape[1] for one in ranks))
    panels = []
    for user, kind in sample_users(ranks, k):
        name, target = str(ranks[0].user[user]), str(ranks[0].item[user])
        history = catalogue.history(name)
        models = [
            {
                "label": model["label"], "colour": index, "place": int(one.rank[user] + one.ties[user] // 2),
                "items": [{**_shown(str(item), catalogue), "hit": str(item) == target} for item in one.items[top[top > 0]]],
            }
            for index, (model, one, top) in enumerate(zip(found["models"], ranks, (one.top[user, :k] for one in ranks)))
        ]
        panels.append({
            "name": name, "kind": kind, "k": k, "history": [_shown(item, catalogue) for item in history[-HISTORY:]], "earlier": max(0, len(history) - HISTORY),
            "target": _shown(target, catalogue), "models": models,
        })
    return panels


def _shown(item, catalogue):
    return {"id": item, "title": catalogue.title(item), "tile": catalogue.tile(item)}
