"""A map of the item embeddings: near on the map is near in the embedding, as far as two dimensions allow."""

import re
from collections import Counter

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from recbole_molar.compare.report.embeddings import unit_rows

MOST_ITEMS = 1500
GROUPS = 7  # values of a field that get a colour of their own; the rest is grey
NEIGHBOURS = 10
SEPARATOR = re.compile(r"\s*[|;,]\s*")
YEARS = re.compile(r"(\d{4})(?:\D.*)?$")


def chosen_items(popularity, most=MOST_ITEMS):
    """Rows of the items with the most training interactions, at most `most`, the most popular first; row 0 is padding."""
    order = 1 + np.argsort(-popularity[1:], kind="stable")
    return order[popularity[order] > 0][:most]


def layout(vectors, seed=0):
    """Two dimensions for each vector, in 0…1: t-SNE on cosines from a PCA start; PCA alone for fewer than 30.

    Args:
        vectors (ndarray): float [n, D].

    Returns:
        ndarray: [n, 2].
    """
    unit = unit_rows(vectors)
    if np.allclose(unit, unit[0]):
        return np.full((len(unit), 2), 0.5)
    if len(unit) < 30:
        flat = PCA(n_components=min(2, *unit.shape), random_state=seed).fit_transform(unit)
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    else:
        flat = TSNE(perplexity=min(30, len(unit) // 4), init="pca", max_iter=500, random_state=seed).fit_transform(unit)  # cosine order: of unit length
    low, high = flat.min(0), flat.max(0)
    return (flat - low) / np.maximum(high - low, 1e-9)


def colourings(catalogue, rows, most=4):
    """Ways of colouring the items: by fields whose few values cover most items, by year, by popularity, in this order.

    Args:
        catalogue (Catalogue); rows (ndarray): of the items on the map.

    Returns:
        list of dict: `name`, `groups` (names, the last is "other" where there are more), `of` (ndarray: group of each item), `ordered` (bool).
    """
    counts = catalogue.popularity[rows]
    edges = np.unique(np.quantile(counts, [0.2, 0.4, 0.6, 0.8]))
    by_value = [_by_value(name, [values[row] for row in rows]) for name, values in catalogue.fields().items()]
    by_value = sorted(filter(None, by_value), key=lambda way: way["ordered"])[: most - 1]
    return [*by_value, _by_edges("training interactions", counts, edges)]


def _by_edges(name, numbers, edges):
    bounds = [numbers.min(), *edges, numbers.max()]
    groups = [f"{low:.0f} – {high:.0f}" for low, high in zip(bounds, bounds[1:])]
    return {"name": name, "groups": groups, "of": np.searchsorted(edges, numbers, side="left"), "ordered": True}


def _by_value(name, values):
    """Groups of one field, or None where its values tell items apart and do not group them."""
    years = [YEARS.match(value) for value in values]
    if sum(map(bool, years)) > 0.9 * len(values):
        numbers = np.array([int(match[1]) if match else 0 for match in years])
        edges = np.unique(np.quantile(numbers[numbers > 0], [0.2, 0.4, 0.6, 0.8]))
        numbers[numbers == 0] = edges[0]
        return _by_edges(name, numbers, edges) if len(edges) > 1 else None
    first = [SEPARATOR.split(value)[0] for value in values]
    if _is_list(values):
        first = [value.split(" ")[0] for value in first]
    counts = Counter(value for value in first if value)
    if len(counts) < 2 or sum(count for _, count in counts.most_common(GROUPS)) < 0.5 * len(values):
        return None
    groups = [value[:40] for value, _ in counts.most_common(GROUPS)]
    of = np.array([groups.index(value[:40]) if value[:40] in groups else len(groups) for value in first])
    return {"name": name, "groups": groups + (["other"] if (of == len(groups)).any() else []), "of": of, "ordered": False}


def _is_list(values):
    """True for "Animation Children's Comedy": words that come in many combinations, and are few."""
    words = {word for value in values for word in value.split(" ")}
    return len(words) < 0.1 * len(values) and len(set(values)) > 2 * len(words)


def agreement(vectors, of):
    """How often the nearest neighbours in the full space are of the same group, and how often chance would have it.

    Args:
        vectors (ndarray [n, D]); of (ndarray [n]): groups.

    Returns:
        tuple: share among the 10 nearest by cosine, share expected by chance.
    """
    unit = unit_rows(vectors)
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    near = np.argpartition(-likeness, min(NEIGHBOURS, len(unit) - 2), axis=1)[:, : min(NEIGHBOURS, len(unit) - 1)]
    shares = np.bincount(of) / len(of)
    return float((of[near] == of[:, None]).mean()), float((shares**2).sum())
