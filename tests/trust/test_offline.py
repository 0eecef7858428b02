"""Nothing contacts the net without --download: commands with sockets closed, and the libraries' own switches."""

import os
import socket
import sys

import pytest
from tiny_runs import config, tiny

import galirep
from galirep.errors import GalirepError
from galirep.features.registry import load_extractor
from galirep.system.offline import offline


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Close the sockets and the caches of this machine; return the hosts that were asked for."""
    hosts = []

    def refuse(*args, **_):
        hosts.append(args)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    constants = pytest.importorskip("huggingface_hub.constants")
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "AGENT_HARNESSES_PATH", "HF_HOME"):
        if hasattr(constants, name):
            monkeypatch.setattr(constants, name, str(tmp_path / "hub" / name))
    # what it has asked for in this process it does not ask for again
    agents = sys.modules.get("huggingface_hub.utils._detect_agent")
    if agents is not None and hasattr(agents, "_registry"):
        monkeypatch.setattr(agents, "_registry", None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("GALIREP_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("GALIREP_CACHE", str(tmp_path / "cache"))
    return hosts


@pytest.mark.parametrize("spec", ("timm:resnet18", "timm:vit_base_patch16_clip_224.openai", "timm:dla34", "inception:"))
def test_an_extractor_whose_weights_are_missing_asks_nobody(spec, asked):
    if spec == "inception:":
        pytest.importorskip("pytorch_fid")
    with pytest.raises(GalirepError, match="--download"):
        load_extractor(spec)
    assert asked == []


def test_with_download_the_host_is_asked(asked, monkeypatch):
    from galirep.pretrained_adapters import timm_adapter
    from huggingface_hub.errors import LocalEntryNotFoundError

    def download(hub, file):
        assert not timm_adapter.torch.hub.urlopen.__module__.startswith("galirep")
        asked.append((hub, file))
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(timm_adapter, "hf_hub_download", download)
    with pytest.raises(GalirepError, match="cannot be downloaded"):
        load_extractor("timm:resnet18", download=True)
    assert len(asked) == 1


def test_no_command_asks_anybody(asked, pictured, tmp_path, cli):
    run, data = tmp_path / "run", ("--data", "sklearn:digits", "--split", "test")
    galirep.train(config(), tiny(), out=run)
    done = [
        ("list", "adapters"),
        ("train", "--data", "sklearn:digits", "--networks", "compact", "--width", 4, "--steps", 2, "--image-size", 8,
         "--out", tmp_path / "t"),
        ("train", "--out", tmp_path / "t", "--resume"),
        ("train-classifier", "--data", "sklearn:digits", "--steps", 2, "--out", tmp_path / "m"),
        ("embed", "--encoder", run, *data, "--out", tmp_path / "x.h5"),
        ("verify", tmp_path / "x.h5", "--data", "sklearn:digits", "--sample", 4),
        ("merge", tmp_path / "x.h5", "--out", tmp_path / "y.h5"),
        ("probe", tmp_path / "x.h5"),
        ("index", tmp_path / "x.h5", "--out", tmp_path / "x.faiss"),
        ("retrieve", "--gallery", tmp_path / "x.h5", "-k", 2, "--report", tmp_path / "r.html"),
        ("retrieve", "--gallery", tmp_path / "x.faiss", "--queries", tmp_path / "x.h5", "-k", 2),
        ("sample", run, "--out", tmp_path / "s.png"),
        ("reconstruct", run, *data, "--out", tmp_path / "p.png"),
        ("inpaint", run, *data, "--out", tmp_path / "i.png"),
        ("interpolate", run, *data, "--out", tmp_path / "w.png"),
        ("evaluate", run, *data, "--metrics", "pixel-mse"),
        ("export", run, "--out", tmp_path / "e"),
        ("info", run),
        ("info", pictured / "test"),
    ]  # fmt: skip
    for command in done:
        result = cli(*command)
        assert result.exit_code == 0, (command, result.stderr)
    refused = [
        ("embed", "--encoder", "timm:resnet18", *data, "--out", tmp_path / "z.h5"),
        ("embed", "--encoder", "pixels:2", "--data", "torchvision:mnist", "--out", tmp_path / "z.h5"),
        ("embed", "--encoder", "pixels:2", "--data", "torchvision:celeba", "--out", tmp_path / "z.h5"),
        ("info", "torchvision:svhn"),
        ("train", "--data", "sklearn:digits", "--body", "timm:resnet18", "--image-size", 8, "--out", tmp_path / "n"),
        ("evaluate", "timm:resnet18", *data, "--metrics", "probe"),
        ("retrieve", "--gallery", tmp_path / "x.h5", "--encoder", "timm:resnet18", "--queries", pictured / "test"),
    ]
    for command in refused:
        result = cli(*command)
        assert result.exit_code == 1 and "Traceback" not in result.stderr, (command, result.stderr)
    assert asked == []


def test_code_of_a_user_is_offline_too_while_it_is_built(asked, tmp_path, monkeypatch):
    (tmp_path / "calls_home.py").write_text(
        "import os, torch\n"
        "def build():\n"
        "    import huggingface_hub\n"
        "    assert os.environ['HF_HUB_OFFLINE'] == '1' and huggingface_hub.constants.HF_HUB_OFFLINE\n"
        "    torch.hub.load_state_dict_from_url('https://example.invalid/x.pth')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(GalirepError, match="nothing is downloaded without --download"):
        load_extractor("calls_home:build")
    assert asked == []


def test_the_switches_are_put_back(monkeypatch):
    import huggingface_hub.constants as hub
    import torch.hub

    monkeypatch.setenv("TRANSFORMERS_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    before = dict(os.environ), hub.HF_HUB_OFFLINE, hub.HF_HUB_DISABLE_TELEMETRY, torch.hub.urlopen
    with offline(), offline(unless=True):
        with offline():
            assert hub.HF_HUB_OFFLINE
        assert hub.HF_HUB_OFFLINE and os.environ["TRANSFORMERS_OFFLINE"] == "1"
        with pytest.raises(OSError, match="--download"):
            torch.hub.urlopen("https://example.invalid")
    assert before == (dict(os.environ), hub.HF_HUB_OFFLINE, hub.HF_HUB_DISABLE_TELEMETRY, torch.hub.urlopen)
    with offline(unless=True):
        assert before[0] == dict(os.environ)
