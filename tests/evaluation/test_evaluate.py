"""`evaluate`: each metric against a few lines of numpy or torch, the file that keeps it, and bad input."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import galirep
from galirep.data.memory import load_images
from galirep.data.tensors import to_float
from galirep.errors import CheckpointError, ConfigError, DataError, PluginError
from galirep.evaluation.baselines import fit_pca
from galirep.evaluation.evaluate import evaluate_runs
from galirep.evaluation.measures.inpainting import draw_masks
from galirep.evaluation.measures.registry import MEASURES
from galirep.evaluation.subjects import baseline_subject, load_subject, network_subject
from galirep.networks.families import family
from galirep.networks.parts import Shapes
from galirep.networks.saved import load_autoencoder

RUN = Path(__file__).parents[1] / "fixtures" / "written_by_04408f9" / "run"
DIGITS = {"data": "sklearn:digits", "device": "cpu", "num_workers": 0}
NETWORK = "random:compact,size=8,channels=1,width=4,latent=6#mu"


@pytest.fixture(scope="module")
def test_images():
    return load_images(galirep.open_data("sklearn:digits", "test"), 8, num_workers=0)


@pytest.fixture(scope="module")
def autoencoder():
    encoder, generator, _ = load_autoencoder(RUN)
    return encoder, generator


def _evaluate(metrics, run=RUN, **options):
    return galirep.evaluate(run, metrics=metrics, **{**DIGITS, **options})


def _unit(x):
    return (x.double().numpy() + 1) / 2


def test_pixel_mse_in_ten_lines_of_numpy(test_images, autoencoder, tmp_path):
    encoder, generator = autoencoder
    x = to_float(test_images.tensor())
    with torch.inference_mode():
        rebuilt = generator(encoder(x)[0])
    each = ((_unit(x) - _unit(rebuilt)) ** 2).mean((1, 2, 3))
    batches = each[np.random.default_rng(0).permutation(len(each))[:400]].reshape(4, 100).mean(1)
    result = _evaluate(["pixel-mse"], save_values=tmp_path / "values.h5")
    entry = result.metrics["pixel-mse"]
    assert entry["mean"] == pytest.approx(each.mean(), rel=1e-5) and entry["n"] == len(x) == 445
    assert entry["std"] == pytest.approx(batches.std(ddof=1), rel=1e-3) and "batches of 100" in entry["std_over"]
    assert entry["mean_image"]["mean"] == pytest.approx(_unit(x).var(0).mean(), rel=1e-5)
    with h5py.File(tmp_path / "values.h5") as file:
        group = file["runs/0"]
        assert group.attrs["run"] == str(RUN) and group["ids"].asstr()[:3].tolist() == test_images.ids[:3]
        np.testing.assert_allclose(group["pixel-mse/mse"][:], each, rtol=1e-4)


def test_what_a_number_needs_to_be_repeated_stands_beside_it(test_images):
    values = _evaluate("pixel-mse,posterior").to_dict()
    header = json.loads((RUN / "export" / "encoder.json").read_text())
    assert list(values) == ["run", "data", "warnings", "pixel-mse", "posterior"]
    assert values["run"]["sha256"]["encoder"] == header["sha256"] and values["run"]["step"] == header["step"]
    assert values["data"] == {
        "spec": "sklearn:digits",
        "split": "test",
        "fingerprint": test_images.fingerprint,
        "size": 8,
        "channels": 1,
        "images": 445,
        "errors": 0,
    }
    assert values["posterior"]["settings"] == {"seed": 0, "cycles": 445}
    assert values["posterior"]["versions"].keys() == {"galirep", "torch", "python"}
    assert json.loads(json.dumps(values)) == values


def test_inpainting_in_ten_lines_of_numpy(test_images, autoencoder, tmp_path):
    encoder, generator = autoencoder
    x = to_float(test_images.tensor())
    mask = draw_masks(len(x), 8, seed=3)
    with torch.inference_mode():
        inside = generator(encoder(torch.where(mask, torch.tensor(-2.0), x))[0])
    each = []
    for a, b, m in zip(_unit(x), _unit(inside), mask.numpy(), strict=True):
        each.append(((a - b) ** 2)[m].sum() / m.sum())
    result = _evaluate(["inpainting"], seed=3, save_values=tmp_path / "v.h5", extractor=NETWORK)
    entry = result.metrics["inpainting"]
    assert entry["mean"] == pytest.approx(np.mean(each), rel=1e-5)
    areas = mask.sum((1, 2, 3)).numpy()
    assert entry["by_area"] == pytest.approx((np.array(each) * areas).sum() / areas.sum(), rel=1e-5)
    assert entry["masks_sha256"] == hashlib.sha256(np.packbits(mask.numpy()).tobytes()).hexdigest()
    assert entry["trained_with_masks"] is False and any("never saw a masked image" in w for w in result.warnings)
    with h5py.File(tmp_path / "v.h5") as file:
        assert np.array_equal(file["runs/0/inpainting/mask"][:], mask[:, 0].numpy())
    network, composite = galirep.load_extractor(NETWORK), torch.where(mask, inside, x)
    with torch.inference_mode():
        f, g = network(x).double(), network(composite).double()
    expected = float((f - g).square().mean() / f.var(0, correction=0).mean())
    assert entry["feature_mse"]["mean"] == pytest.approx(expected, rel=1e-4)


def test_feature_mse_by_hand(test_images, autoencoder):
    encoder, generator = autoencoder
    x, network = to_float(test_images.tensor()), galirep.load_extractor(NETWORK)
    with torch.inference_mode():
        f, g = network(x).double(), network(generator(encoder(x)[0])).double()
    result = _evaluate(["feature-mse"], extractor=NETWORK)
    entry = result.metrics["feature-mse"]
    assert entry["unscaled"]["mean"] == pytest.approx(float((f - g).square().mean()), rel=1e-4)
    assert entry["feature_variance"] == pytest.approx(float(f.var(0, correction=0).mean()), rel=1e-4)
    assert entry["mean"] == pytest.approx(entry["unscaled"]["mean"] / entry["feature_variance"])
    assert entry["extractor"]["sha256"] == network.sha256 and entry["extractor"]["spec"] == NETWORK
    assert not any("M(.)" in text for text in result.warnings)


def test_the_m_of_training_is_told(autoencoder):
    network = galirep.load_extractor(NETWORK)
    about = {"adapter": {"name": network.name, "sha256": network.sha256}}
    subject = network_subject("mine", *autoencoder, Shapes(8, 1, 4, width=4), **about)
    (text,) = _evaluate(["feature-mse"], subject, extractor=NETWORK).warnings
    assert "is the M(.) that mine was trained with" in text


def test_the_posterior_and_the_cycle(test_images, autoencoder):
    encoder, generator = autoencoder
    with torch.inference_mode():
        mu, log_sigma = (t.double() for t in encoder(to_float(test_images.tensor())))
        z = torch.randn(445, 4, generator=torch.Generator().manual_seed(0))
        cycle = (encoder(generator(z))[0] - z).double().square().mean(1)
    entry = _evaluate(["posterior"]).metrics["posterior"]
    kl = ((mu**2 + (2 * log_sigma).exp() - 1) / 2 - log_sigma).sum(1)
    variance = mu.var(0, correction=0) + (2 * log_sigma).exp().mean(0)
    aggregate = ((mu.mean(0) ** 2 + variance - 1 - variance.log()) / 2).sum()
    assert entry["mean"] == pytest.approx(float(kl.mean()), rel=1e-5)
    assert entry["std"] == pytest.approx(float(kl.std()), rel=1e-4)
    assert entry["mu_variance"] == pytest.approx(float(mu.var(0, correction=0).mean()), rel=1e-4)
    assert entry["aggregate_variance"] == pytest.approx(float(variance.mean()), rel=1e-4)
    assert entry["aggregate_kl"] == pytest.approx(float(aggregate), rel=1e-4)
    assert entry["latent_cycle"]["mean"] == pytest.approx(float(cycle.mean()), rel=1e-4)
    assert entry["latent_cycle"]["n"] == 445


def test_the_probe_is_that_of_embedding_files(tmp_path):
    for split in ("train", "test"):
        galirep.embed(RUN, "sklearn:digits", tmp_path / f"{split}.h5", split=split, layers=["mu"], device="cpu")
    expected = galirep.probe(tmp_path / "train.h5", tmp_path / "test.h5")
    entry = _evaluate(["probe"], layers=["mu"]).metrics["probe"]
    assert (entry["mean"], entry["n"], entry["C"]) == (expected.error_mean, expected.n_test, expected.C)
    assert entry["n_train"] == expected.n_train and entry["layers"] == {"mu": 4}
    assert entry["train"]["split"] == "train" and entry["std"] is None
    changed = _evaluate(["probe"], layers=["mu"], settings={"grid": [1.0], "scalings": ["one"]}).metrics["probe"]
    assert changed["protocol"] == "linear-svm/custom" and changed["C"] == 1.0


def test_the_command_gives_what_python_gives(cli, tmp_path):
    arguments = ("--data", "sklearn:digits", "--device", "cpu", "--metrics", "posterior,pixel-mse", "--json")
    done = cli("evaluate", RUN, *arguments, "--out", tmp_path / "a.json", "--save-values", tmp_path / "a.h5")
    assert done.exit_code == 0, done.stderr
    printed, expected = json.loads(done.stdout), _evaluate(["pixel-mse", "posterior"]).to_dict()
    assert json.loads((tmp_path / "a.json").read_text()) == printed
    for values in (printed, expected):
        for entry in (values["pixel-mse"], values["posterior"]):
            entry.pop("seconds")
    assert printed == expected
    assert "pixel-mse" in done.stderr and f"written {tmp_path / 'a.h5'}" in done.stderr


def test_several_runs_are_a_table(cli, tmp_path):
    other = shutil.copytree(RUN / "best", tmp_path / "best")
    done = cli("evaluate", RUN, other, "--data", "sklearn:digits", "--metrics", "pixel-mse,probe", "--layers", "mu")
    assert done.exit_code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[1].split() == ["run", "pixel-mse", "probe"] and lines[2].startswith(str(RUN)) and len(lines) == 4
    done = cli("evaluate", RUN, "pixels", "--data", "sklearn:digits", "--metrics", "probe", "--layers", "mu")
    assert done.exit_code == 1 and "one layer of features" in done.stderr
    done = cli("evaluate", RUN, "pixels:8", "--data", "sklearn:digits", "--metrics", "probe", "--json")
    runs = json.loads(done.stdout)["runs"]
    assert [run["run"]["kind"] for run in runs] == ["run", "extractor"]
    assert runs[1]["probe"]["n_features"] == 192


def test_baselines_are_subjects_too(test_images, digit_images):
    subject = baseline_subject("PCA", fit_pca(digit_images.pixels, 8), 8, 1)
    result = galirep.evaluate(
        subject, test_images, metrics=["pixel-mse", "probe"], probe_train=digit_images, device="cpu"
    )
    assert 0 < result["pixel-mse"]["mean"] < result["pixel-mse"]["mean_image"]["mean"]
    assert result["probe"]["n_train"] == len(digit_images) and result["run"]["kind"] == "baseline"


def _forbid(monkeypatch, allowed=()):
    """Let every metric but those allowed fail if it is measured."""
    from galirep.evaluation import evaluator

    def fail(scene):
        raise AssertionError("measured again")

    kept = {name: m if name in allowed else type(m)(**{**m.__dict__, "run": fail}) for name, m in MEASURES.items()}
    monkeypatch.setattr(evaluator, "MEASURES", kept)


def test_finished_metrics_are_kept(tmp_path, monkeypatch):
    out = tmp_path / "a.json"
    first = _evaluate(["pixel-mse"], out=out)
    with monkeypatch.context() as patch:
        _forbid(patch, allowed=["posterior"])
        second = _evaluate(["pixel-mse", "posterior"], out=out)
        assert second.metrics["pixel-mse"] == first.metrics["pixel-mse"] and "posterior" in second.metrics
        assert _evaluate(["pixel-mse"], out=out) == second
        assert second.data["images"] == 445
        with pytest.raises(AssertionError, match="measured again"):
            _evaluate(["pixel-mse"], out=out, overwrite=True)
    assert list(_evaluate(["posterior"], out=out, overwrite=True).metrics) == ["posterior"]
    assert list(json.loads(out.read_text())) == ["run", "data", "warnings", "posterior"]


def test_what_was_finished_before_an_interruption_is_kept(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        _forbid(patch, allowed=["pixel-mse"])
        with pytest.raises(AssertionError):
            _evaluate(["pixel-mse", "posterior"], out=tmp_path / "a.json")
    assert "pixel-mse" in json.loads((tmp_path / "a.json").read_text())
    _forbid(monkeypatch, allowed=["posterior"])
    assert set(_evaluate(["pixel-mse", "posterior"], out=tmp_path / "a.json").metrics) == {"pixel-mse", "posterior"}


def test_another_run_data_or_setting_is_refused(tmp_path):
    out = tmp_path / "a.json"
    _evaluate(["inpainting"], out=out)
    before = out.read_bytes()
    with pytest.raises(ConfigError, match=r"has an evaluation on other data .*--overwrite"):
        _evaluate(["inpainting"], out=out, split="train")
    with pytest.raises(ConfigError, match="has inpainting with seed 0, not 1"):
        _evaluate(["inpainting"], out=out, seed=1)
    with pytest.raises(ConfigError, match="is not what is evaluated now, or has changed"):
        _evaluate(["inpainting"], RUN / "best", out=out)
    assert out.read_bytes() == before
    # the same run at another place is the same run
    moved = shutil.copytree(RUN, tmp_path / "moved")
    assert _evaluate(["inpainting"], moved, out=out).metrics["inpainting"] == json.loads(before)["inpainting"]
    (tmp_path / "b.json").write_text('{"a": 1}')
    with pytest.raises(ConfigError, match="is not a result of galirep evaluate"):
        _evaluate(["inpainting"], out=tmp_path / "b.json")


def test_metrics_by_default_are_those_that_can_be_had():
    assert list(_evaluate(None).metrics) == ["pixel-mse", "inpainting", "posterior"]
    result = _evaluate(None, extractor="random:compact,size=8,channels=1,width=32,latent=500#mu")
    assert list(result.metrics) == ["pixel-mse", "feature-mse", "kid", "inpainting", "posterior"]
    assert any(text.startswith("fid is left out: fid of 445 images in 500 features") for text in result.warnings)


def test_images_of_the_training_are_told():
    (text,) = _evaluate(["pixel-mse"], split="train").warnings
    assert "was trained on these images" in text


def test_the_split_by_default_is_test_or_val(tmp_path):
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(np.full((8, 8), ord(name), np.uint8)).save(tmp_path / split / name / "0.png")
    result = _evaluate(["pixel-mse"], data=str(tmp_path))
    assert result.data["split"] == "val" and result.data["images"] == 2
    assert result.metrics["pixel-mse"]["std"] is None
    assert _evaluate(["pixel-mse"]).data["split"] == "test"


def test_unreadable_images_are_left_out_and_told(tmp_path):
    for i in range(4):
        Image.fromarray(np.full((8, 8), 60 * i, np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:40])
    result = _evaluate(["pixel-mse"], data=str(tmp_path))
    assert result.metrics["pixel-mse"]["n"] == 3 and result.data["errors"] == 1
    assert re.search(r"1 image of .* cannot be read and is left out: 1\.png: ", result.warnings[0])
    (tmp_path / "2.png").write_bytes(b"")
    result = _evaluate(["pixel-mse"], data=str(tmp_path))
    assert re.search(r"2 images of .* cannot be read and are left out, the first is 1\.png: ", result.warnings[0])


def test_unreadable_training_images_of_a_probe_are_told(tmp_path, cli):
    for split, count in (("train", 4), ("test", 2)):
        for name, grey in (("a", 20), ("b", 200)):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.random.default_rng(i).integers(grey - 20, grey + 20, (8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    (tmp_path / "train" / "a" / "3.png").write_bytes(b"none")
    done = cli("evaluate", RUN, "--data", tmp_path, "--metrics", "probe", "--device", "cpu", "--json")
    entry = json.loads(done.stdout)["probe"]
    assert entry["n_train"] == 7 and (entry["train"]["images"], entry["train"]["errors"]) == (7, 1)
    assert "1 training image of " in done.stderr and "is left out: a/3.png: " in done.stderr
    (tmp_path / "train" / "a" / "2.png").unlink()
    (tmp_path / "train" / "a" / "1.png").unlink()
    with pytest.raises(DataError, match=r"\(train\) has 1 training row of class 'a'.* --probe-train$"):
        _evaluate(["probe"], data=str(tmp_path))


def test_a_call_of_several_runs_goes_on(tmp_path, monkeypatch, cli):
    out, other = tmp_path / "a.json", shutil.copytree(RUN / "best", tmp_path / "best")
    with monkeypatch.context() as patch:
        _forbid(patch, allowed=["pixel-mse"])
        with pytest.raises(AssertionError):
            evaluate_runs([RUN, other], **DIGITS, metrics=["pixel-mse", "posterior"], out=out)
    stored = json.loads(out.read_text())
    assert list(stored) == ["run", "data", "warnings", "pixel-mse"]
    # as files were written before: the run that was not measured stands there without numbers
    bare = {"run": {**stored["run"], "sha256": {"encoder": "0"}}, "data": {"fingerprint": "0"}, "warnings": []}
    out.write_text(json.dumps({"runs": [stored, bare]}))
    whole = evaluate_runs([other, RUN], **DIGITS, metrics=["pixel-mse", "posterior"], out=out)
    assert whole[1]["pixel-mse"] == stored["pixel-mse"] and whole[0].data["images"] == 445
    # another order takes all from the file, and gives the file that order
    with monkeypatch.context() as patch:
        _forbid(patch)
        again = evaluate_runs([RUN, other], **DIGITS, metrics=["pixel-mse", "posterior"], out=out)
    assert again == whole[::-1] and [row["run"]["path"] for row in json.loads(out.read_text())["runs"]] == [
        str(RUN),
        str(other),
    ]
    before = out.read_bytes()
    done = cli("evaluate", RUN, "--data", "sklearn:digits", "--metrics", "pixel-mse", "--out", out)
    assert done.exit_code == 1 and f"has the evaluation of {other}, step " in done.stderr
    assert "name all its runs, in any order and with others" in done.stderr and out.read_bytes() == before


def test_runs_on_images_of_different_shapes_are_told(cli):
    colour = network_subject("colour", *_networks(16, 3), Shapes(16, 3, 4, width=4))
    results = evaluate_runs([RUN, colour], **DIGITS, metrics=["pixel-mse"])
    (text,) = [text for text in results[0].warnings if "do not compare" in text]
    assert text in results[1].warnings and f"1x8x8: {RUN}; 3x16x16: colour" in text
    other = "random:compact,size=16,channels=3,width=4"
    done = cli("evaluate", RUN, other, "--data", "sklearn:digits", "--metrics", "probe")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[1] for row in rows[1:]] == ["images", "1x8x8", "3x16x16"] and "do not compare" in done.stderr


def _networks(size, channels):
    parts = family("compact", size)[1].build(Shapes(size, channels, 4, width=4))
    return parts.encoder.eval(), parts.generator.eval()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"layers": ["mu"]}, "--layers is for probe, and what is measured is pixel-mse: leave it out, or name probe"),
        ({"settings": {"folds": 3}}, "--set is for probe"),
        ({"protocol": "knn/v1"}, "--protocol is for probe"),
        ({"samples": 20}, "--samples is for fid, kid"),
        ({"extractor": NETWORK}, "--extractor is for feature-mse, inpainting, fid, kid"),
        ({"probe_train": "train"}, "--probe-train is for probe, fid, kid"),
        ({"seed": -1}, "--seed -1 must be 0 or more"),
        ({"out": "a.txt"}, "a.txt: the name of this output must end in .json"),
        ({"save_values": "a.json"}, "a.json: the name of this output must end in .h5 or .hdf5"),
    ],
)
def test_options_that_would_be_ignored_are_refused(options, text):
    with pytest.raises(ConfigError) as caught:
        _evaluate(["pixel-mse"], **options)
    assert text in str(caught.value)


def test_one_run_and_several():
    with pytest.raises(ConfigError, match="evaluate_runs takes a list"):
        galirep.evaluate([RUN], **DIGITS)
    with pytest.raises(ConfigError, match="is one run, not a list"):
        evaluate_runs(str(RUN), **DIGITS)


def test_a_judge_that_is_part_of_the_run_is_told(autoencoder, tmp_path):
    config = {"data": "sklearn:digits", "image_size": 8, "width": 4, "latent_dim": 4, "steps": 1, "batch_size": 8}
    quiet = {"evaluate_every": 0, "sample_every": 0, "device": "cpu", "num_workers": 0}
    judge = {"data": "sklearn:digits", "image_size": 8, "width": 4, "steps": 1, "batch_size": 8, "num_workers": 0}
    galirep.train_classifier({**judge, "net": "compact", "objective": "vicreg"}, out=tmp_path / "m")
    body = f"classifier:{tmp_path / 'm'}"
    galirep.train({**config, **quiet, "body": body}, out=tmp_path / "run")
    for extractor, words in (
        (body, "is the body that E of"),
        (f"{body}#conv1", "is the body that E of"),
        (f"run:{tmp_path / 'run'}#d1", "is of the networks of"),
        (f"run:{tmp_path / 'run'}#fc1", "is of the networks of"),
        (f"run:{tmp_path / 'run'}#fc1,d1", "is of the networks of"),
    ):
        warnings = _evaluate(["feature-mse"], tmp_path / "run", extractor=extractor).warnings
        assert any(words in text for text in warnings), (extractor, warnings)
    others = _evaluate(["feature-mse"], tmp_path / "run", extractor=f"run:{RUN}#mu").warnings
    assert not any("its error there" in text for text in others)


@pytest.mark.parametrize(
    ("run", "options", "error", "text"),
    [
        (RUN, {"metrics": ["pixl-mse"]}, ConfigError, "unknown metric 'pixl-mse': did you mean 'pixel-mse'"),
        (RUN, {"metrics": []}, ConfigError, "name one or more of pixel-mse"),
        (RUN, {"metrics": ["feature-mse"]}, ConfigError, "feature-mse needs a feature network: .*--extractor"),
        (RUN, {"metrics": ["fid"]}, ConfigError, "--inception FILE, where FILE is weights-inception-2015-12-05-672682"),
        (RUN, {"metrics": ["fid"], "extractor": NETWORK, "samples": 446}, ConfigError, "the data has 445 images"),
        (
            RUN,
            {"metrics": ["fid"], "extractor": NETWORK, "samples": 6},
            DataError,
            "fid needs 10 or more images, not 6",
        ),
        (RUN, {"metrics": ["kid"], "extractor": NETWORK, "samples": 0}, ConfigError, "must be 1 or more"),
        (
            RUN,
            {"metrics": ["fid"], "extractor": NETWORK.replace("latent=6", "latent=20"), "samples": 20},
            DataError,
            "fid of 20 images in 20 features .* the covariance has no full rank",
        ),
        (RUN, {"metrics": ["feature-mse"], "extractor": NETWORK.replace("size=8", "size=16")}, PluginError, "1x8x8"),
        (RUN, {"metrics": ["probe"], "protocol": "linear-svm"}, ConfigError, "did you mean 'linear-svm/v"),
        (RUN, {"metrics": ["probe"], "layers": ["nu"]}, PluginError, "'nu'"),
        (RUN, {"metrics": ["pixel-mse"], "image_size": 16}, ConfigError, "takes images of 8 pixels"),
        (RUN, {"metrics": ["pixel-mse"], "split": "tset"}, DataError, "'tset'"),
        ("pixels", {"metrics": ["inpainting"]}, ConfigError, "cannot be had of pixels, an extractor .* it has probe"),
        ("nothing", {}, PluginError, "unknown extractor 'nothing'.*or a run directory"),
        (RUN / "checkpoints", {}, CheckpointError, "has no exported encoder"),
    ],
)
def test_bad_input(run, options, error, text):
    with pytest.raises(error, match=text) as caught:
        galirep.evaluate(run, **{**DIGITS, **options})
    assert "\n" not in str(caught.value)


def test_a_values_file_that_exists_is_refused(tmp_path):
    (tmp_path / "v.h5").write_text("mine")
    with pytest.raises(ConfigError, match=r"v\.h5 exists: choose another name or pass --overwrite"):
        _evaluate(["pixel-mse"], save_values=tmp_path / "v.h5")
    assert (tmp_path / "v.h5").read_text() == "mine"


def test_labels_that_a_probe_cannot_use(test_images, digit_images, tmp_path):
    def images_with(of, labels, names=()):
        return type(of)(of.pixels, of.ids, labels, names, of.fingerprint, "mine", None)

    unlabelled = images_with(test_images, None)
    with pytest.raises(DataError, match="mine has no labels"):
        _evaluate(["probe"], data=unlabelled, probe_train=digit_images)
    with pytest.raises(DataError, match="mine has no labels"):
        _evaluate(["probe"], data=test_images, probe_train=images_with(digit_images, None))
    with pytest.raises(ConfigError, match=r"no other split for them: name .* --probe-train"):
        _evaluate(["probe"], data=test_images)
    few = images_with(digit_images, np.where(digit_images.labels == 3, 4, digit_images.labels))
    with pytest.raises(DataError, match=r"classes of sklearn:digits \(test\) that mine lacks: '3'"):
        _evaluate(["probe"], data=test_images, probe_train=few)
    single = digit_images.labels.copy()
    single[np.flatnonzero(single == 3)[1:]] = -1
    with pytest.raises(DataError, match="cross-validation needs 2 or more of each class"):
        _evaluate(["probe"], data=test_images, probe_train=images_with(digit_images, single))


def test_a_network_that_is_not_finite_or_does_not_vary(autoencoder, test_images):
    encoder, _ = autoencoder
    shapes = Shapes(8, 1, 4, width=4)
    broken = network_subject("broken", encoder, lambda z: z.new_full((len(z), 1, 8, 8), torch.nan), shapes)
    with pytest.raises(DataError, match="pixel-mse of broken is nan"):
        _evaluate(["pixel-mse"], broken)
    with pytest.raises(DataError, match=r"MSE of broken in .*#mu needs finite features: those of 445 of 445 i"):
        _evaluate(["feature-mse"], broken, extractor=NETWORK)
    flat = network_subject("flat", encoder, lambda z: z.new_zeros((len(z), 1, 8, 8)), shapes)
    with pytest.raises(DataError, match="samples of flat: the features are equal in all 445 rows"):
        _evaluate(["fid"], flat, extractor=NETWORK)
    wrong = type(test_images)(test_images.pixels[:, :, :4, :4], test_images.ids, None, (), "f", "small", None)
    with pytest.raises(ConfigError, match="takes images 1x8x8, not 1x4x4"):
        _evaluate(["pixel-mse"], data=wrong)
    with pytest.raises(ConfigError, match="is named twice"):
        evaluate_runs([RUN, RUN], **DIGITS)


def test_statistics_of_masked_images_serve_inpainting(monkeypatch):
    from galirep.evaluation import subjects

    plain, asked = load_autoencoder(RUN), []

    def load(path, device="cpu", statistics=None, *, body=None):
        asked.append(statistics)
        encoder, generator, header = load_autoencoder(path, device)
        if statistics == "masked":
            encoder.head.bias.data += 5
        return encoder, generator, {**header, "statistics": ["whole", "masked"]}

    monkeypatch.setattr(subjects, "load_autoencoder", load)
    subject = load_subject(RUN, torch.device("cpu"))
    assert asked == [None, "masked"] and subject.facts["statistics"] == {"whole": "whole", "masked": "masked"}
    x = torch.zeros(1, 1, 8, 8)
    assert torch.equal(subject.rebuild(x), plain[1](plain[0](x)[0]))
    assert not torch.equal(subject.complete(x), subject.rebuild(x))
