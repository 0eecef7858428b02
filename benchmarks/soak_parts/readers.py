"""Mutated inputs for eight readers: each must end in a result or in one line, in bounded time and memory."""

import os
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from soak_parts import damage, damage_data
from soak_parts.children import Attempt, place_of, survey
from soak_parts.samples import make_samples
from soak_parts.staging import Stage
from soak_parts.tally import Tally


@dataclass(frozen=True)
class Case:
    """A file of the samples, ways to damage it, and commands that read it (drawn at random); OUT is theirs to write."""

    file: str
    damages: tuple[damage.Damage, ...]
    commands: tuple[str, ...]
    needs: str = ""


_SMALL = "--steps 1 --batch-size 8 --networks compact --width 4 --latent-dim 4 --image-size 8 --channels 1 --holdout 0"
_RESUME = "train --resume --out run"
_INFO = "info --num-workers 0 "
_STUDY = "reproduce study.toml --data digits=sklearn:digits --out OUT"
READERS: dict[str, tuple[Case, ...]] = {
    "embedding file": (
        Case(
            "a.h5",
            (damage.bytes_of, damage.hdf5_of, damage.hdf5_of),
            (
                "info a.h5",
                "verify a.h5",
                "probe a.h5",
                "retrieve --gallery a.h5 -k 3",
                "retrieve --gallery b.h5 --queries a.h5 -k 3 --report OUT",
                "merge a.h5 b.h5 --out OUT",
                "export a.h5 --format npy-parquet --out OUT",
                "index a.h5 --out OUT",
            ),
        ),
    ),
    "index": (
        Case("a.faiss.json", (damage.json_of,), ("info a.faiss", "retrieve --gallery a.faiss --queries b.h5 -k 3")),
        Case("a.faiss.rows.h5", (damage.bytes_of, damage.hdf5_of), ("retrieve --gallery a.faiss --queries b.h5 -k 3",)),
        Case("a.faiss", (damage.bytes_of,), ("info a.faiss", "retrieve --gallery a.faiss --queries b.h5 -k 3")),
    ),
    "checkpoint": (
        Case(
            "run/checkpoints/last.pt",
            (damage.bytes_of, damage_data.zip_of, damage.checkpoint_of, damage.checkpoint_of),
            ("info run/checkpoints/last.pt", _RESUME, f"train --init-from run --data images {_SMALL} --out OUT"),
        ),
        Case(
            "classifier/checkpoints/last.pt",
            (damage_data.zip_of, damage.checkpoint_of),
            ("info classifier/checkpoints/last.pt", "train-classifier --resume --out classifier"),
        ),
    ),
    "export": (
        Case(
            "run/export/encoder.safetensors",
            (damage.bytes_of, damage.safetensors_of, damage.safetensors_of),
            (
                "info run/export",
                "embed --encoder run --data images --out OUT --num-workers 0 --device cpu",
                "embed --encoder random:run --data images --out OUT --num-workers 0 --device cpu",
                "sample run --out OUT",
                "export run --out OUT",
                "evaluate run --data images --metrics pixel-mse --num-workers 0",
            ),
        ),
        Case(
            "classifier/export/classifier.safetensors",
            (damage.safetensors_of,),
            ("info classifier", "embed --encoder classifier:classifier --data images --out OUT --num-workers 0"),
        ),
    ),
    "arrays": (
        Case(
            "plain.npz",
            (damage.bytes_of, damage_data.npz_of, damage_data.zip_of),
            ("info npz:plain.npz --num-workers 0",),
        ),
        Case("packed.npz", (damage.bytes_of, damage_data.npz_of), ("info npz:packed.npz --num-workers 0",)),
        Case("tables/img_emb/img_emb_0000.npy", (damage.bytes_of,), ("export tables --out OUT",)),
        Case(
            "tables/metadata/metadata_0000.parquet",
            (damage.bytes_of, damage_data.parquet_of),
            ("export tables --out OUT",),
            needs="pyarrow",
        ),
        Case("tables/galirep.json", (damage.json_of,), ("export tables --out OUT",), needs="pyarrow"),
    ),
    "image sets": (
        Case(
            "images.tar",
            (damage.bytes_of, damage_data.tar_of, damage_data.tar_of, damage_data.add_to_tar),
            ("info images.tar --num-workers 0",),
        ),
        Case("list.csv", (damage.bytes_of, damage_data.csv_of), ("info csv:list.csv --num-workers 0",)),
        Case("images/class0/000.png", (damage.bytes_of,), ("info images --num-workers 0",)),
    ),
    "settings": (
        Case("variant.toml", (damage.toml_of,), ("train --variant variant.toml --data images --out OUT --dry-run",)),
        Case("study.toml", (damage.toml_of,), (f"{_STUDY} --dry-run",)),
        Case("run/config.yaml", (damage.yaml_of,), ("info run", "train --config run/config.yaml --out OUT --dry-run")),
    ),
    "records": (
        Case("run/run.json", (damage.json_of,), ("info run", _RESUME)),
        Case("run/metrics.jsonl", (damage.lines_of,), ("info run", _RESUME)),
        Case("run/config.yaml", (damage.yaml_of,), ("info run", _RESUME)),
        Case(
            "classifier/run.json", (damage.json_of,), ("info classifier", "train-classifier --resume --out classifier")
        ),
        Case(
            "evaluation.json",
            (damage.json_of,),
            ("evaluate run --data images --metrics pixel-mse --num-workers 0 --out evaluation.json",),
        ),
        Case("results/digits/b.json", (damage.json_of,), (f"{_STUDY} --results results --rows b",)),
    ),
}


class Reader:
    """Attempts on one reader, each with a sound copy of the samples."""

    def __init__(self, name: str, samples: Path, work: Path, seed: int) -> None:
        self.name, self.samples, self.work, self.seed = name, samples, work, seed
        self._stage: tuple[int, Stage] | None = None
        self.cases = [case for case in READERS[name] if (samples / case.file).exists()]
        (point,) = entry_points(group="console_scripts", name="galirep")
        self.command = point.load()
        self._require_sound()

    def _require_sound(self) -> None:
        """Let each command read the sound samples: it must succeed, and what it imports is there in every child."""
        place = self.work / "sound"
        for text in dict.fromkeys(text for case in self.cases for text in case.commands):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(self.samples, place)
            os.chdir(place)
            result = CliRunner().invoke(self.command, text.replace("OUT", "out").split(), prog_name="galirep")
            os.chdir("/")
            if result.exit_code:
                raise SystemExit(f"galirep {text} fails on sound files: {result.stderr}{result.exception!r}")
        shutil.rmtree(place, ignore_errors=True)

    def attempt(self, number: int) -> Attempt:
        """Damage a copy of a sample and read it by a command."""
        draw = random.Random(f"{self.seed} {self.name} {number}")
        case = self.cases[number % len(self.cases)]
        stage = self._staged()
        place = stage.folder
        os.chdir(place)
        # of values within each other a thousand times there is no copy
        with suppress(RecursionError):
            draw.choice(case.damages)(Path(case.file), draw)
        if self.name == "index" and case.file.endswith("rows.h5") and draw.random() < 0.8:
            _sign_index(place)
        text = draw.choice(case.commands)
        faults = self._run(text.replace("OUT", "out").split(), number, text)
        os.chdir("/")
        outside = {n for n in stage.restore(case.file) if not n.startswith(("out", "run/", "classifier/"))}
        if outside:
            faults = Attempt((*faults.faults, "outside"), faults.place or f"input {number} left {sorted(outside)[0]}")
        return faults

    def _staged(self) -> Stage:
        """Return the copy of this process."""
        if self._stage is None or self._stage[0] != os.getpid():
            self._stage = os.getpid(), Stage(self.samples, self.work / f"{os.getpid()}")
        return self._stage[1]

    def _run(self, arguments: Sequence[str], number: int, text: str) -> Attempt:
        result: Any = CliRunner().invoke(self.command, arguments, prog_name="galirep")
        error = result.exception
        if error is None or isinstance(error, SystemExit):
            # an error is one line that says what is wrong; what verify finds is its result
            lines = [line for line in result.stderr.splitlines() if "galirep: error:" in line]
            verified = arguments[0] == "verify" and "not fit for use" in result.stdout
            if result.exit_code == 0 or verified or (len(lines) == 1 and result.exit_code in (1, 2)):
                return Attempt()
            return Attempt(("tracebacks",), f"input {number}: {text}: exit {result.exit_code} without a line")
        return Attempt(("tracebacks",), f"{place_of(error)} (input {number}: {text})")


def _sign_index(folder: Path) -> None:
    """Let the sidecar of the index have the checksum of its damaged list of ids, as whoever made it would."""
    import json

    from galirep.search.index_replacing import checksum
    from galirep.system.files import seal_json

    sidecar = folder / "a.faiss.json"
    info = json.loads(sidecar.read_text())
    info["files"]["rows"] = checksum(folder / "a.faiss.rows.h5")
    sidecar.write_text(json.dumps(seal_json(info)))


def soak_readers(work: Path, inputs: int, seed: int = 0, only: Sequence[str] = ()) -> Iterator[Tally]:
    """Try so many inputs of each reader (or of those named)."""
    samples = work / "samples"
    if not samples.exists():
        make_samples(samples)
        _make_result(samples)
    for name in only or READERS:
        reader = Reader(name, samples, work, seed)
        tally = Tally("readers", name)
        survey(tally, inputs, reader.attempt)
        for rest in work.glob("[0-9]*"):
            shutil.rmtree(rest, ignore_errors=True)
        yield tally


def _make_result(samples: Path) -> None:
    """Make the stored result of a row of the study."""
    (point,) = entry_points(group="console_scripts", name="galirep")
    command = f"reproduce {samples}/study.toml --data digits=sklearn:digits --out {samples}/made"
    CliRunner().invoke(point.load(), [*command.split(), "--results", f"{samples}/results", "--rows", "b"])
    shutil.rmtree(samples / "made", ignore_errors=True)
