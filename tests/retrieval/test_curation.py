"""Near-duplicates and outliers in the result of `retrieve`."""

import numpy as np
import pytest
from toy_galleries import clusters, cosines_of, write_embeddings

import galirep
from galirep.errors import DataError


def test_near_duplicates_are_pairs_and_groups_of_pairs(tmp_path):
    features, labels = clusters(50)
    # the same direction: a group of three
    features[[10, 30]] = features[4] * 2
    features[20] = features[6] + 0.01
    path = write_embeddings(tmp_path / "g.h5", features, labels)
    value = galirep.retrieve(path, duplicates=0.9999).summary()["duplicates"]
    name = "g/{:04d}.png".format
    three = {(p["query"], p["gallery"]) for p in value["pairs"][:3]}
    assert three == {(name(4), name(10)), (name(4), name(30)), (name(10), name(30))}
    assert value["n_pairs"] == 4 and (value["pairs"][3]["query"], value["pairs"][3]["gallery"]) == (name(6), name(20))
    assert value["groups"] == [[name(4), name(10), name(30)], [name(6), name(20)]]
    assert [p["similarity"] for p in value["pairs"]] == sorted((p["similarity"] for p in value["pairs"]), reverse=True)
    cosines = cosines_of(path)[0][np.triu_indices(50, 1)]
    assert galirep.retrieve(path, duplicates=0.6).summary()["duplicates"]["n_pairs"] == (cosines >= 0.6).sum()


def test_near_duplicates_across_files_are_pairs_of_a_query_and_a_row(galleries, tmp_path):
    gallery, _ = galleries
    features, labels = clusters(400)
    queries = write_embeddings(tmp_path / "leak.h5", features[100:103], labels[100:103])
    value = galirep.retrieve(gallery, queries, duplicates=1.0).summary()["duplicates"]
    assert sorted((p["query"], p["gallery"]) for p in value["pairs"]) == [
        (f"leak/000{i}.png", f"gallery/010{i}.png") for i in range(3)
    ]
    near = galirep.retrieve(gallery, queries, metric="l2", duplicates=0.0).summary()["duplicates"]
    assert near["n_pairs"] == 3 and near["pairs"][0] == {
        "query": "leak/0000.png",
        "gallery": "gallery/0100.png",
        "distance": 0.0,
    }


def test_too_many_pairs_are_refused(galleries, monkeypatch):
    monkeypatch.setattr("galirep.retrieval.curation.MAX_PAIRS", 1000)
    with pytest.raises(
        DataError, match=r"more than 1,000 pairs are within the duplicates threshold -1\.0: use a stricter one"
    ):
        galirep.retrieve(galleries[0], duplicates=-1.0)


def test_outliers_are_the_rows_farthest_from_their_neighbours(tmp_path):
    r = np.random.default_rng(0)
    features = r.normal(size=(60, 16)).astype(np.float32) + 5
    features[[17, 40]] *= -1
    features[40] += r.normal(size=16)
    path = write_embeddings(tmp_path / "g.h5", features, np.zeros(60, int))
    result = galirep.retrieve(path, k=5, outliers=4)
    listed = result.summary()["outliers"]
    means = result.distances.mean(axis=1)
    assert {row["id"] for row in listed[:2]} == {"g/0017.png", "g/0040.png"}
    assert [row["id"] for row in listed] == [f"g/{i:04d}.png" for i in np.argsort(-means, kind="stable")[:4]]
    assert listed[0]["mean_distance"] == pytest.approx(means.max(), rel=1e-6) and listed[0]["label"] == "ant"
