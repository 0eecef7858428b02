"""The commands that write: how each begins, goes on after an end, and when what it leaves is what it should be."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from soak_parts.samples import CLASSIFY, TRAIN, make_samples, pictures

_CPU = "--num-workers 0 --device cpu"
_TIMING = ("seconds", "images_per_second", "peak_memory_mib")


@dataclass(frozen=True)
class Job:
    """A command of the shell, its output, and the commands that go on after an end, tried in turn.

    `fingerprint` maps a whole output to what must be the same however often the job was ended; it raises for one that
    is not whole. `resumes`: an unfinished output is worth something.
    """

    name: str
    command: str
    out: str
    fingerprint: Callable[[Path], object]
    go_on: tuple[str, ...] = ()
    resumes: bool = False

    @property
    def continuations(self) -> tuple[str, ...]:
        """Commands to go on with; the first that works is taken."""
        return self.go_on or (f"{self.command} --overwrite",)


def columns(path: Path) -> object:
    """Return the hash of all rows of an embedding file, read by galirep."""
    import galirep

    with galirep.load_embeddings(path, valid_only=False) as embeddings:
        labels = b"" if embeddings.labels is None else embeddings.labels.tobytes()
        return _hash(embeddings.features[:].tobytes(), "\n".join(embeddings.ids).encode(), labels)


def run_of(path: Path) -> object:
    """Return the hash of a finished run: its networks, and its metrics without what a clock decides."""
    info = json.loads((path / "run.json").read_text())
    if info["status"] != "complete":
        raise ValueError(f"the run is {info['status']}")
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    rows = [{key: value for key, value in row.items() if key not in _TIMING} for row in rows]
    nets = [_tensors(file) for file in sorted((path / "export").glob("*.safetensors"))]
    return _hash(json.dumps(rows).encode(), *nets)


def _tensors(path: Path) -> bytes:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    sha256: str = json.loads(header["__metadata__"]["galirep"])["sha256"]
    return sha256.encode()


def index_of(path: Path) -> object:
    """Return the hash of an index that can be searched."""
    from galirep.search.gallery import open_gallery

    gallery = open_gallery(path, device="cpu")
    return _hash("\n".join(gallery.ids).encode(), path.read_bytes())


def tree_of(path: Path) -> object:
    """Return the hash of a folder of tensors, arrays and tables."""
    files = sorted(p for p in path.rglob("*") if p.suffix in (".safetensors", ".npy", ".parquet"))
    if not files:
        raise ValueError("it is empty")
    return _hash(*(_tensors(p) if p.suffix == ".safetensors" else p.read_bytes() for p in files))


def page_of(path: Path) -> object:
    """Return the hash of a report that ends as one."""
    text = path.read_text()
    if not text.rstrip().endswith("</html>"):
        raise ValueError("the page has no end")
    return len(text) > 1000


def _hash(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _options(settings: dict[str, Any]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())


def _train(out: str, more: str) -> str:
    return f"train {_options(TRAIN)} --data images --checkpoint-every 2 --out {out} {more}"


def make_jobs() -> tuple[Job, ...]:
    """Return the jobs, those of libraries that are not here left out; all their paths are relative to the samples."""
    classify = f"train-classifier {_options(CLASSIFY)} --data images --epochs 4 --out out"
    embed = f"embed --encoder run --data many --out out.h5 --batch-size 8 {_CPU}"
    jobs = [
        Job(
            "train",
            _train("out", "--steps 12"),
            "out",
            run_of,
            ("train --resume --out out", _train("out", "--steps 12"), _train("out", "--steps 12 --overwrite")),
            resumes=True,
        ),
        Job(
            "train-classifier",
            classify,
            "out",
            run_of,
            ("train-classifier --resume --out out", classify, f"{classify} --overwrite"),
            resumes=True,
        ),
        Job("embed", embed, "out.h5", columns, (f"{embed} --resume", f"{embed} --overwrite"), resumes=True),
        Job("merge", "merge a.h5 b.h5 --out out.h5", "out.h5", columns),
        Job("export", "export run --out out", "out", tree_of),
        Job(
            "report", "retrieve --gallery a.h5 --queries b.h5 -k 3 --report out.html --device cpu", "out.html", page_of
        ),
    ]
    if find_spec("faiss"):
        jobs.insert(4, Job("index", "index a.h5 --out out.faiss", "out.faiss", index_of))
    if find_spec("pyarrow"):
        jobs.append(Job("export of embeddings", "export a.h5 --format npy-parquet --out out", "out", tree_of))
    return tuple(jobs)


@contextmanager
def stage(work: Path, samples: Path, kind: str) -> Iterator[Path]:
    """Yield a fresh copy of the samples."""
    folder = work / f"stage-{kind}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(samples, folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def jobs_and_samples(work: Path, only: list[str]) -> tuple[list[Job], Path]:
    """Make the samples, and a larger set of images for `embed`."""
    samples = work / "samples"
    if not samples.exists():
        make_samples(samples)
    if not (samples / "many").exists():
        pictures(samples / "many", 400)
    return [job for job in make_jobs() if not only or job.name in only], samples


def whole(job: Job, folder: Path) -> object:
    """Return the fingerprint of the output; None if it is not there, or not whole."""
    if not (folder / job.out).exists():
        return None
    try:
        return job.fingerprint(folder / job.out)
    except Exception:
        return None


def names_in(folder: Path) -> set[str]:
    """Return the names of all files under a folder, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def strangers(job: Job, before: set[str], folder: Path) -> set[str]:
    """Return the files that are neither from before nor of the output, nor beside it under its name."""
    return {name for name in names_in(folder) - before if not name.startswith((job.out, f"{job.out}/"))}
