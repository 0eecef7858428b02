"""The registry and the check of extractors, with a real package installed for a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from galirep.errors import PluginError
from galirep.features.protocol import check, describe, require_gradient
from galirep.features.registry import installed, load_extractor, owner

PACKAGE = """
import torch

class Brightness:
    name = "brightness"
    dim = 2
    tag = "v1"
    sha256 = "0" * 64

    def __call__(self, images):
        return torch.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], 1)

def build(argument, *, download=False):
    return Brightness()
"""


LOAD = """
import json, torch
from galirep.features import describe, installed, load_extractor, owner
extractor = load_extractor("brightness")
description = describe(extractor, "brightness")
features = extractor(torch.ones(3, 3, 8, 8)).tolist()
print(json.dumps([owner(*installed()["brightness"]), description.name, description.tag, features]))
"""


def test_a_package_of_others_is_installed_found_and_used(tmp_path):
    source, target = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (source / "bright.py").write_text(PACKAGE)
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "bright"\nversion = "1.2"\n'
        '[project.entry-points."galirep.features"]\nbrightness = "bright:build"\n'
        '[tool.setuptools]\npy-modules = ["bright"]\n'
    )
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--disable-pip-version-check", "--target", target, source], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**os.environ, "PYTHONPATH": str(target)},
        cwd=target,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["bright 1.2 (bright:build)", "brightness", "v1", [[1.0, 0.0]] * 3]


def test_two_packages_with_one_name_are_a_conflict(tmp_path, monkeypatch):
    for name in ("bright_one", "bright_two"):
        _register(tmp_path, name, f"[galirep.features]\nbrightness = {name}:build\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError) as caught:
        load_extractor("brightness")
    assert str(caught.value) == (
        "the extractor name 'brightness' is claimed by bright_one 1.2 (bright_one:build) and "
        "bright_two 1.2 (bright_two:build): uninstall one of them, or name the function: module:function"
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (None, "of half 1.2 .* cannot be loaded: No module named 'half'"),
        ("import no_such_library\n", "of half 1.2 .* cannot be loaded: No module named 'no_such_library'"),
        ("", "of half 1.2 .* cannot be loaded: module 'half' has no attribute 'build'"),
        (
            "def build(argument, *, download=False): return 7\n",
            "the extractor 'half:x' is of type int, not an extractor",
        ),
    ],
)
def test_a_package_that_does_not_do_what_its_entry_point_says(tmp_path, monkeypatch, code, message):
    _register(tmp_path, "half", "[galirep.features]\nhalf = half:build\n")
    if code is not None:
        (tmp_path / "half.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "half", raising=False)
    with pytest.raises(PluginError, match=message):
        load_extractor("half:x")


def _register(site: Path, name: str, points: str) -> None:
    """Write the metadata that an installer leaves of a package."""
    folder = site / f"{name}-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text(points)


def test_the_built_in_adapters_are_entry_points_too():
    names = installed()
    assert {"timm", "inception", "torchscript", "classifier", "run", "random", "pixels"} <= names.keys()
    assert owner(*names["pixels"]).startswith("galirep ") and owner(*names["pixels"]).endswith(
        "(galirep.features.raw_pixels:build)"
    )


def _write(folder: Path, code: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (folder / f"{name}.py").write_text(code)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])


def test_a_function_in_the_current_folder_needs_no_package(tmp_path, monkeypatch):
    _write(tmp_path, PACKAGE.replace("argument, *, download=False", ""), monkeypatch, "own_brightness")
    assert load_extractor("own_brightness:build").name == "brightness"
    assert load_extractor("own_brightness:Brightness").dim == 2
    with pytest.raises(PluginError, match="the module 'own_brightness' has no function 'biuld'"):
        load_extractor("own_brightness:biuld")


LAZY = """
class Lazy:
    name, dim = "lazy", 3

    def __call__(self, images):
        import lazy_forward_helper
        return lazy_forward_helper.mean(images)

def build():
    import lazy_build_helper
    return Lazy()
"""


def test_the_current_folder_is_importable_only_while_an_extractor_is_loaded(tmp_path, monkeypatch):
    """Lazy imports of the user's module in its function and in the first call on images find the folder."""
    _write(tmp_path, LAZY, monkeypatch, "lazy_adapter")
    (tmp_path / "lazy_build_helper.py").write_text("")
    (tmp_path / "lazy_forward_helper.py").write_text("def mean(images):\n    return images.mean((2, 3))\n")
    path = list(sys.path)
    assert str(tmp_path) not in path
    extractor = load_extractor("lazy_adapter:build")
    assert sys.path == path
    assert extractor(torch.ones(2, 3, 4, 4)).shape == (2, 3)
    with pytest.raises(PluginError, match="has no function 'missing'"):
        load_extractor("lazy_adapter:missing")
    assert sys.path == path


def test_the_example_of_the_docs_works(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text()
    example = text[text.index("# colours.py") :].partition("```")[0]
    _write(tmp_path, example, monkeypatch, "colours")
    extractor = load_extractor("colours:build")
    assert extractor.dim == 24 and extractor(torch.rand(3, 1, 20, 20)).shape == (3, 24)
    require_gradient(extractor, torch.rand(2, 3, 64, 64))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import no_such_library\n",
            "the module 'broken_adapter' .* cannot be imported: No module named 'no_such_library'",
        ),
        ("def build(: pass\n", "the module 'broken_adapter' .* cannot be imported: SyntaxError"),
        ("def build():\n    import no_such_library\n", "needs no_such_library, which is not installed"),
        ("def build():\n    return {}['weights']\n", "cannot be built: KeyError: 'weights'"),
        ("def build(path):\n    pass\n", "cannot be built: TypeError"),
    ],
)
def test_a_users_module_that_fails_is_named(tmp_path, monkeypatch, code, message):
    _write(tmp_path, code, monkeypatch, "broken_adapter")
    try:
        with pytest.raises(PluginError, match=message):
            load_extractor("broken_adapter:build")
    finally:
        sys.modules.pop("broken_adapter", None)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tim:resnet18", "unknown extractor 'tim': did you mean 'timm'"),
        ("pixel", "unknown extractor 'pixel': did you mean 'pixels'"),
        ("no_such_module_at_all:build", "the module 'no_such_module_at_all' with the function 'build' does not exist"),
        ("pixels:0", "must be a whole number from 1 to 512"),
        ("pixels:x", "must be a whole number from 1 to 512"),
        ("pixels#a", "has one layer of features: name no layers"),
        ("", "unknown extractor ''"),
    ],
)
def test_specs_that_name_nothing(spec, message):
    with pytest.raises(PluginError, match=message):
        load_extractor(spec)


def test_layers_are_named_once():
    with pytest.raises(PluginError, match="already names its layers"):
        load_extractor("pixels#a", layers=["b"])


class Extractor:
    name, dim = "made", 2

    def __init__(self, give, **attributes):
        self.give = give
        self.__dict__.update(attributes)

    def __call__(self, images):
        return self.give(images)


@pytest.mark.parametrize(
    ("built", "message"),
    [
        (None, "is of type NoneType, not an extractor"),
        (nn.Identity(), "is of type Identity, not an extractor"),
        (
            Extractor(lambda x: x.mean((2, 3))),
            r"must give \(2, 2\) finite float32 for two images, not \(2, 3\) float32",
        ),
        (Extractor(lambda x: x.mean((2, 3))[:, :2].double()), r"not \(2, 2\) float64"),
        (Extractor(lambda x: torch.full((2, 2), torch.nan)), "not NaN or infinity"),
        (Extractor(lambda x: [1, 2]), "not list"),
        (Extractor(lambda x: x.nothing), "fails on two 32x32 images: AttributeError"),
        (
            Extractor(lambda x: x.mean((2, 3))[:, :2], layers={"a": 1}),
            r"has dim 2, but its layers \{'a': 1\} have 1 columns",
        ),
        (Extractor(lambda x: x.mean((2, 3))[:, :2], dim="2"), "is of type Extractor, not an extractor"),
    ],
)
def test_what_is_not_an_extractor_is_refused(built, message):
    with pytest.raises(PluginError, match=message):
        check(built, "made:up")


def test_attributes_that_an_extractor_lacks_have_defaults():
    about = describe(Extractor(lambda x: x), "made:up")
    assert (about.spec, about.layers, about.channels, about.image_size, about.sha256) == (
        "made:up",
        (("features", 2),),
        3,
        None,
        "",
    )


def test_the_probe_has_the_extractors_own_size_and_channels():
    seen = []
    check(Extractor(lambda x: seen.append(x.shape) or x.new_zeros(2, 2), image_size=12, channels=1), "made:up")
    assert seen == [(2, 1, 12, 12)]


def test_a_users_module_is_frozen(tmp_path, monkeypatch):
    code = (
        "from torch import nn\nclass Net(nn.Module):\n    name, dim = 'net', 3\n"
        "    def __init__(self):\n        super().__init__()\n"
        "        self.norm = nn.BatchNorm2d(3)\n    def forward(self, x):\n        return self.norm(x).mean((2, 3))\n"
    )
    _write(tmp_path, code, monkeypatch, "training_adapter")
    net = load_extractor("training_adapter:Net")
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_training_needs_an_extractor_that_lets_gradients_pass():
    images = torch.rand(2, 3, 8, 8)
    require_gradient(load_extractor("pixels:8"), images)
    for give in (
        torch.no_grad()(lambda x: x.mean((2, 3))),
        lambda x: x.detach().mean((2, 3)),
        lambda x: (x * 0).mean((2, 3)),
    ):
        with pytest.raises(PluginError, match="the extractor 'made' lets no gradient pass to its input"):
            require_gradient(Extractor(give), images)


def test_pixels_are_the_image():
    images = torch.rand(2, 3, 8, 8) * 2 - 1
    extractor = load_extractor("pixels:8")
    torch.testing.assert_close(extractor(images), images.flatten(1))
    assert extractor.dim == 192
    assert load_extractor("pixels")(torch.rand(2, 1, 50, 50)).shape == (2, 3 * 32 * 32)
