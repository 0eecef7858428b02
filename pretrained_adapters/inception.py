"""`inception:WEIGHTS`: the Inception-v3 of FID (Heusel et al. 2017) as an extractor, from the parts of pytorch-fid."""

from collections import OrderedDict
from pathlib import Path

from torch import nn
from torch.hub import download_url_to_file, get_dir
from torchvision.models import inception_v3

from galirep.errors import PluginError
from galirep.features.network import NetworkExtractor
from galirep.system.files import sha256_file

from .weights import mismatches, read_weights

try:
    from pytorch_fid import inception
except ImportError as err:
    raise PluginError(f"the extractor 'inception' needs pytorch-fid ({err}): pip install 'galirep[inception]'") from err

FILE = inception.FID_WEIGHTS_URL.rpartition("/")[2]


def build(argument: str, *, download: bool = False) -> NetworkExtractor:
    """Build `inception:WEIGHTS`: FID's Inception-v3, 2048 wide.

    WEIGHTS is the file pt_inception-2015-12-05-*.pth of pytorch-fid; without it, the file in pytorch-fid's own cache is
    used, or downloaded into it if `download` is true. Images are resized to 299 x 299 (bilinear) in [-1, 1], as in FID.
    Other layers: `pool1`, `pool2`, `pre_aux`, averaged over space.

    Raises:
        PluginError: the weights are not available, or do not fit.
    """
    path = Path(argument) if argument else _cached_weights(download)
    state = read_weights(path)
    network = _fid_inception_v3()
    try:
        network.load_state_dict(state)
    except RuntimeError as err:
        problem = mismatches(state, network.state_dict()) or err
        raise PluginError(
            f"{path} does not fit FID's Inception-v3 (it needs {FILE} of pytorch-fid): {problem}"
        ) from err
    return NetworkExtractor(
        _blocks(network),
        name="inception-v3-fid",
        tag=path.name,
        sha256=sha256_file(path),
        image_size=299,
        interpolation="bilinear",
    )


def _fid_inception_v3() -> nn.Module:
    """Return the network of `pytorch_fid.inception.fid_inception_v3`, which can only load weights from its own URL."""
    network = inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    network.Mixed_5b = inception.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = inception.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = inception.FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = inception.FIDInceptionC(768, channels_7x7=128)
    network.Mixed_6c = inception.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6d = inception.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6e = inception.FIDInceptionC(768, channels_7x7=192)
    network.Mixed_7b = inception.FIDInceptionE_1(1280)
    network.Mixed_7c = inception.FIDInceptionE_2(2048)
    return network  # type: ignore[no-any-return]


def _blocks(network: nn.Module) -> nn.Sequential:
    """Return the network without its classifier as four blocks, as `pytorch_fid.inception.InceptionV3` divides it.

    Their outputs are 64, 192, 768 and 2048 wide.
    """
    layers = {
        "pool1": ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
        "pool2": ("Conv2d_3b_1x1", "Conv2d_4a_3x3"),
        "pre_aux": tuple(f"Mixed_{name}" for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e")),
        "pool3": ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
    }
    pooling: dict[str, nn.Module] = {
        "pool1": nn.MaxPool2d(kernel_size=3, stride=2),
        "pool2": nn.MaxPool2d(kernel_size=3, stride=2),
        "pool3": nn.AdaptiveAvgPool2d((1, 1)),
    }
    blocks = OrderedDict[str, nn.Module]()
    for block, names in layers.items():
        modules = [network.get_submodule(name) for name in names]
        if block in pooling:
            modules.append(pooling[block])
        blocks[block] = nn.Sequential(*modules)
    return nn.Sequential(blocks)


def _cached_weights(download: bool) -> Path:
    path = Path(get_dir(), "checkpoints", FILE)
    if path.is_file():
        return path
    hint = f"give the file {FILE} of pytorch-fid, inception:FILE"
    if not download:
        raise PluginError(
            f"the weights of FID's Inception-v3 are not on this machine: {hint}, or allow the download with --download"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download_url_to_file(inception.FID_WEIGHTS_URL, str(path), progress=False)
    except OSError as err:
        raise PluginError(f"the weights of FID's Inception-v3 cannot be downloaded ({err}): {hint}") from err
    return path
