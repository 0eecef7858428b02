"""CSV lists as people save them."""

import numpy as np
import pytest
from PIL import Image

from galirep.data.catalog import open_data
from galirep.errors import DataError


@pytest.fixture
def opened(tmp_path):
    def open_text(content, encoding="utf-8"):
        (tmp_path / "x.csv").write_bytes(content.encode(encoding))
        return open_data(f"csv:{tmp_path / 'x.csv'}")

    return open_text


@pytest.mark.parametrize(
    ("text", "ids", "labels", "names", "notes"),
    [
        ("path, label\na.png, cat\nb.png,dog \nc.png,cat\n", "a.png b.png c.png", [0, 1, 0], ("cat", "dog"), ""),
        ("Path,Label\na.png,1\nb.png,0\n", "a.png b.png", [1, 0], (), ""),
        ("\ufeffpath,label\r\na.png,1\r\nb.png,0\r\n", "a.png b.png", [1, 0], (), ""),
        ("path;label\na.png;cat\nb.png;\n", "a.png b.png", [0, -1], ("cat",), "separated by semicolons"),
        ("LABEL\tPATH\n1.0\ta.png\nNaN\tb.png\n", "a.png b.png", [1, -1], (), "separated by tabs"),
        ("path|label\na.png|1\n", "a.png", [1], (), "separated by bars"),
        ('path,label\n"a,b.png",cat\n c.png , "cat"\n', "a,b.png c.png", [0, 0], ("cat",), ""),
        ("path,label\na.png,1.0\nb.png,nan\nc.png, \n", "a.png b.png c.png", [1, -1, -1], (), "are 'NaN' and count as"),
        ("path,label\na.png,1\nb.png,--1\n", "a.png b.png", [1, 0], ("--1", "1"), "'--1' is no number"),
        ("path,label\n\na.png,1\n , \n\nb.png,0\n", "a.png b.png", [1, 0], (), "1 rows with empty cells only"),
        ("path,label,split\na.png\nb.png,1,test\n", "a.png b.png", [-1, 1], (), "fewer cells than columns"),
        (",path,label,split\n0,a.png,1,x\n", "a.png", [1], (), "ignored: one without a name, 'split'"),
        ("path,label\na.png,\nb.png,NaN\n", "a.png b.png", [-1, -1], (), "NaN"),
        (
            "sep=;\r\npath;label\r\na.png;1\r\n",
            "a.png",
            [1],
            (),
            "'sep=;' names the delimiter and is skipped",
        ),
        ("SEP=,\npath,a;path\na.png,1\n", "a.png", None, (), "'SEP=,' names the delimiter"),
        ("\ufeffsep=\t\npath\tlabel\na.png\t1\n", "a.png", [1], (), "separated by tabs"),
        ("sep=:\npath:label\na.png:1\n", "a.png", [1], (), "separated by ':'"),
        ("path,label\na.png,\nb.png,\n", "a.png b.png", [-1, -1], (), "column label is empty"),
    ],
)
def test_lists_as_people_save_them(opened, text, ids, labels, names, notes):
    source = opened(text)
    assert list(source.ids) == ids.split()
    assert (None if source.labels is None else source.labels.tolist()) == labels and source.label_names == names
    assert notes in "; ".join(source.report.notes) and bool(source.report.notes) == bool(notes)
    assert source.subset([0]).report.notes == source.report.notes


def test_a_list_without_labels_says_which_columns_it_ignored(opened):
    source = opened("path,class\na.png,1\n")
    assert source.labels is None
    assert source.report.notes == ("columns that are ignored: 'class' and there is no column label",)
    assert source.report.classes == {"": 1}


def test_utf_16_with_a_mark(opened):
    source = opened("path\tlabel\na.png\tcaf\u00e9\n", "utf-16")
    assert source.label_names == ("caf\u00e9",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na,b.png,cat\n", "line 2: 3 cells under 2 columns; put a cell with a delimiter in it into double"),
        ('path,label\n"a.png,cat\nb.png,dog\n', r"line 3: unexpected end of data \(a double quote is left open\)"),
        ('path,label\n"a.png,cat\nb.png,"\nc.png,1\n', "path that ends in line 3 has a line break in it"),
        ("path,label,Label\na.png,0,1\n", r"has 2 columns 'label' \('label', 'Label'\): keep one"),
        ("path,label\na.png,1\nb.png,0.5\n", "the labels of .* whole numbers or names, but that of line 3 is 0.5"),
        ("path,label\na.png,99999999999999999999\n", "that of line 2 is 99999999999999999999"),
        ("path,label\n a.png,1\na.png ,2\n", "'a.png' twice"),
        ("path,label\na.png,1\n,2\n", r"empty path in its row 2 \(line 3\)"),
        ("path,label\na\0.png,1\n", "zero bytes"),
        ('path,label\n"a.png" ,1\n', """line 2: ',' expected after '"'$"""),
        ("sep=;\npath;label\na.png;1\n;2\n", r"empty path in its row 2 \(line 4\)"),
        ("sep=;\npath;label\na;b;c\n", "line 3: 3 cells under 2 columns"),
        ("file;label\na.png;1\n", r"no column 'path' .*\(its columns: file;label\)"),
    ],
)
def test_lists_that_are_refused(opened, text, message):
    with pytest.raises(DataError, match=message) as caught:
        opened(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["./a.png", "sub/../a.png", ".//a.png", "{folder}/a.png"])
def test_one_file_under_two_paths_is_refused(opened, tmp_path, monkeypatch, other):
    other = other.format(folder=tmp_path)
    with pytest.raises(DataError, match=f"names one file twice, 'a.png' and '{other}': keep one of the two rows"):
        opened(f"path,label\na.png,1\nb.png,1\n{other},2\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="names one file twice"):
        open_data("csv:x.csv")


def test_a_list_in_another_encoding(opened):
    with pytest.raises(DataError, match="save it as UTF-8"):
        opened("path,label\nb\u00e4r.png,1\n", "latin-1")


def test_array_files_have_names_as_labels_too(tmp_path):
    import h5py

    images = np.zeros((3, 4, 4), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.array(["dog", "cat ", ""]))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"], file["labels"] = images, ["dog", "cat ", "NaN"]
    for spec in (f"npz:{tmp_path / 'x.npz'}", f"hdf5:{tmp_path / 'x.h5'}"):
        source = open_data(spec)
        assert source.labels.tolist() == [1, 0, -1] and source.label_names == ("cat", "dog")
    np.savez(tmp_path / "x.npz", images=images, labels=np.array([1.0, np.nan, 0.0]))
    assert open_data(f"npz:{tmp_path / 'x.npz'}").labels.tolist() == [1, -1, 0]
    np.savez(tmp_path / "x.npz", images=images, labels=np.array([0.25, 0.5, 0.5]))
    with pytest.raises(DataError, match=r"whole numbers or names, but that of row 0 is 0\.25"):
        open_data(f"npz:{tmp_path / 'x.npz'}")
    np.savez(tmp_path / "x.npz", images=images, labels=np.array(["a", 1, None], dtype=object))
    with pytest.raises(DataError, match=r"Python objects, which are not unpickled: save labels\.astype\(str\)"):
        open_data(f"npz:{tmp_path / 'x.npz'}")


@pytest.mark.parametrize(
    ("names", "labels", "notes"),
    [
        ("images target Labels", [0, 1], ["arrays 'target' are not read; labels are an array labels"]),
        ("X Y", [0, 1], []),
        ("images target", None, ["arrays 'target' are not read; labels are an array labels"]),
        ("images x y", [0, 1], ["of the arrays 'images', 'x', 'images' is read"]),
        ("images y labels", [0, 1], ["of the arrays 'labels', 'y', 'labels' is read"]),
        ("images LABELS labels", [0, 1], ["of the arrays 'labels', 'LABELS', 'labels' is read"]),
    ],
)
def test_arrays_under_other_names_are_told(tmp_path, names, labels, notes):
    import h5py

    images = {"images", "x", "X"}
    arrays = {name: np.zeros((2, 4, 4), np.uint8) if name in images else [0, 1] for name in names.split()}
    np.savez(tmp_path / "x.npz", **arrays)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, array in arrays.items():
            file[name] = array
    for spec in (f"npz:{tmp_path / 'x.npz'}", f"hdf5:{tmp_path / 'x.h5'}"):
        source = open_data(spec)
        assert (None if source.labels is None else source.labels.tolist()) == labels
        told = source.report.notes
        assert len(told) == len(notes) and all(map(str.startswith, told, notes)), told


def test_arrays_that_differ_in_case_alone_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((2, 4, 4), np.uint8), Labels=[0, 1], LABELS=[1, 0])
    with pytest.raises(DataError, match=r"has 2 arrays 'labels' \('Labels', 'LABELS'\): keep one"):
        open_data(f"npz:{tmp_path / 'x.npz'}")


def test_images_of_a_list_with_blanks_are_read(opened, tmp_path):
    Image.new("L", (4, 4), 9).save(tmp_path / "a b.png")
    assert opened("path , label\n a b.png , 1\n").read(0)[0, 0, 0] == 9


def test_a_backslash_where_a_slash_would_find_the_file(opened, tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("L", (4, 4), 9).save(tmp_path / "a" / "1.png")
    source = opened("path\na\\1.png\na\\2.png\n")
    with pytest.raises(DataError, match=r"^a\\1\.png: no such file, but there is 'a/1\.png': write / for \\ in paths$"):
        source.read(0)
    with pytest.raises(DataError, match=r"^a\\2\.png: No such file or directory$"):
        source.read(1)
