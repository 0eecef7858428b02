"""Batches: permutations, positions and batches across the end of an epoch."""

import pytest
import torch

from galirep.data.batches import Batches, derive_seed
from galirep.errors import ConfigError


def batches(n=10, size=4, seed=0):
    pixels = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 8, 8).contiguous()
    return Batches(pixels, size, seed, torch.device("cpu"))


def order(batches, count):
    return torch.cat([batches.indices(i) for i in range(count)]).tolist()


def test_every_epoch_is_a_different_permutation():
    seen = order(batches(), 10)  # 40 indices: four epochs of 10, with batches across their ends
    epochs = [seen[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4 and seen[:10] != list(range(10))


def test_a_batch_depends_on_its_number_alone():
    one = batches()
    forwards = {i: one.indices(i).tolist() for i in range(12)}
    other = batches()
    assert {i: other.indices(i).tolist() for i in (11, 3, 7, 0, 8, 2)} == {i: forwards[i] for i in (11, 3, 7, 0, 8, 2)}


def test_seeds_give_different_orders():
    assert order(batches(seed=0), 3) != order(batches(seed=1), 3)


def test_a_batch_may_be_the_whole_set_and_span_epochs_of_any_length():
    assert all(sorted(batches(5, 5).indices(i).tolist()) == list(range(5)) for i in range(3))
    assert sorted(order(batches(5, 3), 5)) == sorted(list(range(5)) * 3)


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(
        ConfigError, match="a batch of 11 is larger than the data set of 10 images: pass --batch-size 10 or less"
    ):
        batches(10, 11)


def test_images_are_float32_from_minus_1_to_1():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 8, 8).contiguous()
    images = Batches(pixels, 2, 0, torch.device("cpu")).images(torch.tensor([2, 0, 1]))
    assert images.shape == (3, 3, 8, 8) and images.dtype == torch.float32
    torch.testing.assert_close(images[:, 0, 0, 0], torch.tensor([1.0, -1.0, -0.6]))


@pytest.mark.parametrize(
    ("n", "count", "expected"), [(10, 4, [0, 3, 6, 9]), (3, 32, [0, 1, 2]), (10, 10, list(range(10)))]
)
def test_evenly_spaced_indices_are_at_most_as_many_as_there_are_images(n, count, expected):
    assert batches(n, 2).evenly_spaced(count).tolist() == expected


def test_streams_of_different_positions_differ_and_fit_torch():
    positions = [
        (seed, purpose, number) for seed in (0, 1, 2**31 - 1) for purpose in (0, 1, 2) for number in (0, 1, 10**9)
    ]
    seeds = [derive_seed(*p) for p in positions]
    assert (
        len(set(seeds)) == len(seeds)
        and all(0 <= s < 2**63 for s in seeds)
        and seeds == [derive_seed(*p) for p in positions]
    )
    torch.Generator().manual_seed(max(seeds))
