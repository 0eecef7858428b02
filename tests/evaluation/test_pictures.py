"""Pictures of a trained run: size, error and ids of what is shown, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import galirep
from galirep.data.tensors import to_float
from galirep.errors import CheckpointError, ConfigError, DataError
from galirep.networks.saved import load_autoencoder

RUN = Path(__file__).parents[1] / "fixtures" / "written_by_04408f9" / "run"


def _read(source, ids):
    numbers = {image: i for i, image in enumerate(source.ids)}
    return torch.stack([torch.from_numpy(source.read(numbers[image])).reshape(1, 8, 8) for image in ids])


def test_samples_are_a_grid_that_the_seed_decides(tmp_path):
    paths = [
        galirep.sample(RUN, tmp_path / f"{i}.png", count=6, columns=3, seed=seed, device="cpu")
        for i, seed in enumerate((0, 0, 1))
    ]
    first, second, other = (np.asarray(Image.open(path)) for path in paths)
    assert np.array_equal(first, second) and not np.array_equal(first, other)
    assert first.shape[1] > first.shape[0] > 16


def test_the_error_is_that_of_the_images_shown(tmp_path):
    source = galirep.open_data("sklearn:digits", "test")
    result = galirep.reconstruct(RUN, source, tmp_path / "pairs.png", count=5, device="cpu")
    assert result.out == tmp_path / "pairs.png" and result.out.exists() and result.images == len(set(result.ids)) == 5
    encoder, generator, _ = load_autoencoder(RUN)
    x = to_float(_read(source, result.ids))
    with torch.inference_mode():
        rebuilt = generator(encoder(x)[0])
    assert result.pixel_mse == pytest.approx(float(((x - rebuilt) / 2).square().mean()), rel=1e-5)


def test_the_result_reads_like_the_dict_of_version_0_1(tmp_path):
    result = galirep.reconstruct(RUN, "sklearn:digits", tmp_path / "a.png", split="test", count=2, device="cpu")
    assert list(result) == ["out", "images", "pixel_mse", "ids"] and result["pixel_mse"] == result.pixel_mse
    assert result.to_dict() == {"out": str(tmp_path / "a.png"), **{key: result[key] for key in list(result)[1:]}}


def test_the_commands_print_what_they_wrote(cli, tmp_path):
    out = tmp_path / "pairs.png"
    arguments = ("--data", "sklearn:digits", "--split", "test", "--out", out, "--count", 3, "--device", "cpu")
    done = cli("reconstruct", RUN, *arguments, "--json")
    printed = json.loads(done.stdout)
    assert list(printed) == ["out", "images", "pixel_mse", "ids"] and printed["images"] == len(printed["ids"]) == 3
    assert f"{out}: 3 images and their reconstructions, pixel-MSE {printed['pixel_mse']:.4f} in [0, 1]" in done.stderr
    second = cli("reconstruct", RUN, *arguments)
    assert second.exit_code == 1 and "exists" in second.stderr
    done = cli("sample", RUN, "--out", tmp_path / "prior.png", "--count", 2, "--device", "cpu", "--json")
    assert json.loads(done.stdout) == {"out": str(tmp_path / "prior.png"), "count": 2, "seed": 0}


def _folder(tmp_path, broken, n=4):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(n):
        path = folder / f"{i}.png"
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(path)
        if i in broken:
            path.write_bytes(path.read_bytes()[:40])
    return str(folder)


def test_unreadable_images_are_skipped_where_others_are_left(tmp_path):
    data = _folder(tmp_path, broken={1})
    result = galirep.reconstruct(RUN, data, tmp_path / "a.png", count=3, device="cpu")
    assert sorted(result.ids) == ["0.png", "2.png", "3.png"]
    with pytest.raises(DataError, match=r"1\.png"):
        galirep.reconstruct(RUN, data, tmp_path / "b.png", count=4, device="cpu")
    assert not (tmp_path / "b.png").exists()


def test_no_readable_image_is_an_error(tmp_path):
    data = _folder(tmp_path, broken={0, 1, 2, 3})
    with pytest.raises(DataError, match=r"none of the images of .* can be read"):
        galirep.reconstruct(RUN, data, tmp_path / "a.png", count=3, device="cpu")


@pytest.mark.parametrize("numbers", [{"count": 0}, {"columns": 0}])
def test_numbers_below_1_are_refused(tmp_path, numbers):
    with pytest.raises(ConfigError, match="must be 1 or more"):
        galirep.sample(RUN, tmp_path / "a.png", **numbers)
    with pytest.raises(ConfigError, match="must be 1 or more"):
        galirep.reconstruct(RUN, "sklearn:digits", tmp_path / "a.png", **numbers)


def test_a_folder_without_an_export_is_refused(tmp_path):
    with pytest.raises(CheckpointError):
        galirep.sample(tmp_path, tmp_path / "a.png", device="cpu")


def test_a_count_that_unreadable_images_leave_no_room_for(tmp_path):
    (tmp_path / "data").mkdir()
    for i in range(3):
        Image.fromarray(np.full((8, 8), 60 * i, np.uint8)).save(tmp_path / "data" / f"{i}.png")
    (tmp_path / "data" / "1.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"1\.png: .*, so fewer than the 3 images asked for can be shown"):
        galirep.reconstruct(RUN, str(tmp_path / "data"), tmp_path / "a.png", count=3, device="cpu")
    with pytest.raises(ConfigError, match=r"the name of this output must end in \.png"):
        galirep.sample(RUN, tmp_path / "a.jpg", device="cpu")
