"""Time one linear SVM of `galirep probe` against scikit-learn's LinearSVC, and whole protocols.

    OMP_NUM_THREADS=1 python benchmarks/probe_cost.py [--json]

Features are random, of ten overlapping classes, standardised. The SVM is that of linear-svm/v1, whose function
LinearSVC minimises; then linear-svm/v1, linear-svm/v2 and logistic/v1 are timed, choice of C included. LinearSVC runs
with its own choice of primal or dual and 1,000 iterations; where it does not converge, its row says so. Seen on one
busy CPU core: 2.6x to 21x, more with more columns and with a larger C; 1,000 x 5,376: linear-svm/v1 2 CPU seconds,
linear-svm/v2 8, logistic/v1 4.
"""

import argparse
import json
import sys
import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from galirep.probing.linear_svm import fit
from galirep.probing.probe import probe

# rows, columns, C
CASES = [
    (1000, 1000, 1e-3),
    (1000, 1000, 1e-1),
    (1000, 5376, 1e-3),
    (4000, 320, 1e-2),
    (4000, 2000, 1e-3),
]

PROTOCOLS = ("linear-svm/v1", "linear-svm/v2", "logistic/v1")


def make_features(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw ten classes in 64 directions behind a rectifier, with noise; standardise the columns."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, rows)
    means, mixing = random.normal(size=(10, 64)), random.normal(size=(64, columns)) / 8
    hidden = means[labels] / 2 + random.normal(size=(rows, 64))
    features = np.maximum(hidden @ mixing + random.normal(size=(rows, columns)) / 2, 0)
    return ((features - features.mean(0)) / features.std(0)).astype(np.float32), labels


def measure(rows: int, columns: int, C: float) -> dict[str, object]:
    """Time both on one case, and compare their predictions on the training rows."""
    features, labels = make_features(rows, columns)
    start = time.perf_counter()
    svm = fit(features, labels, C)
    middle = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        reference = LinearSVC(C=C, dual="auto", random_state=0).fit(features, labels)
    end = time.perf_counter()
    return {
        "rows": rows,
        "columns": columns,
        "C": C,
        "galirep_seconds": middle - start,
        "linear_svc_seconds": end - middle,
        "ratio": (end - middle) / (middle - start),
        "protocol_seconds": {name: time_protocol(name, features, labels) for name in PROTOCOLS},
        "galirep_converged": svm.converged,
        "linear_svc_converged": not caught,
        "same_answers": float(np.mean(svm.predict(features) == reference.predict(features))),
    }


def time_protocol(name: str, features: np.ndarray, labels: np.ndarray) -> float:
    start = time.process_time()
    probe((features, labels), (features[:100], labels[:100]), protocol=name)
    return time.process_time() - start


def format_row(row: dict[str, object]) -> str:
    text = (
        "{rows:5} x {columns:4}, C {C:g}: {galirep_seconds:.2f} s, LinearSVC {linear_svc_seconds:.2f} s, {ratio:.1f}x"
    ).format(**row)
    seconds = ", ".join(f"{name} {spent:.1f}" for name, spent in row["protocol_seconds"].items())
    return text + ("" if row["linear_svc_converged"] else " (LinearSVC did not converge)") + f"; CPU s: {seconds}"


def main() -> None:
    parser = argparse.ArgumentParser(description="A linear SVM of galirep probe against scikit-learn's LinearSVC.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    results = []
    for case in CASES:
        results.append(measure(*case))
        print(format_row(results[-1]), file=sys.stderr if as_json else sys.stdout, flush=True)
    if as_json:
        print(json.dumps({"rows": results}))


if __name__ == "__main__":
    main()
