"""`verify` of whatever galirep wrote with checksums: embedding files, indices and exports."""

from pathlib import Path

from galirep.data.sources import ImageSource
from galirep.embeddings.integrity.findings import Findings
from galirep.embeddings.interchange.folder import check_export, is_npy_parquet
from galirep.embeddings.verify import SAMPLE, VerifyResult
from galirep.embeddings.verify import verify as verify_embeddings
from galirep.errors import ConfigError
from galirep.features.protocol import FeatureExtractor
from galirep.networks.export_file import check_exports, export_folder
from galirep.search.index_file import is_index
from galirep.search.index_verify import check_index


def verify(  # noqa: PLR0913
    path: str | Path,
    *,
    encoder: str | FeatureExtractor | None = None,
    data: str | ImageSource | None = None,
    split: str | None = None,
    sample: int = SAMPLE,
    tolerance: float | None = None,
    seed: int = 0,
    num_workers: int | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    download: bool = False,
    trust_encoder: bool = False,
    file_locking: bool | None = None,
) -> VerifyResult:
    """Check an embedding file, an index or an exported folder (of embeddings, of a run); return what is wrong.

    Of an embedding file the options and what is checked are those of `galirep.embeddings.verify.verify`. Of the others
    all files are compared with their checksums and with each other, which takes no options.

    Raises:
        DataError: `path` is none of them, or is damaged so that it cannot be read.
        CheckpointError: likewise, of the export of a run.
        ConfigError: `encoder` or `data` with something else than an embedding file.
    """
    path, findings = Path(path), Findings()
    kind = _kind_of(path)
    if kind == "embeddings":
        return verify_embeddings(
            path,
            encoder=encoder,
            data=data,
            split=split,
            sample=sample,
            tolerance=tolerance,
            seed=seed,
            num_workers=num_workers,
            device=device,
            data_root=data_root,
            download=download,
            trust_encoder=trust_encoder,
            file_locking=file_locking,
        )
    if encoder is not None or data is not None:
        raise ConfigError(f"{path} is no embedding file: leave --encoder and --data out")
    if kind == "index":
        info = check_index(path, findings)
        rows, dim = info.n, info.dim
    elif kind == "export of embeddings":
        rows, dim = check_export(path, findings)
    else:
        rows, dim = 0, 0
        check_exports(export_folder(path), findings.problems, findings.warnings)
    return VerifyResult(path, rows, rows, dim, findings.problems, findings.warnings, kind=kind)


def _kind_of(path: Path) -> str:
    if path.is_dir():
        if is_npy_parquet(path):
            return "export of embeddings"
        if any(export_folder(path).glob("*.safetensors")):
            return "export"
    return "index" if is_index(path) else "embeddings"
