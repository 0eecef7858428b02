"""`embed` on real image files: order, resume after kills, unreadable images, errors in any stage of the pipeline."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import galirep
from galirep.data.catalog import open_data
from galirep.embeddings.embed import embed
from galirep.embeddings.encoder_of import extractor_of
from galirep.embeddings.reader import load_embeddings
from galirep.embeddings.schema import partial_path
from galirep.errors import ConfigError, DataError, PluginError
from galirep.features.extraction import extract
from galirep.features.registry import load_extractor

COUNT = 200


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """Make `galirep_toy` importable in subprocesses too."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "helpers"), prepend=os.pathsep)


def draw(folder, count=COUNT, sides=(12,)):
    generator = np.random.default_rng(0)
    for i in range(count):
        path = folder / ("ant", "bee")[i % 2] / f"{i:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        side = sides[i % len(sides)]
        Image.fromarray(generator.integers(0, 100, (side, side, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def images(tmp_path):
    return draw(tmp_path / "images")


def contents(path):
    with h5py.File(path) as file:
        return file["features"][:].tobytes(), [file[name][:].tolist() for name in ("ids", "labels", "valid", "errors")]


def test_embeds_in_order_with_workers(images, tmp_path):
    result = embed("galirep_toy:build", str(images), tmp_path / "x.h5", batch_size=32, num_workers=2)
    source = open_data(str(images))
    expected, errors = extract(
        extractor_of(load_embeddings(tmp_path / "x.h5").meta, trust_encoder=True), source, batch_size=7, num_workers=0
    )
    assert not errors and not result.errors
    assert (result.rows, result.dim, result.layers, result.resumed_from) == (COUNT, 6, ("hidden", "mu"), 0)
    with load_embeddings(tmp_path / "x.h5") as embeddings:
        assert embeddings.ids.tolist() == list(source.ids) and embeddings.labels.tolist() == source.labels.tolist()
        assert embeddings.label_names == ("ant", "bee")
        np.testing.assert_allclose(embeddings.features[:], expected, atol=1e-5)
        about = embeddings.attributes
    assert (about["encoder"], about["encoder_spec"], about["encoder_sha256"]) == ("toy", "galirep_toy:build", "12ab")
    assert (about["source"], about["source_fingerprint"], about["precision"]) == (
        str(images),
        source.fingerprint,
        "fp32",
    )
    assert not partial_path(tmp_path / "x.h5").exists()


@pytest.mark.parametrize("spec", ["galirep_toy:build", "galirep_toy:free"])
def test_features_do_not_depend_on_neighbours(tmp_path, spec):
    """Features are bit-equal in the last, short batch, in a batch with an unreadable image and in a full one."""
    folder = draw(tmp_path / "some", 50, sides=(12, 9) if spec.endswith("free") else (12,))
    embed(spec, str(folder), tmp_path / "a.h5", batch_size=16)
    names = sorted(folder.rglob("*.png"))
    names[20].write_bytes(b"")
    embed(spec, str(folder), tmp_path / "b.h5", batch_size=16, on_error="skip")
    with load_embeddings(tmp_path / "a.h5") as a, load_embeddings(tmp_path / "b.h5") as b:
        keep = [i for i in range(50) if i != 20]
        assert b.ids.tolist() == a.ids[keep].tolist()
        np.testing.assert_allclose(a.features[keep], b.features[:], rtol=0, atol=0 if spec.endswith("build") else 1e-6)


def test_one_image(tmp_path):
    embed("galirep_toy:build", str(draw(tmp_path / "one", 1)), tmp_path / "x.h5", layers=["mu"])
    with load_embeddings(tmp_path / "x.h5") as embeddings:
        assert embeddings.features.shape == (1, 2) and embeddings.layers == {"mu": slice(0, 2)}


def test_precision(images, tmp_path):
    embed("galirep_toy:build", str(images), tmp_path / "x.h5", device="cpu")
    embed("galirep_toy:build", str(images), tmp_path / "y.h5", device="cpu", precision="bf16", dtype="float16")
    with load_embeddings(tmp_path / "x.h5") as exact, load_embeddings(tmp_path / "y.h5") as rough:
        assert rough.meta.precision == "bf16" and not np.array_equal(exact.features[:], rough.features[:])
        np.testing.assert_allclose(exact.features[:], rough.features[:], atol=0.02)
    with pytest.raises(ConfigError, match="fp16"):
        embed("galirep_toy:build", str(images), tmp_path / "z.h5", device="cpu", precision="fp16")
    assert not partial_path(tmp_path / "z.h5").exists()


def test_an_extractor_object_and_a_source(images, tmp_path):
    import galirep_toy

    extractor = galirep_toy.build()
    source = open_data(str(images)).subset(range(10, 20))
    embed(extractor, source, tmp_path / "x.h5", batch_size=4)
    with load_embeddings(tmp_path / "x.h5") as embeddings:
        np.testing.assert_allclose(embeddings.features[:], extract(extractor, source)[0], atol=1e-6)
        assert embeddings.ids.tolist() == list(source.ids) and embeddings.meta.encoder_spec == "toy"


def start(*args):
    """Start `galirep embed` in a process group of its own."""
    # not -m, which would import the source tree's galirep from the working directory
    program = Path(sys.executable).with_name("galirep")
    command = [program, "embed", "--batch-size", "8", "--device", "cpu", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_rows(path, min_rows, process):
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            with h5py.File(partial_path(path), locking=False) as file:
                if file["progress"][0] >= min_rows:
                    return
        # it does not exist yet, or was read in the middle of a flush
        except (OSError, KeyError):
            pass
        time.sleep(0.01)
    raise AssertionError(process.communicate()[1])


def test_killed_and_resumed_is_equal_to_the_bit(images, tmp_path):
    (sorted(images.rglob("*.png"))[5]).write_bytes(b"no image")
    whole, out = tmp_path / "whole.h5", tmp_path / "x.h5"
    embed("galirep_toy:build", str(images), whole, batch_size=8, on_error="skip")
    args = ("--encoder", "galirep_toy:slow", "--data", images, "--out", out, "--on-error", "skip", "--num-workers", 2)
    process = start(*args)
    wait_for_rows(out, 40, process)
    process.kill()
    process.communicate()
    assert not out.exists()
    result = embed("galirep_toy:slow", str(images), out, batch_size=8, resume=True, on_error="skip")
    assert 40 <= result.resumed_from < COUNT and len(result.errors) == 1
    assert contents(out) == contents(whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_resumable_file(images, tmp_path, number):
    out = tmp_path / "x.h5"
    process = start("--encoder", "galirep_toy:slow", "--data", images, "--out", out, "--num-workers", 1)
    wait_for_rows(out, 16, process)
    os.killpg(process.pid, number)  # the terminal's ^C reaches the workers, too
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "--resume continues" in err and "Traceback" not in err, err
    with load_embeddings(partial_path(out), incomplete=True) as embeddings:
        assert 16 <= len(embeddings) < COUNT and len(embeddings) % 8 == 0
        assert f"{len(embeddings)} of {COUNT} rows" in err
    assert embed("galirep_toy:slow", str(images), out, batch_size=8, resume=True).rows == COUNT


def test_resume(images, tmp_path, cli):
    args = ("embed", "--encoder", "galirep_toy:build", "--data", images, "--out", tmp_path / "x.h5", "--resume")
    assert cli(*args).exit_code == 0  # with nothing to resume it starts
    before = (tmp_path / "x.h5").stat()
    again = cli(*args)
    assert again.exit_code == 0 and "is complete: 200 rows" in again.stdout
    assert (tmp_path / "x.h5").stat().st_mtime_ns == before.st_mtime_ns
    for change, text in (("--dtype=float16", "'float32' is not 'float16'"), ("--layers=mu", "is not (('mu', 2),)")):
        other = cli(*args, change)
        assert other.exit_code == 1 and text in other.stderr and other.stderr.count("\n") == 1
    next(images.rglob("*.png")).unlink()
    other = cli(*args)
    assert other.exit_code == 1 and "fingerprint" in other.stderr and "n_expected 200 is not 199" in other.stderr
    both = cli(*args, "--overwrite")
    assert both.exit_code == 1 and "choose one" in both.stderr


@pytest.mark.parametrize("damage", [b"", b"no image", None], ids=["empty", "text", "truncated"])
def test_unreadable_images_fail_late_and_lose_nothing(images, tmp_path, cli, damage):
    victim = sorted(images.rglob("*.png"))[33]
    victim.write_bytes(victim.read_bytes()[:60] if damage is None else damage)
    name = str(victim.relative_to(images))
    args = ("embed", "--encoder", "galirep_toy:build", "--data", images, "--out", tmp_path / "x.h5")
    failed = cli(*args)
    assert (
        failed.exit_code == 1
        and f"1 of 200 images could not be read: {name}: " in failed.stderr
        and not (tmp_path / "x.h5").exists()
    )
    done = cli(*args, "--resume", "--on-error", "skip", "--json")
    assert done.exit_code == 0 and f'"resumed_from": {COUNT}' in done.stdout and f'"id": "{name}"' in done.stdout
    with load_embeddings(tmp_path / "x.h5") as embeddings:
        assert len(embeddings) == COUNT - 1 and name not in embeddings.ids and embeddings.errors[0][0] == name
    stopped = cli(*args, "--overwrite", "--max-errors", 0)
    assert stopped.exit_code == 1 and "1 images could not be read, more than --max-errors 0" in stopped.stderr


def test_no_readable_image_at_all(tmp_path, cli):
    for path in draw(tmp_path / "bad", 5).rglob("*.png"):
        path.write_bytes(b"")
    done = cli(
        "embed",
        "--encoder",
        "galirep_toy:build",
        "--data",
        tmp_path / "bad",
        "--out",
        tmp_path / "x.h5",
        "--on-error",
        "skip",
    )
    assert done.exit_code == 1 and "none of the 5 images" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]
    with pytest.raises(DataError, match="more than --max-errors 1"):
        embed("galirep_toy:build", str(tmp_path / "bad"), tmp_path / "x.h5", batch_size=2, max_errors=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad"]
    # the same command with images that can be read
    draw(tmp_path / "bad", 5)
    assert embed("galirep_toy:build", str(tmp_path / "bad"), tmp_path / "x.h5").rows == 5


def test_nan_features_end_the_job_and_name_images(tmp_path):
    folder = draw(tmp_path / "some", 40)
    white = sorted(folder.rglob("*.png"))[30]
    Image.new("RGB", (12, 12), "white").save(white)
    with pytest.raises(DataError, match=r"NaN or infinite for 1 of 4 images: bee/0021\.png"):
        embed("galirep_toy:poisoned", str(folder), tmp_path / "x.h5", batch_size=4)
    with load_embeddings(partial_path(tmp_path / "x.h5"), incomplete=True) as embeddings:
        assert len(embeddings) == 28
    with pytest.raises(DataError, match="NaN or infinite"):
        import galirep_toy

        extract(galirep_toy.poisoned(), open_data(str(folder)))


class Breaks(torch.nn.Module):
    """An extractor that fails at its third batch (the first call is the check)."""

    name, dim, image_size, calls = "breaks", 1, 8, 0

    def forward(self, images):
        self.calls += 1
        if self.calls > 3:
            raise RuntimeError("out of order")
        return images.mean((1, 2, 3))[:, None]


def test_errors_of_any_stage_reach_the_caller(images, tmp_path, monkeypatch):
    with pytest.raises(RuntimeError, match="out of order"):
        embed(Breaks(), str(images), tmp_path / "x.h5", batch_size=8)
    with load_embeddings(partial_path(tmp_path / "x.h5"), incomplete=True) as embeddings:
        assert len(embeddings) == 16  # what was computed is kept
    source = open_data(str(images))
    monkeypatch.setattr(source, "read", lambda index: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        embed("galirep_toy:build", source, tmp_path / "y.h5", num_workers=0)
    monkeypatch.setattr(
        "galirep.embeddings.writer.EmbeddingWriter.append",
        lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")),
    )
    with pytest.raises(OSError, match="Input/output error"):
        embed("galirep_toy:build", str(images), tmp_path / "z.h5", batch_size=4)


def test_bad_options(images, tmp_path, cli):
    def failing(*args):
        done = cli("embed", "--data", images, "--out", tmp_path / "x.h5", *args)
        assert done.exit_code in (1, 2) and "Traceback" not in done.stderr
        return done.stderr

    assert "is claimed by" not in failing("--encoder", "pixel") and "did you mean 'pixels'" in failing(
        "--encoder", "pixel"
    )
    assert "--encoder" in failing()
    toy = ("--encoder", "galirep_toy:build")
    assert "nowhere' does not exist" in failing(*toy, "--data", tmp_path / "nowhere")
    assert "the folder" in failing(*toy, "--out", tmp_path / "no" / "x.h5")
    assert "'int8'" in failing(*toy, "--dtype", "int8")
    (tmp_path / "x.h5").write_text("mine")
    assert "exists: choose another name" in failing(*toy)
    assert (tmp_path / "x.h5").read_text() == "mine"
    with pytest.raises(ConfigError, match="batch_size 0"):
        embed("galirep_toy:build", str(images), tmp_path / "y.h5", batch_size=0)
    for wrong in (0, 0.5, float("nan")):
        with pytest.raises(ConfigError, match=f"max_upscale is {wrong:g}, but must be 1 or more"):
            embed("galirep_toy:build", str(images), tmp_path / "y.h5", max_upscale=wrong)
    with pytest.raises(ConfigError, match=r"^layers 'mu' is one text, not a list of names: write \['mu'\]$"):
        embed("galirep_toy:build", str(images), tmp_path / "y.h5", layers="mu")
    assert sorted(p.name for p in tmp_path.glob("*.h5*")) == ["x.h5"]


def test_a_path_as_encoder(images, tmp_path):
    source = open_data(images).subset(range(5))
    for encoder, name in (("pixels:8", "x.h5"), (Path("pixels:8"), "y.h5")):
        embed(encoder, source, tmp_path / name)
    with load_embeddings(tmp_path / "x.h5") as by_text, load_embeddings(tmp_path / "y.h5") as by_path:
        assert by_text.meta.encoder_spec == by_path.meta.encoder_spec
        assert np.array_equal(by_text.features[:], by_path.features[:])


def test_one_text_as_layers_is_refused_everywhere(images, tmp_path):
    path = tmp_path / "x.h5"
    embed("galirep_toy:build", open_data(images).subset(range(20)), path)
    galirep.build_index(path, tmp_path / "x.faiss")
    calls = (
        lambda: galirep.load_encoder("galirep_toy:build", layers="hidden,mu"),
        lambda: load_extractor("galirep_toy:build", layers="hidden,mu"),
        lambda: galirep.probe(path, layers="hidden,mu"),
        lambda: galirep.build_index(path, tmp_path / "y.faiss", layers="hidden,mu"),
        lambda: galirep.retrieve(path, path, layers="hidden,mu"),
        lambda: galirep.retrieve(tmp_path / "x.faiss", path, layers="hidden,mu"),
        lambda: load_embeddings(path, "hidden,mu"),
    )
    for call in calls:
        with pytest.raises(ConfigError, match=r"^layers 'hidden,mu' is one text.*write \['hidden', 'mu'\]$"):
            call()


def test_the_extractor_of_a_file(images, tmp_path):
    embed("galirep_toy:build", open_data(str(images)).subset(range(5)), tmp_path / "x.h5", layers=["mu"])
    with load_embeddings(tmp_path / "x.h5") as embeddings:
        meta = embeddings.meta
    assert extractor_of(meta, trust_encoder=True).dim == 2
    with pytest.raises(
        DataError, match="'pixels:8' is not the one that made the file: encoder 'toy' is not 'pixels-8'"
    ):
        extractor_of(meta, "pixels:8")
    with pytest.raises(PluginError, match="one layer"):
        embed(Breaks(), str(images), tmp_path / "y.h5", layers=["mu"])
