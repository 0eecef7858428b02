"""Losses between views as spelled-out sums over lists of rows: slow references of galirep.game.view_losses."""

import math


def slow_vicreg(a, b):
    """Return VICReg's loss of lists of rows, by Eq. 1 to 6 with means over columns and views."""
    n, d = len(a), len(a[0])
    invariance = sum((a[i][j] - b[i][j]) ** 2 for i in range(n) for j in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (a, b):
        mean = [sum(row[j] for row in z) / n for j in range(d)]
        c = [[sum((row[j] - mean[j]) * (row[k] - mean[k]) for row in z) / (n - 1) for k in range(d)] for j in range(d)]
        variance += sum(max(0.0, 1 - math.sqrt(c[j][j] + 1e-4)) for j in range(d)) / d / 2
        covariance += sum(c[j][k] ** 2 for j in range(d) for k in range(d) if j != k) / d
    return 25 * invariance + 25 * variance + covariance


def slow_info_nce(a, b, temperature):
    """Return NT-Xent of lists of rows, by SimCLR's Eq. 1 for each of the 2 n projections."""

    def similarity(u, v):
        norm = math.sqrt(sum(x * x for x in u)) * math.sqrt(sum(x * x for x in v))
        return sum(x * y for x, y in zip(u, v, strict=True)) / norm

    z, n = a + b, len(a)
    total = 0.0
    for i in range(2 * n):
        weights = {k: math.exp(similarity(z[i], z[k]) / temperature) for k in range(2 * n) if k != i}
        total -= math.log(weights[(i + n) % (2 * n)] / sum(weights.values()))
    return total / (2 * n)
