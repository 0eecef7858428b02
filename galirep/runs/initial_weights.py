"""First weights of E, G and D from networks that exist: a run, its export, or a net of galirep train-classifier."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from galirep.errors import CheckpointError, format_list
from galirep.networks.body import BodyEncoder
from galirep.networks.export_file import load_export, run_folder, sha256_tensors
from galirep.runs.checkpoint import check_state, load_checkpoint
from galirep.runs.directory import RunDirectory
from galirep.runs.records import WithD
from galirep.system.reading.records import quoted

State = Mapping[str, Tensor]
_CLASSIFIER = "classifier:"
# names of the tensors of an E in a net of train-classifier
_TRUNK, _BLOCKS = "trunk.", "trunk.blocks."


@dataclass(frozen=True)
class InitialWeights:
    """The weights that `source` has: state dicts of its `networks`, a family, by the letters E, G and D.

    `body` is the record of what its E stands on.
    """

    source: str
    networks: str
    states: Mapping[str, State]
    body: Mapping[str, Any] | None = None

    def load_into(self, players: Mapping[str, nn.Module], networks: str) -> dict[str, Any]:
        """Copy what fits into the players, of the family `networks`, and return what run.json records of it.

        E and G take each layer whose tensors all fit by name and shape; D is taken as a whole or not at all, as it
        judges by all of its layers together. For each network are recorded the hash of its source, how many layers were
        `taken` of how many, and the `left_out` with the reason.

        Raises:
            CheckpointError: nothing fits; the reasons are listed.
        """
        report = {name: self._load_one(name, net, networks) for name, net in players.items()}
        if not any(entry["taken"] for entry in report.values()):
            reasons = "; ".join(f"{name}: {format_list(entry['left_out'], 3)}" for name, entry in report.items())
            raise CheckpointError(f"init_from {self.source}: nothing in it fits the networks of this run ({reasons})")
        return {"source": self.source, "networks": report}

    def _load_one(self, name: str, net: nn.Module, networks: str) -> dict[str, Any]:
        state = self.states.get(name)
        own = net.state_dict()
        layers = _by_layer(own)
        entry: dict[str, Any] = {"sha256": None, "taken": 0, "of": len(layers), "left_out": [f"{self.source} has none"]}
        if state is None:
            return entry
        entry["sha256"] = sha256_tensors(state)
        on_body = name == "E" and (isinstance(net, BodyEncoder) or self.body is not None)
        problem = _other_body(net, self.body) if on_body else ""
        # the same names and shapes would mean something else; on a body E is of no family
        if not on_body and networks != self.networks:
            problem = f"it is of the networks {self.networks!r}, this one of {networks!r}"
        if problem:
            return {**entry, "left_out": [problem]}
        problems = {layer: reason for layer, names in layers.items() if (reason := _misfit(names, state, own))}
        fitting = [n for layer, names in layers.items() if layer not in problems for n in names]
        # a bias or a norm alone fits many a network
        if (name == "D" and problems) or not any(own[n].ndim > 1 and not _is_bias(n) for n in fitting):
            return {**entry, "left_out": _in_words(problems)}
        net.load_state_dict({**own, **{n: state[n] for n in fitting}})
        return {**entry, "taken": len(layers) - len(problems), "left_out": _in_words(problems)}


def describe_initial(record: Mapping[str, Any]) -> tuple[int, str]:
    """Say in one line what a run took from where, as run.json records it; with the level of logging that it deserves.

    What is left out is a warning.
    """
    networks = record["networks"].items()
    text = f"weights of {record['source']}: " + ", ".join(f"{n} {e['taken']} of {e['of']} layers" for n, e in networks)
    left_out = "; ".join(
        f"{name}: {format_list(entry['left_out'], 3)}" for name, entry in networks if entry["left_out"]
    )
    return (logging.WARNING, f"{text}; left out: {left_out}") if left_out else (logging.INFO, text)


def load_initial_weights(source: str) -> InitialWeights:
    """Read the weights of a run directory or an export folder (also as `run:RUN`), or of `classifier:DIR`.

    E and G are those of the export, averaged where the run averages; D is that of the last checkpoint, if there is one.

    Raises:
        CheckpointError: there is no such export, or a file is damaged.
    """
    if source.startswith(_CLASSIFIER):
        tensors, header = load_export(Path(source.removeprefix(_CLASSIFIER)), "classifier")
        blocks = {name.removeprefix(_TRUNK): value for name, value in tensors.items() if name.startswith(_BLOCKS)}
        if not blocks:
            raise CheckpointError(
                f"init_from {source}: the net {header['net']!r} is no E of a network family: "
                "galirep train-classifier --net compact makes one, and --body takes any net"
            )
        return InitialWeights(source, header["networks"], {"E": blocks})
    run = run_folder(source if run_folder(source).is_dir() else source.removeprefix("run:"))
    if not run.is_dir():
        raise CheckpointError(f"init_from {source!r}: no such folder; name a run, an export folder or classifier:DIR")
    encoder, header = load_export(run, "encoder")
    states: dict[str, State] = {"E": encoder, "G": load_export(run, "generator")[0]}
    last = RunDirectory(run).last
    if last.is_file():
        states["D"] = check_state(load_checkpoint(last), WithD, last)["nets"]["D"]
        # an empty name is a name too
        strange = [name for name, value in states["D"].items() if not isinstance(value, Tensor)]
        if strange:
            raise CheckpointError(f"the checkpoint {last} is damaged: {quoted(strange[0])} of D is no tensor")
    return InitialWeights(source, header["networks"], states, header.get("body"))


def _by_layer(names: Iterable[str]) -> dict[str, list[str]]:
    """Group the names of tensors by the module that they belong to."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    return layers


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2] == "bias"


def _misfit(names: Iterable[str], state: State, own: State) -> str:
    """Return why the tensors of a layer cannot be taken from `state`; "" if they can."""
    for name in names:
        if not isinstance(state.get(name), Tensor):
            return "not there"
        if state[name].shape != own[name].shape:
            return f"{tuple(state[name].shape)}, not {tuple(own[name].shape)}"
    return ""


def _in_words(problems: Mapping[str, str]) -> list[str]:
    return [f"{layer or 'its own tensors'} ({reason})" for layer, reason in problems.items()]


def _other_body(net: nn.Module, body: Mapping[str, Any] | None) -> str:
    """Return why an E on `body` (None: on its own layers) cannot lend its weights to this one; "" if it can."""
    own = net.body_record if isinstance(net, BodyEncoder) else None
    if own is None:
        return f"it stands on the body {body['name']!r}" if body else ""
    if body is None:
        return f"it stands on no body, this one on {own['name']!r}"
    if all(own[key] == body[key] for key in ("name", "sha256", "layers")):
        return ""
    return f"the body {body['name']!r} has other weights or layers than this one's, {own['name']!r}"
