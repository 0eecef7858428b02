"""Rows of metrics.jsonl: read as written, what does not apply left out, what is missing told."""

import dataclasses
import json
import math

import pytest

from galirep.errors import CheckpointError
from galirep.runs.metrics import Evaluation, MetricsRow

EVALUATION = Evaluation(
    **{f.name: 1.0 for f in dataclasses.fields(Evaluation) if f.name not in ("images", "knn_error")}, images=8
)
ROW = MetricsRow(
    step=3,
    epoch=0.5,
    loss_d=1.2,
    probs=[[0.5, 0.5], [0.25, 0.75]],
    loss_g=2.5,
    weight_norms={"E": 1.0, "G": 2.0, "D": 3.0},
    gradient_norms={"E": 0.1, "G": 0.2, "D": 0.3},
    mu_std=1.0,
    sigma=0.5,
    lr=1e-3,
    seconds={"interval": 1.0, "data_wait": 0.1},
    images_per_second=100.0,
    peak_memory_mib=10.0,
    r1=0.01,
    evaluation=EVALUATION,
)


def test_a_row_is_read_as_it_was_written():
    line = json.dumps(ROW.to_dict())
    assert MetricsRow.from_dict(json.loads(line)) == ROW
    assert {"penalty", "warnings", "knn_error"}.isdisjoint(json.loads(line)) and "r1" in line
    assert "knn_error" not in json.loads(line)["evaluation"]


def test_rows_of_other_versions():
    row = ROW.to_dict()
    assert MetricsRow.from_dict({**row, "entropy": 1.0, "evaluation": {**row["evaluation"], "fid": 3.0}}) == ROW
    with pytest.raises(CheckpointError, match="the metrics of step 3 are incomplete or damaged: loss_d is missing"):
        MetricsRow.from_dict({name: value for name, value in row.items() if name != "loss_d"})


@pytest.mark.parametrize("bad", (math.nan, math.inf))
def test_what_is_not_finite_is_seen(bad):
    assert ROW.is_finite()
    assert not dataclasses.replace(ROW, loss_g=bad).is_finite()
    assert not dataclasses.replace(ROW, weight_norms={"E": bad}).is_finite()
    assert not dataclasses.replace(ROW, evaluation=dataclasses.replace(EVALUATION, kl=bad)).is_finite()
    gradients = dataclasses.replace(ROW, gradient_norms={"G": bad})
    assert not gradients.is_finite() and gradients.is_finite(gradients=False)
