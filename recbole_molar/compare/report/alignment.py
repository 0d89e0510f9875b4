"""What post-alignment does to the user embeddings: E_id and E_con of the same users, with it and without.

Shape letters: U users, D dim.
"""

import numpy as np
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from recbole_molar.compare.report.embeddings import unit_rows

SAMPLE = 1000  # users among whom each must find itself
DRAWN = 60  # users on the picture


def retrieval(id_user, content_user):
    """Share of users whose own ID embedding is the nearest (by cosine) to their content embedding; chance is 1 / U. Both [U, D]."""
    nearest = (unit_rows(content_user) @ unit_rows(id_user).T).argmax(1)
    return float((nearest == np.arange(len(nearest))).mean())


def retrieval_after_linear_map(id_user, content_user):
    """The same after the best linear map from content to ID embeddings, learnt on one half of the users and tried on the other, both ways.

    It says how much of E_id is in E_con at all, wherever it lies; the plain figure says whether it lies in the same directions.
    """
    half = np.arange(len(id_user)) % 2 == 0
    found = []
    for train in (half, ~half):
        learnt = Ridge(alpha=1.0).fit(unit_rows(content_user[train]), unit_rows(id_user[train]))
        mapped = learnt.predict(unit_rows(content_user[~train]))
        scores = unit_rows(mapped) @ unit_rows(id_user).T  # among all users, as in the plain figure
        found.append((scores.argmax(1) == np.flatnonzero(~train)).mean())
    return float(np.mean(found))


def picture(id_user, content_user, drawn=DRAWN):
    """Both embeddings of a few users in two dimensions: PCA of the two clouds together, each of unit length.

    Returns:
        tuple: [drawn, 2], [drawn, 2], in 0…1.
    """
    both = np.concatenate([unit_rows(id_user), unit_rows(content_user)])
    flat = PCA(n_components=2, random_state=0).fit_transform(both)
    flat = np.concatenate([flat[:drawn], flat[len(id_user) : len(id_user) + drawn]])
    low, span = flat.min(0), np.ptp(flat, axis=0)
    flat = (flat - low) / np.maximum(span, 1e-9)
    return flat[: len(flat) // 2], flat[len(flat) // 2 :]


def before_and_after(found, runs):
    """Alignment of the models that have it, beside one without.

    Args:
        found (dict): of `comparison.examine`; runs (dict): label -> MolarRun, of each model's first seed.

    Returns:
        list of dict: `title`, `colour`, `chance`, `retrieval`, `mapped`, `users` (how many), `id`, `content` ([drawn, 2]); empty without a run with alignment.
    """
    colours = {model["label"]: index for index, model in enumerate(found["models"])}
    aligned = next((label for label, run in runs.items() if run.model.aligns), None)
    if aligned is None:
        return []
    rows = np.sort(np.random.default_rng(0).permutation(runs[aligned].n_test)[:SAMPLE])
    content_user, id_user = runs[aligned].user_embeddings(rows)
    cases = [(aligned, content_user)]
    for label, run in runs.items():
        if not run.model.aligns and run.n_test == runs[aligned].n_test:
            content = run.user_embeddings(rows)[0]
            if content.shape == content_user.shape:
                cases.insert(0, (label, content))
                break
    panels = []
    for label, content in cases:
        at_id, at_content = picture(id_user, content)
        panels.append({
            "title": label, "aligned": label == aligned, "colour": colours[label], "users": len(rows), "chance": 1 / len(rows),
            "retrieval": retrieval(id_user, content), "mapped": retrieval_after_linear_map(id_user, content), "id": at_id, "content": at_content,
        })
    return panels
