"""Time one linear SVM of `galirep probe` against scikit-learn's LinearSVC, and whole protocols.

    OMP_NUM_THREADS=1 python benchmarks/probe_cost.py [--paper] [--json]

Features are random, of ten overlapping classes, standardised. The SVM is that of linear-svm/v1, whose function
LinearSVC minimises; then linear-svm/v1, linear-svm/v2 and logistic/v1 are timed, choice of C included. LinearSVC runs
with its own choice of primal or dual and 1,000 iterations; where it does not converge, its row says so. Seen on one
busy CPU core: 2.6x to 21x, more with more columns and with a larger C; 1,000 x 5,376: linear-svm/v1 2 CPU seconds,
linear-svm/v2 8, logistic/v1 4.

With `--paper`, ali-l2svm/v1 runs as a whole at the size of the GALI paper's SVHN table (600 fits of 1,000 rows, 5,376
columns, 26,032 test rows; random features again), and LinearSVC makes the fits of some of its draws: two of the ten
that choose C, over the whole grid, and two of the hundred that are measured. Its time for all 600 is extrapolated.
Seen: 12.0x, errors of the same draws within 0.004 points (2026-11-30, one busy core).
"""

import argparse
import json
import resource
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from unittest.mock import patch

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from galirep.probing import protocols
from galirep.probing.linear_classifier import LinearClassifier
from galirep.probing.linear_svm import fit, fit_path
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


# rows of the training set (only its 10,000 held-out rows and the drawn ones are used), test rows and columns
PAPER = (25_000, 26_032, 5376)
SAMPLED_DRAWS = 2


def make_features(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw ten classes in 64 directions behind a rectifier, with noise; standardise the columns."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 10, rows)
    means, mixing = random.normal(size=(10, 64)), random.normal(size=(64, columns)) / 8
    hidden = means[labels] / 2 + random.normal(size=(rows, 64))
    features = np.empty((rows, columns), np.float32)
    for start in range(0, rows, 4096):
        part = hidden[start : start + 4096]
        features[start : start + 4096] = np.maximum(part @ mixing + random.normal(size=(len(part), columns)) / 2, 0)
    features -= features.mean(0)
    features /= features.std(0)
    return features, labels


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


def measure_paper() -> dict[str, object]:
    """Run ali-l2svm/v1 whole, then LinearSVC on the rows of some of its draws."""
    n_train, n_test, columns = PAPER
    features, labels = make_features(n_train + n_test, columns)
    train, test = (features[:n_train], labels[:n_train]), (features[n_train:], labels[n_train:])
    choosing: list[tuple[np.ndarray, np.ndarray]] = []
    measured: list[tuple[np.ndarray, np.ndarray]] = []

    def watched_path(rows: np.ndarray, labels: np.ndarray, grid: Iterable[float]) -> Iterator[LinearClassifier]:
        if len(choosing) < SAMPLED_DRAWS:
            choosing.append((rows, labels))
        return fit_path(rows, labels, grid)

    def watched_fit(rows: np.ndarray, labels: np.ndarray, C: float) -> LinearClassifier:
        if len(measured) < SAMPLED_DRAWS:
            measured.append((rows, labels))
        return fit(rows, labels, C)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    with patch.object(protocols, "fit_path", watched_path), patch.object(protocols, "fit", watched_fit):
        result = probe(train, test, protocol="ali-l2svm/v1", progress=True)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def linear_svc(rows: np.ndarray, labels: np.ndarray, C: float) -> LinearSVC:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return LinearSVC(C=C, dual="auto", random_state=0).fit(rows, labels)

    start = time.process_time()
    for rows, row_labels in choosing:
        for C in result.settings["grid"]:
            # the protocol predicts its held-out rows; here, as many
            linear_svc(rows, row_labels, C).predict(train[0][:10_000])
    choosing_seconds = (time.process_time() - start) / SAMPLED_DRAWS
    start = time.process_time()
    errors = []
    for rows, row_labels in measured:
        errors.append(float(np.mean(linear_svc(rows, row_labels, result.C).predict(test[0]) != test[1])))
    measured_seconds = (time.process_time() - start) / SAMPLED_DRAWS
    extrapolated = result.settings["selection_draws"] * choosing_seconds + result.settings["draws"] * measured_seconds
    return {
        "galirep_cpu_seconds": seconds,
        "linear_svc_cpu_seconds_extrapolated": extrapolated,
        "ratio": extrapolated / seconds,
        "C": result.C,
        "error_mean": result.error_mean,
        "converged": result.converged,
        "errors_of_sampled_draws": result.errors[:SAMPLED_DRAWS],
        "linear_svc_errors_of_sampled_draws": errors,
        "peak_mib": peak / 1024,
        "peak_mib_before": before / 1024,
    }


def format_paper(row: dict[str, object]) -> str:
    return (
        "ali-l2svm/v1 whole: {galirep_cpu_seconds:.0f} CPU s, LinearSVC {linear_svc_cpu_seconds_extrapolated:.0f} "
        "(extrapolated), {ratio:.1f}x; error {error_mean:.4f}, of the sampled draws {errors_of_sampled_draws} against "
        "{linear_svc_errors_of_sampled_draws}; peak memory {peak_mib:.0f} MiB, {peak_mib_before:.0f} before"
    ).format(**row)


def format_row(row: dict[str, object]) -> str:
    text = (
        "{rows:5} x {columns:4}, C {C:g}: {galirep_seconds:.2f} s, LinearSVC {linear_svc_seconds:.2f} s, {ratio:.1f}x"
    ).format(**row)
    seconds = ", ".join(f"{name} {spent:.1f}" for name, spent in row["protocol_seconds"].items())
    return text + ("" if row["linear_svc_converged"] else " (LinearSVC did not converge)") + f"; CPU s: {seconds}"


def main() -> None:
    parser = argparse.ArgumentParser(description="A linear SVM of galirep probe against scikit-learn's LinearSVC.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--paper", action="store_true", help="ali-l2svm/v1 whole, at the paper's size (half an hour)")
    args = parser.parse_args()
    as_json = args.json
    if args.paper:
        paper = measure_paper()
        print(json.dumps(paper) if as_json else format_paper(paper))
        return
    results = []
    for case in CASES:
        results.append(measure(*case))
        print(format_row(results[-1]), file=sys.stderr if as_json else sys.stdout, flush=True)
    if as_json:
        print(json.dumps({"rows": results}))


if __name__ == "__main__":
    main()
