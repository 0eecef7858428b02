"""Reconstructions by several runs, named images, zoom and captions, pixel by pixel; bad input."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_pictures import RUN, RUNS, cells, export, reconstruct_by_hand

import galirep
from galirep.errors import CheckpointError, ConfigError, DataError

DATA, SPLIT = "sklearn:digits", "test"


def _two(tmp_path):
    return [export(tmp_path / "one", seed=1), export(tmp_path / "two", seed=2)]


def test_one_run_is_the_picture_of_version_0_1(tmp_path):
    """Each image, then its reconstruction; 6 x 6 pixels each, 2 white ones between and around."""
    out = tmp_path / "a.png"
    result = galirep.reconstruct(RUN, DATA, out, split=SPLIT, count=3, columns=4, device="cpu")
    x, rebuilt = reconstruct_by_hand(RUN, result.ids)
    got = np.asarray(Image.open(out))
    assert got.shape == (2 * 50 + 2, 4 * 50 + 2, 3)
    want = np.full_like(got, 255)
    for i, image in enumerate(np.stack((x, rebuilt), 1).reshape(-1, 8, 8)):
        top, left = 2 + i // 4 * 50, 2 + i % 4 * 50
        want[top : top + 48, left : left + 48] = np.kron(image, np.ones((6, 6)))[..., None]
    # cells that make_grid leaves empty are white as well
    want[52:100, 102:] = 255
    assert np.array_equal(got, want)


def test_several_runs_are_rows_on_the_same_images(tmp_path):
    runs, out = _two(tmp_path), tmp_path / "a.png"
    result = galirep.reconstruct([RUN, *runs], DATA, out, split=SPLIT, count=3, columns=2, zoom=1, device="cpu")
    rows = [reconstruct_by_hand(run, result.ids) for run in (RUN, *runs)]
    x = rows[0][0]
    blocks = cells(Image.open(out), side=8, rows=[4, 4], columns=2)
    for row, images in enumerate([x, *(rebuilt for _, rebuilt in rows)]):
        assert np.array_equal(blocks[0][row], images[:2]) and np.array_equal(blocks[1][row][0], images[2])
    errors = [np.mean(((x - y) / 255) ** 2) for _, y in rows]
    assert [run for run, _ in result.runs] == [str(run) for run in (RUN, *runs)]
    assert [error for _, error in result.runs] == pytest.approx(errors, abs=2e-3)
    assert result.pixel_mse == pytest.approx(np.mean([error for _, error in result.runs]))
    alone = galirep.reconstruct(runs[0], DATA, tmp_path / "b.png", split=SPLIT, count=3, device="cpu")
    assert alone.ids == result.ids and alone.pixel_mse == result.runs[1][1]


def test_named_images_are_shown_in_their_order(tmp_path):
    source = galirep.open_data(DATA, SPLIT)
    names = [source.ids[5], source.ids[2], source.ids[5]]
    result = galirep.reconstruct(RUN, source, tmp_path / "a.png", ids=names, device="cpu")
    assert result.ids == names and result.images == 3


def test_ids_come_before_positions(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b", "c"):
        Image.new("L", (8, 8)).save(folder / f"{name}.png")
    np.savez(tmp_path / "x.npz", images=np.zeros((3, 8, 8), np.uint8))
    by_position = galirep.reconstruct(RUN, str(folder), tmp_path / "a.png", ids=["2", 0, "b.png"], device="cpu")
    assert by_position.ids == ["c.png", "a.png", "b.png"]
    rows = galirep.open_data(f"npz:{tmp_path / 'x.npz'}").subset([2, 0, 1])
    assert galirep.reconstruct(RUN, rows, tmp_path / "b.png", ids=["0", 0], device="cpu").ids == ["0", "2"]


def test_captions_make_rows_of_one_run_and_zoom_enlarges_its_pairs(tmp_path):
    options = {"split": SPLIT, "count": 2, "device": "cpu"}
    galirep.reconstruct(RUN, DATA, tmp_path / "a.png", zoom=2, **options)
    assert np.asarray(Image.open(tmp_path / "a.png")).shape == (18 + 2, 4 * 18 + 2, 3)
    result = galirep.reconstruct(RUN, DATA, tmp_path / "b.png", zoom=2, captions=True, **options)
    height, width, _ = np.asarray(Image.open(tmp_path / "b.png")).shape
    assert height == 2 * 18 + 2 and width > 2 * 18 + 12 and list(result.to_dict()) == [*result][:4]


def test_the_command_gives_what_the_function_gives(cli, tmp_path):
    runs = _two(tmp_path)
    arguments = ["--data", DATA, "--split", SPLIT, "--count", 4, "--columns", 2, "--zoom", 2, "--seed", 5]
    done = cli("reconstruct", *runs, *arguments, "--captions", "--device", "cpu", "--out", tmp_path / "a.png", "--json")
    printed = json.loads(done.stdout)
    options = {"split": SPLIT, "count": 4, "columns": 2, "zoom": 2, "seed": 5, "captions": True, "device": "cpu"}
    result = galirep.reconstruct(runs, DATA, tmp_path / "b.png", **options)
    assert {**result.to_dict(), "out": printed["out"]} == printed
    assert list(printed) == ["out", "images", "pixel_mse", "ids", "data", "split", "seed", "runs"]
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert f"{printed['runs'][1]['pixel_mse']:.4f} by {runs[1]}" in done.stderr
    source = galirep.open_data(DATA, SPLIT)
    done = cli("reconstruct", RUN, *arguments[:4], "--id", source.ids[3], "--id", "0", "--out", tmp_path / "c.png")
    assert done.exit_code == 0 and "2 images" in done.stdout


def test_the_seed_draws_the_images(tmp_path):
    drawn = [
        galirep.reconstruct(RUN, DATA, tmp_path / f"{i}.png", split=SPLIT, count=3, seed=seed, device="cpu").ids
        for i, seed in enumerate((0, 0, 1))
    ]
    assert drawn[0] == drawn[1] != drawn[2]


BAD = [
    ("--count 500", "sklearn:digits has 445 images, fewer than the 500 asked for"),
    ("--id 1 --count 2", "count 2 and 1 ids of images: give one of them"),
    ("--id nobody", "sklearn:digits has no image 'nobody'; write an id, such as "),
    ("--id -1", "sklearn:digits has no image '-1'; write an id, such as "),
    ("--zoom 9999", "the picture would be "),
]


@pytest.mark.parametrize("command", RUNS)
@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_choices_of_images_are_one_line_and_nothing_is_written(cli, tmp_path, command, arguments, message):
    if command == "interpolate":
        arguments = arguments.replace("--count 500", "--count 250").replace("--id 1", "--pair 1 2")
        arguments = arguments.replace("--id", "--pair 0")
        message = message.replace("ids of images", "pairs")
    out = tmp_path / "a.png"
    done = cli(command, *RUNS[command], *arguments.split(), "--device", "cpu", "--out", out)
    assert done.exit_code == 1 and done.stdout == "" and message in done.stderr, done.stderr
    assert done.stderr.startswith("galirep: error: ") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", RUNS)
def test_runs_data_and_outputs_that_do_not_fit_are_one_line(cli, tmp_path, command):
    run, *data = RUNS[command]
    out = tmp_path / "a.png"
    missing = tmp_path / "missing"
    cases = [
        ((missing, *data, "--out", out), f"{missing} has no exported encoder"),
        ((run, "--data", missing, "--out", out), f"the folder or .tar {str(missing)!r} does not exist"),
        ((run, *data, "--out", missing / "a.png"), f"the folder {missing} does not exist"),
        ((run, *data, "--out", tmp_path), f"{tmp_path} is a directory"),
    ]
    for arguments, message in cases:
        done = cli(command, *arguments, "--device", "cpu")
        assert done.exit_code == 1 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.iterdir())
    out.write_bytes(b"mine")
    done = cli(command, run, *data, "--device", "cpu", "--out", out)
    assert done.exit_code == 1 and f"{out} exists: choose another name or pass --overwrite" in done.stderr
    assert out.read_bytes() == b"mine"
    assert cli(command, run, *data, "--device", "cpu", "--out", out, "--overwrite").exit_code == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("shapes", "described"), [({"size": 16}, "16 pixels in grey"), ({"channels": 3}, "8 pixels in colour")]
)
def test_runs_of_different_images_are_refused(tmp_path, shapes, described):
    other = export(tmp_path / "other", **shapes)
    with pytest.raises(ConfigError, match=rf"other takes images of {described}, but .* of 8 pixels in grey: name runs"):
        galirep.reconstruct([RUN, other], DATA, tmp_path / "a.png", split=SPLIT, device="cpu")
    with pytest.raises(CheckpointError, match="missing has no exported encoder"):
        galirep.reconstruct([RUN, tmp_path / "missing"], DATA, tmp_path / "a.png", split=SPLIT, device="cpu")
    with pytest.raises(ConfigError, match="no run: name one or several"):
        galirep.reconstruct([], DATA, tmp_path / "a.png", split=SPLIT, device="cpu")
    assert not (tmp_path / "a.png").exists()


def test_too_few_readable_images_and_basenames(tmp_path):
    folder = tmp_path / "images" / "zero"
    folder.mkdir(parents=True)
    for i in range(4):
        Image.new("L", (8, 8)).save(folder / f"{i}.png")
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:40])
    (folder / "1.png").write_bytes(b"")
    data = str(tmp_path / "images")
    with pytest.raises(DataError, match=r"of the 4 images of .*, 2 can be read, fewer than the 3 asked for"):
        galirep.reconstruct(RUN, data, tmp_path / "a.png", count=3, device="cpu")
    with pytest.raises(DataError, match=r"did you mean 'zero/3\.png'\?"):
        galirep.reconstruct(RUN, data, tmp_path / "a.png", ids=["3.png"], device="cpu")
    with pytest.raises(DataError, match=r"zero/1\.png: the file is empty"):
        galirep.reconstruct(RUN, data, tmp_path / "a.png", ids=["zero/1.png"], device="cpu")
    with pytest.raises(DataError, match="has no image '4'"):
        galirep.reconstruct(RUN, data, tmp_path / "a.png", ids=[4], device="cpu")
    assert not (tmp_path / "a.png").exists()


def test_networks_run_in_blocks_of_the_same_result(tmp_path, monkeypatch):
    import galirep.evaluation.pictures.reconstruct as module

    whole = galirep.reconstruct(RUN, DATA, tmp_path / "a.png", split=SPLIT, count=9, device="cpu")
    blocks = module.image_blocks
    monkeypatch.setattr(module, "image_blocks", lambda pixels, device: blocks(pixels, 4, device))
    parts = galirep.reconstruct(RUN, DATA, tmp_path / "b.png", split=SPLIT, count=9, device="cpu")
    assert parts.pixel_mse == pytest.approx(whole.pixel_mse, rel=1e-5)
    assert torch.is_inference_mode_enabled() is False
