"""Is one model better than another, or was it chance? Paired over users, with the spread between seeds in the error. All pure.

Shape letters: S seeds (runs) of a model, U users. Every matrix [S, U] holds one metric, and columns of two models are the same users.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

RESAMPLES = 2000


@dataclass
class Difference:
    """a − b of one metric.

    Args:
        mean (float): of the metric; relative (float): over b's mean; low, high (float): 95% confidence interval.
        p (float): two-sided; p_holm (float): corrected over a family, see :func:`holm`; effect (float): Cohen's d_z over users.
    """

    mean: float
    relative: float
    low: float
    high: float
    p: float
    effect: float
    p_holm: float = float("nan")


def bootstrap(rows, resamples=RESAMPLES, seed=0):
    """Means of each row over users drawn with replacement, the same draw for all rows: [R, U] -> [resamples, R]."""
    random, n_users = np.random.default_rng(seed), rows.shape[1]
    found = np.empty((resamples, len(rows)))
    for index in range(resamples):
        found[index] = rows @ np.bincount(random.integers(n_users, size=n_users), minlength=n_users)
    return found / n_users


def difference(a, b, drawn_a, drawn_b):
    """How a differs from b.

    The p-value is that of a t-test on the users' differences whose squared error has two more parts, the variance between the seeds
    of a and of b (Welch and Satterthwaite's degrees of freedom): with users alone, two seeds of one model would count as different
    models. With one seed that part is unknown and left out. The interval is a paired bootstrap over users, widened by what the seeds add to that error, with
    Student's quantile: drawing two or three seeds anew would show only half, or two thirds, of their variance. With one user nothing can be told: p is 1.

    Args:
        a, b (ndarray): [S_a, U], [S_b, U].
        drawn_a, drawn_b (ndarray): [resamples, S_a], [resamples, S_b], their columns of one :func:`bootstrap`.

    Returns:
        Difference
    """
    users = a.mean(0) - b.mean(0)  # [U]
    mean, spread = float(users.mean()), float(users.std(ddof=1)) if users.size > 1 else 0.0
    parts = [(spread**2 / users.size, users.size - 1), *(_between_seeds(x) for x in (a, b) if len(x) > 1)]
    variance = sum(part for part, _ in parts)
    p = wider = 1.0
    if users.size > 1 and variance > 0:
        freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts if part > 0)
        p = float(2 * stats.t.sf(abs(mean) / variance**0.5, freedom))
        if spread:
            wider = (variance / parts[0][0]) ** 0.5 * stats.t.ppf(0.975, freedom) / stats.norm.ppf(0.975)
    elif users.size > 1 and mean != 0:
        p = 0.0
    low, high = mean + wider * (np.quantile(drawn_a.mean(1) - drawn_b.mean(1), [0.025, 0.975]) - mean)
    base = float(b.mean())
    return Difference(mean, mean / base if base else float("nan"), float(low), float(high), p, mean / spread if spread else 0.0)


def _between_seeds(x):
    """(variance of the mean over seeds, its degrees of freedom)."""
    return float(x.mean(1).var(ddof=1)) / len(x), len(x) - 1


def holm(p_values):
    """Holm's step-down correction of a family of p-values: list of floats -> list in the same order."""
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")
    steps = (len(p_values) - np.arange(len(p_values))) * p_values[order]
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return corrected.tolist()
