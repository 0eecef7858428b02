"""How a run is made again: the command from its own record, and what must be the same for the same bits."""

import dataclasses
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from galirep.data.sources import HANDED
from galirep.errors import CheckpointError
from galirep.networks.export_file import load_export
from galirep.runs.directory import RunDirectory
from galirep.supervised.config import ClassifierConfig
from galirep.system.settings import Settings
from galirep.training.config import TrainConfig

# what they stand for is in the other settings
_EXPANDED = ("preset",)


@dataclass(frozen=True)
class Reproduction:
    """The `command` that makes a run again, as arguments, and what it needs for the same bits.

    `versions` are those that the run was begun with, `devices` those that it was made on, `fingerprint` is that of the
    images; `sha256` has the hash of each exported network, which the new run's must equal. `notes` say what the record
    leaves open. Images that were handed over in Python are named by no command: `command` is empty then, and `python`
    is the call that takes them again, as `images`.
    """

    command: tuple[str, ...]
    versions: Mapping[str, str]
    devices: tuple[str, ...]
    fingerprint: str
    sha256: Mapping[str, str]
    notes: tuple[str, ...]
    python: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object, the command also as the text of a shell."""
        return {
            **dataclasses.asdict(self),
            "command": list(self.command),
            "devices": list(self.devices),
            "notes": list(self.notes),
            "shell": shlex.join(self.command) or None,
        }

    def lines(self) -> list[str]:
        """Return the command as a shell reads it, and the rest as comments behind it."""
        facts = [f"{name} {version}" for name, version in self.versions.items()]
        return [
            self.python or shlex.join(self.command),
            f"# made by {', '.join(facts)}, on {', '.join(self.devices) or 'an unknown device'}",
            f"# of images with the fingerprint {self.fingerprint or 'that was not recorded'}",
            *(f"# {name}.safetensors must have the sha256 {sha256}" for name, sha256 in self.sha256.items()),
            *(f"# {note}" for note in self.notes),
        ]


def reproduction_of(path: str | Path) -> Reproduction:
    """Return how the run at `path`, of train or train-classifier, is made again beside it, as PATH-again.

    Settings that have their defaults are left out: the same version of galirep has the same.

    Raises:
        CheckpointError: there is no run, or its files are damaged.
        ConfigError: its settings are not those of this version.
    """
    run = RunDirectory(path)
    values, info = run.settings(), run.info()
    is_classifier = info.get("kind") == "classifier"
    settings: type[Settings] = ClassifierConfig if is_classifier else TrainConfig
    config = settings.from_dict(values)
    out = run.path.with_name(f"{run.path.resolve().name}-again")
    data: Mapping[str, Any] = info.get("data") or {}
    identity: Mapping[str, Any] = info.get("identity") or {}
    kinds = ("classifier",) if is_classifier else ("encoder", "generator", "discriminator")
    exported = {}
    for kind in kinds:
        try:
            exported[kind] = load_export(run.path, kind)[1]["sha256"]
        except CheckpointError:
            if (run.export / f"{kind}.safetensors").exists():
                raise
    handed = getattr(config, "data", "").startswith(HANDED)
    return Reproduction(
        () if handed else ("galirep", settings.command, *_options(config), "--out", str(out)),
        {name: str(info[name]) for name in ("galirep", "torch", "python") if name in info},
        tuple(info.get("devices", ())),
        str(data.get("fingerprint") or identity.get("data") or ""),
        exported,
        tuple(_notes(info, config)),
        _call(config, out) if handed else None,
    )


def _chosen(config: Settings) -> dict[str, Any]:
    """Return the settings that are not their defaults, by name."""
    values = {field.name: (getattr(config, field.name), field.default) for field in dataclasses.fields(config)}
    return {name: value for name, (value, usual) in values.items() if value != usual and name not in _EXPANDED}


def _call(config: Settings, out: Path) -> str:
    """Return the call in Python that trains on `images`."""
    settings = {name: value for name, value in _chosen(config).items() if name != "data"}
    return f"galirep.{config.command.replace('-', '_')}({settings!r}, images, out={str(out)!r})"


def _options(config: Settings) -> list[str]:
    options: list[str] = []
    for name, value in _chosen(config).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            options.append(flag if value else f"--no-{flag[2:]}")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            options += [f"{flag}={text}"] if text.startswith("-") else [flag, text]
    return options


def _notes(info: Mapping[str, Any], config: Settings) -> list[str]:
    notes = ["paths are as they were given: run it where the run was begun"]
    if getattr(config, "data", "").startswith(HANDED):
        notes.insert(
            0, "its images were handed over in Python, and no file names them: give the same again as `images`"
        )
    if info.get("status") != "complete":
        notes.append(f"the run is {info.get('status')}: it stopped at step {info.get('step', 0)}")
    if len(info.get("devices", ())) > 1:
        notes.append("it was made on several devices, one after the other: the same bits are not to be expected")
    variant = info.get("variant")
    if isinstance(variant, Mapping) and not variant.get("origin"):
        notes.append(f"its variant {variant.get('name')!r} is the user's own: run.json has it, under variant")
    for name in ("adapter", "body"):
        record = info.get(name)
        if isinstance(record, Mapping) and record.get("sha256"):
            notes.append(f"its {name} {getattr(config, name, '')} had the sha256 {record['sha256']}")
    if isinstance(init := info.get("init_from"), Mapping) and isinstance(init.get("networks"), Mapping):
        hashes = {name: entry.get("sha256") for name, entry in init["networks"].items() if isinstance(entry, Mapping)}
        notes.append(f"its first weights of {init.get('source')} had the sha256 {json.dumps(hashes)}")
    return notes
