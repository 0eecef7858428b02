"""Check an index against its checksums, and its three files against each other."""

from collections import Counter
from pathlib import Path

from galirep.embeddings.integrity.findings import Findings
from galirep.search.index_file import read_index, read_info, read_rows
from galirep.search.index_info import IndexInfo
from galirep.search.index_replacing import rows_path
from galirep.system.files import checksum


def check_index(path: Path, findings: Findings) -> IndexInfo:
    """Read all of the index `path` and add what is wrong to `findings`; return its description.

    Raises:
        DataError: a file is missing, was not written by galirep or does not have its checksum.
    """
    info = read_info(path)
    for kind, file in (("index", path), ("rows", rows_path(path))):
        expected = info.whole_files.get(kind)
        if expected is None:
            # of version 1, where the checksum that `read_info` compared is of pieces if the file is large
            findings.warnings.append(f"{file.name} was written without a checksum of every byte")
        elif checksum(file, whole=True) != expected:
            findings.problems.append(f"{file.name} is not the file that was written")
    read_index(path, info)
    ids, labels = read_rows(path, info.n)
    counts = Counter(ids.tolist())
    findings.list_problem("duplicate ids", (name for name, count in counts.items() if count > 1))
    findings.list_problem("empty ids", (row for row, name in enumerate(ids) if not name))
    if labels is not None:
        names = len(info.embeddings.label_names)
        wrong = (labels < -1) | ((labels >= names) if names else False)
        findings.list_problem("labels without a name", ids[wrong])
    return info
