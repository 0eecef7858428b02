"""Properties of any tree, tar or CSV list: every picture is a row or is counted, labels are as written, ids unique.

The expectations are computed here from what was generated, not by the package's own rules.
"""

import csv
import io
import os
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from picture_trees import add_member, encode

from galirep.data.catalog import open_data
from galirep.errors import DataError

RANDOM = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
CLASSES = ("bus", "car", "Plane", "a b", "Größe", "7", "train")
# what a file is, with its ending
GOOD, JUNK, UNREAD, DRAWING, OTHER, LINK, DANGLING = "good", "junk", "unread", "drawing", "other", "link", "dangling"
ENDINGS = {
    GOOD: (".png", ".PNG", ".bmp"),
    JUNK: (".jpg", ".webp"),
    UNREAD: (".heic", ".CR2"),
    DRAWING: (".svg",),
    OTHER: (".txt", ""),
    LINK: (".png",),
    DANGLING: (".jpg",),
}
# folders on the way to a file, and whether they are left out with all that is in them
PLACES = ((), ("deep",), ("@eaDir",), (".cache",), ("__MACOSX",))


@dataclass(frozen=True)
class Made:
    """A generated file: its path, what it is, whether its place is left out; of a link, the number of its target."""

    path: str
    kind: str
    set_aside: bool
    target: int | None = None

    @property
    def is_picture(self):
        return self.kind != OTHER

    @property
    def is_row(self):
        return self.kind in (GOOD, JUNK, LINK, DANGLING) and not self.set_aside

    @property
    def top(self):
        return self.path.partition("/")[0] if "/" in self.path else ""


@st.composite
def trees(draw, classes=True):
    """Draw 1 to 60 files in class folders, or flat."""
    made = []
    for number in range(draw(st.integers(1, 60))):
        kind = draw(st.sampled_from((GOOD, GOOD, GOOD, JUNK, UNREAD, DRAWING, OTHER, LINK, DANGLING)))
        targets = [k for k, other in enumerate(made) if other.kind == GOOD]
        if kind == LINK and not targets:
            kind = DANGLING
        # in a flat set a folder would be a class
        place = draw(st.sampled_from([p for p in PLACES if classes or p != ("deep",)] + [()] * 10))
        top = (draw(st.sampled_from(CLASSES)),) if classes else ()
        hidden = draw(st.integers(0, 19)) == 0
        name = f"{'.' if hidden else ''}{number:02d}{draw(st.sampled_from(ENDINGS[kind]))}"
        set_aside = hidden or place in (("@eaDir",), (".cache",), ("__MACOSX",))
        target = draw(st.sampled_from(targets)) if kind == LINK else None
        made.append(Made("/".join((*top, *place, name)), kind, set_aside, target))
    return made


def leads_to(made, files):
    """Write the target of a link relative to the link's folder."""
    path = "nowhere.png" if made.target is None else files[made.target].path
    return os.path.relpath(path, Path(made.path).parent)


def content(number, made):
    return encode(number, ".bmp" if made.path.lower().endswith(".bmp") else ".png") if made.kind == GOOD else b"junk"


def write_tree(root, files):
    for number, made in enumerate(files):
        path = root / made.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if made.kind in (LINK, DANGLING):
            path.symlink_to(leads_to(made, files))
        else:
            path.write_bytes(content(number, made))


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for number, made in enumerate(files):
            if made.kind in (LINK, DANGLING):
                add_member(tar, f"./{made.path}", kind=tarfile.SYMTYPE, link=leads_to(made, files))
            else:
                add_member(tar, f"./{made.path}", content(number, made))


def must_be_refused(files, classes):
    """Return True if the tree has no image, or a class all of whose photographs are of unread types."""
    if not any(made.is_row for made in files):
        return True
    if not classes:
        return False
    read = {made.top for made in files if made.is_row}
    return bool({made.top for made in files if made.kind == UNREAD and not made.set_aside} - read)


def check_source(source, files):
    rows = {made.path: (number, made) for number, made in enumerate(files) if made.is_row}
    report = source.report
    if skipped := [note for note in report.notes if note.startswith("the one folder ")]:
        # told: the ids begin inside the only folder there is
        (top,) = {made.top for _, made in rows.values()}
        assert repr(top) in skipped[0]
        assert {f"{top}/{name}" for name in source.ids} == rows.keys()
        return
    # every file that looks like a picture is a row or is counted
    assert len(source) == report.images == len(rows)
    assert len(source) + sum(entry.count for entry in report.left_out) == sum(made.is_picture for made in files)
    # ids are unique and lead back to the file
    assert set(source.ids) == rows.keys() and len(set(source.ids)) == len(source)
    for index, name in enumerate(source.ids):
        number, made = rows[name]
        if made.kind == LINK:
            number = made.target
        if made.kind in (GOOD, LINK):
            assert source.raw(index) == content(number, files[number])
            assert source.read(index).reshape(-1)[0] == number
        else:
            reason = "No such file|not in the tar" if made.kind == DANGLING else "not an image of a known type"
            with pytest.raises(DataError, match=reason):
                source.read(index)
        # the label is the folder
        if made.top:
            assert source.label_names[source.labels[index]] == made.top
    if source.labels is None:
        assert not any(made.top for _, made in rows.values())


@RANDOM
@given(files=trees())
def test_class_folders_as_folder_and_as_tar(files):
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder) / "set", files)
        write_tar(Path(folder) / "set.tar", files)
        for spec in (f"{folder}/set", f"{folder}/set.tar"):
            if must_be_refused(files, classes=True):
                with pytest.raises(DataError, match=r"has no images|none of the .* pictures of the class"):
                    open_data(spec, splits="none")
            else:
                check_source(open_data(spec, splits="none"), files)


@RANDOM
@given(files=trees(classes=False))
def test_flat_sets_as_folder_and_as_tar(files):
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder) / "set", files)
        write_tar(Path(folder) / "set.tar", files)
        (Path(folder) / "set").mkdir(exist_ok=True)
        for spec in (f"{folder}/set", f"{folder}/set.tar"):
            if must_be_refused(files, classes=False):
                with pytest.raises(DataError, match="has no images"):
                    open_data(spec)
            else:
                check_source(open_data(spec), files)


SPLITS = {"train": ("train", "Train", "TRAINING"), "test": ("test", "Testing"), "val": ("val", "valid", "Validation")}


@RANDOM
@given(data=st.data())
def test_splits_under_any_name(data):
    names = {split: data.draw(st.sampled_from(folders)) for split, folders in SPLITS.items()}
    sets = {split: [m for m in data.draw(trees()) if m.kind in (GOOD, JUNK, OTHER, DANGLING)] for split in names}
    with tempfile.TemporaryDirectory() as folder:
        for split, files in sets.items():
            write_tree(Path(folder) / names[split], files)
        full = {split: files for split, files in sets.items() if any(made.is_row for made in files)}
        if "train" not in full or len(full) < 2:
            return
        for split, files in full.items():
            source = open_data(folder, split)
            assert source.split == split and set(source.report.splits) == full.keys()
            check_source(source, files)


TEXTS = st.sampled_from(
    ("cat", "dog", "Größe", "two words", "semi;colon", 'quo"te', "comma,comma", "7", "07", "1.0", "", "NaN", " ")
)


@RANDOM
@given(
    labels=st.lists(TEXTS, min_size=1, max_size=60),
    delimiter=st.sampled_from((",", ";", "\t")),
    header=st.sampled_from((("path", "label"), ("Path", " Label "), ("label", "PATH"))),
    bom=st.booleans(),
    line_end=st.sampled_from(("\n", "\r\n")),
)
def test_csv_lists_as_people_save_them(labels, delimiter, header, bom, line_end):
    with tempfile.TemporaryDirectory() as folder:
        names = [f"{number:02d}.png" for number in range(len(labels))]
        for number, name in enumerate(names):
            (Path(folder) / name).write_bytes(encode(number))
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=delimiter, lineterminator=line_end)
        writer.writerow(header)
        swapped = header[0] == "label"
        writer.writerows((label, name) if swapped else (name, label) for name, label in zip(names, labels, strict=True))
        (Path(folder) / "list.csv").write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode())
        source = open_data(f"csv:{folder}/list.csv")
    assert list(source.ids) == names and source.report.images == len(names)
    written = [label.strip() for label in labels]
    none = [label.casefold() in ("", "nan") for label in written]
    if all(none):
        assert source.labels is None or set(source.labels) == {-1}
        return
    assert [label < 0 for label in source.labels] == none
    read = [str(label) if not source.label_names else source.label_names[label] for label in source.labels]
    if source.label_names:
        assert [r for r, n in zip(read, none, strict=True) if not n] == [
            w for w, n in zip(written, none, strict=True) if not n
        ]
    else:
        assert [int(r) for r, n in zip(read, none, strict=True) if not n] == [
            int(float(w)) for w, n in zip(written, none, strict=True) if not n
        ]
