"""`inception:WEIGHTS`: the Inception-v3 of FID (Heusel et al. 2017), its 2048-d last pooling, by the network of pytorch-fid."""

from collections import OrderedDict
from pathlib import Path
from unittest.mock import patch

from torch import Tensor, nn
from torch.hub import download_url_to_file, get_dir

from galirep.errors import PluginError
from galirep.features.network import NetworkExtractor
from galirep.system.files import sha256_file

from .weights import mismatches, read_weights

try:
    from pytorch_fid import inception
except ImportError as err:
    raise PluginError(f"the extractor 'inception' needs pytorch-fid ({err}): pip install 'galirep[inception]'") from err

FILE = inception.FID_WEIGHTS_URL.rpartition("/")[2]
BLOCKS = ("pool1", "pool2", "pre_aux", "pool3")  # 64, 192, 768 and 2048 wide


def build(argument: str, *, download: bool = False) -> NetworkExtractor:
    """`inception:WEIGHTS`: the Inception-v3 of FID, 2048 wide; WEIGHTS is the file pt_inception-2015-12-05-*.pth of pytorch-fid.

    Images are resized to 299x299 (bilinear) in [-1, 1], as FID does. Without a file the one in pytorch-fid's own cache is used, or fetched
    into it if `download` is true. Other layers: `pool1`, `pool2`, `pre_aux`, averaged over space.

    Raises:
        PluginError: no weights are here, or they do not fit.
    """
    path = Path(argument) if argument else _cached(download)
    state = read_weights(path)

    # the library can load from its own address only: its loader is given the tensors of the file
    def loader(*_: object, **__: object) -> dict[str, Tensor]:
        return state

    try:
        with patch.object(inception, "load_state_dict_from_url", loader):
            network = inception.InceptionV3((0, 1, 2, 3), resize_input=False, normalize_input=False)
    except RuntimeError as err:
        with patch.object(inception, "load_state_dict_from_url", loader), patch.object(nn.Module, "load_state_dict"):
            wanted = inception.fid_inception_v3().state_dict()
        problem = mismatches(state, wanted) or err
        raise PluginError(
            f"{path} does not fit FID's Inception-v3 (it needs {FILE} of pytorch-fid): {problem}"
        ) from err
    return NetworkExtractor(
        nn.Sequential(OrderedDict(zip(BLOCKS, network.blocks, strict=True))),
        name="inception-v3-fid",
        tag=path.name,
        sha256=sha256_file(path),
        image_size=299,
        interpolation="bilinear",
    )


def _cached(download: bool) -> Path:
    path = Path(get_dir(), "checkpoints", FILE)
    if path.is_file():
        return path
    ask = f"give the file {FILE} of pytorch-fid, inception:FILE"
    if not download:
        raise PluginError(
            f"the weights of FID's Inception-v3 are not on this machine: {ask}, or allow the download with --download"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        download_url_to_file(inception.FID_WEIGHTS_URL, str(path), progress=False)
    except OSError as err:
        raise PluginError(f"the weights of FID's Inception-v3 cannot be fetched ({err}): {ask}") from err
    return path
