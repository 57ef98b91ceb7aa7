"""UWNDC19: how its files are read, and which are refused."""

import csv

import numpy as np
import pytest
from visual_twins import UWNDC19_FILES, lines

from neuro_lightning.data.uwndc19 import twin
from neuro_lightning.data.uwndc19.datamodule import UWNDC19
from neuro_lightning.data.uwndc19.reader import read_challenge
from neuro_lightning.errors import ConfigError, DataError


@pytest.fixture
def copy(uwndc19_folder, tmp_path):
    """Links to the twin's files, to be replaced one at a time."""
    for name in UWNDC19_FILES:
        (tmp_path / name).symlink_to(uwndc19_folder / name)
    return tmp_path


def replace(path, content):
    path.unlink()
    path.write_bytes(content)


def test_crop_and_order(uwndc19_folder, uwndc19_challenge):
    stim = np.load(uwndc19_folder / "stim.npy", mmap_mode="r")
    assert uwndc19_challenge.images.shape == (601, 3, 48, 48) and uwndc19_challenge.images.dtype == np.float32
    np.testing.assert_array_equal(uwndc19_challenge.images[77], stim[77, 16:64, 16:64].transpose(2, 0, 1))
    assert np.array_equal(read_challenge(uwndc19_folder).images[600], stim[600].transpose(2, 0, 1))
    odd = read_challenge(uwndc19_folder, image_size=49).images
    assert odd.shape[2:] == (49, 49)
    with open(uwndc19_folder / "train.csv") as file:
        row = list(csv.DictReader(file))[7]
    assert uwndc19_challenge.columns == list(twin.COLUMNS)
    np.testing.assert_allclose(
        uwndc19_challenge.responses[7], [float(row[name]) for name in uwndc19_challenge.columns], rtol=1e-6
    )


def test_windows_line_ends_a_byte_order_mark_and_nan_are_read(copy, uwndc19_challenge):
    text = "\r\n".join(lines(copy)) + "\r\n"
    replace(copy / "train.csv", b"\xef\xbb\xbf" + text.replace(",,", ",nan,").encode())
    np.testing.assert_array_equal(read_challenge(copy, image_size=48).responses, uwndc19_challenge.responses)


@pytest.mark.parametrize("name", UWNDC19_FILES[:3])
def test_missing_files_name_their_address(copy, name):
    (copy / name).unlink()
    with pytest.raises(DataError, match=rf"has no {name}: .*https://www\.kaggle\.com/c/uwndc19"):
        read_challenge(copy)


def test_a_missing_folder_names_the_missing_files(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}/uwndc19 has no stim\.npy, train\.csv, sub\.csv"):
        UWNDC19(root=str(tmp_path)).prepare_data()


def edit(row, cell=None, value=None, drop=False, swap=None, text=None):
    """A change of a table's lines; ``row`` counts from the header, 0."""

    def change(table):
        cells = table[row].split(",")
        if cell is not None:
            cells[cell] = value
        table[row] = ",".join(cells) if text is None else text
        if swap is not None:
            table[row], table[swap] = table[swap], table[row]
        return table[:row] + table[row + 1 :] if drop else table

    return change


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("train.csv", edit(3, swap=9), "line 4: the Id is '58' where 52 was expected; the Ids must be 50 to 600"),
        ("train.csv", edit(5, 0, "50"), "line 6: the Id is '50' where 54 was expected"),
        ("train.csv", edit(5, 0, "601"), "line 6: the Id is '601' where 54 was expected"),
        ("train.csv", edit(1, 0, "0"), "line 2: the Id is '0' where 50 was expected"),
        ("train.csv", edit(5, drop=True), "line 6: the Id is '55' where 54 was expected"),
        ("train.csv", lambda table: table[:-1], "has 550 rows, expected 551"),
        ("train.csv", edit(5, 0, "54.0"), "line 6: the Id is '54.0' where 54 was expected"),
        ("train.csv", edit(5, 3, "much"), "line 6, column 11_06_18_0_0: 'much' is no number"),
        ("train.csv", edit(5, 3, "-0.5"), "cannot be -0.5"),
        ("train.csv", edit(5, 3, "inf"), "cannot be inf"),
        ("train.csv", edit(5, 3, "121"), "cannot be 121"),
        ("train.csv", edit(5, text="54,1,2"), "line 6: 3 cells, expected 19"),
        ("train.csv", edit(0, 0, "id"), "header must be Id"),
        ("train.csv", edit(0, 2, "10_1_2018_0_0"), "must differ.*10_1_2018_0_0"),
        ("train.csv", edit(0, text="Id,a,b"), "with 3 columns"),
        ("train.csv", lambda table: [",".join([r.split(",")[0], "", *r.split(",")[2:]]) if i else r
                                     for i, r in enumerate(table)], "10_1_2018_0_0 has no response at all"),
        ("train.csv", lambda table: [], "header must be Id"),
        ("sub.csv", edit(0, 4, "other"), "differs from that of train.csv at neuron column 4"),
        ("sub.csv", edit(3, swap=9), "line 4: the Id is '8' where 2 was expected"),
    ],
)  # fmt: skip
def test_bad_tables(copy, name, change, says):
    replace(copy / name, "\n".join(change(lines(copy, name))).encode())
    with pytest.raises(DataError, match=says) as error:
        read_challenge(copy)
    assert name in str(error.value)


def write_stim(path, shape=(601, 80, 80, 3), dtype=np.float16, **values):
    path.unlink()
    stim = np.lib.format.open_memmap(path, "w+", dtype, shape)  # zeros that take no space
    for value in values.values():
        stim[100, 40, 40, 1] = value
    stim.flush()


@pytest.mark.parametrize(
    ("stim", "says"),
    [
        ({"shape": (551, 80, 80, 3)}, r"the shape is \(551, 80, 80, 3\), expected \(601, 80, 80, 3\)"),
        ({"shape": (601, 3, 80, 80)}, "expected .*rows, height, width, RGB"),
        ({"dtype": np.uint8, "value": 200}, "uint8.* divide 8-bit images by 255"),
        ({"value": 255.0}, "reach from 0 to 255"),
        ({"value": -1.0}, "reach from -1 to 0"),
        ({"value": np.nan}, "reach from nan to nan"),
    ],
)
def test_bad_images(copy, stim, says):
    write_stim(copy / "stim.npy", **stim)
    with pytest.raises(DataError, match=says):
        read_challenge(copy)


@pytest.mark.parametrize("content", [b"", b"not an array", b"PK\x03\x04"])
def test_damaged_files(copy, content):
    replace(copy / "stim.npy", content)
    with pytest.raises(DataError, match=r"stim\.npy"):
        read_challenge(copy)


def test_code_in_a_file_is_not_run(copy, tmp_path_factory):
    trap = tmp_path_factory.mktemp("trap") / "sprung"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    (copy / "stim.npy").unlink()
    np.save(copy / "stim.npy", np.array([Trap()]), allow_pickle=True)
    with pytest.raises(DataError, match=r"stim\.npy cannot be read"):
        read_challenge(copy)
    assert not trap.exists()


def test_damaged_truth_and_table(copy):
    replace(copy / "truth.npz", b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"truth\.npz cannot be read"):
        read_challenge(copy, image_size=8)
    replace(copy / "train.csv", b"Id,\xff\xfe")
    with pytest.raises(DataError, match=r"train\.csv cannot be read"):
        read_challenge(copy)


@pytest.mark.parametrize("size", [0, 81, 48.0, True])
def test_impossible_crop(uwndc19_folder, size):
    with pytest.raises(ConfigError, match=r"data\.image_size"):
        read_challenge(uwndc19_folder, image_size=size)
