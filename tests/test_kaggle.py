"""The CSV of the UW Neural Data Challenge: what is written, and what is refused."""

import csv

import numpy as np
import pytest

from neuro_lightning.errors import SubmissionError
from neuro_lightning.submission.kaggle import check_kaggle, write_kaggle

COLUMNS = [f"9_{day}_2018_0_{unit}" for day in range(9) for unit in range(2)]
RNG = np.random.default_rng(0)


def rates():
    values = RNG.gamma(2, 1, (50, 18)).astype(np.float32)
    values[0, 0], values[0, 1], values[0, 2] = 0.0, 1e-12, -1e-3  # a linear model's prediction may dip below zero
    return values


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_written_values_equal_the_predictions(tmp_path, dtype):
    values = rates().astype(dtype)
    path = write_kaggle(tmp_path / "new" / "submission.csv", values, COLUMNS)
    text = path.read_bytes()
    assert b"\r" not in text and text.endswith(b"\n")
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    assert 1 + len(rows) == 51 and {len(row) for row in [header, *rows]} == {19}
    assert header == ["Id", *COLUMNS] and [row[0] for row in rows] == [str(i) for i in range(50)]
    read = np.array([[float(cell) for cell in row[1:]] for row in rows])
    assert np.array_equal(read.astype(dtype), values)  # bit for bit
    check_kaggle(path, COLUMNS)


def test_names_with_a_comma_survive(tmp_path):
    columns = ["a,b", 'c"d', *COLUMNS[2:]]
    check_kaggle(write_kaggle(tmp_path / "a.csv", rates(), columns), columns)


def change(line=None, text=None, cell=None, value=None, drop=None, add=None, swap=None):
    def edit(lines):
        if cell is not None:
            cells = lines[line].split(",")
            cells[cell] = value
            lines[line] = ",".join(cells)
        if text is not None:
            lines[line] = text
        if swap:
            lines[swap[0]], lines[swap[1]] = lines[swap[1]], lines[swap[0]]
        return [x for i, x in enumerate(lines) if i != drop] + ([add] if add else [])

    return edit


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (change(drop=7), "50 lines, expected 51"),
        (change(add="50," + ",".join(["1"] * 18)), "52 lines, expected 51"),
        (change(swap=(3, 4)), "line 4: the Id is '3', expected 2"),
        (change(1, cell=0, value="50"), "line 2: the Id is '50', expected 0"),
        (change(0, cell=0, value="id"), "column 1 is 'id', not 'Id'"),
        (change(0, cell=3, value="x"), "column 4 is 'x'"),
        (change(0, text="Id," + ",".join(COLUMNS[:-1])), "18 columns, not 19"),
        (change(5, text="4,1"), "line 6: 2 cells, expected 19"),
        (change(5, cell=2, value=""), "line 6, column 9_0_2018_0_1: '' is no number"),
        (change(5, cell=2, value="nan"), "not finite"),
        (change(5, cell=2, value="inf"), "not finite.*image 4, neuron 9_0_2018_0_1"),
        (change(5, cell=2, value="64"), "too large.* square roots"),
        (lambda lines: [], "0 columns, not 19"),
    ],
)
def test_invalid_files_are_refused(tmp_path, edit, says):
    path = write_kaggle(tmp_path / "a.csv", rates(), COLUMNS)
    lines = edit(path.read_text().splitlines())
    path.write_text("\n".join(lines))
    with pytest.raises(SubmissionError, match=says) as error:
        check_kaggle(path, COLUMNS)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b'Id,"'])
def test_unreadable_files_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(SubmissionError, match=r"a\.csv (cannot be read|is not there)"):
        check_kaggle(tmp_path / "a.csv", COLUMNS)


@pytest.mark.parametrize(
    ("values", "columns", "says"),
    [
        (np.ones((551, 18)), COLUMNS, r"shape \(551, 18\), expected numbers of shape \(50, 18\)"),
        (np.ones((18, 50)), COLUMNS, r"shape \(18, 50\)"),
        (np.ones((50, 18)), COLUMNS[:-1], r"shape \(50, 17\)"),
        (np.full((50, 18), "1"), COLUMNS, "expected numbers"),
        (np.full((50, 18), np.nan), COLUMNS, "900 values are not finite"),
        (np.full((50, 18), 40.0), COLUMNS, "too large.* 40 for image 0"),
        (np.full((50, 18), -20.0), COLUMNS, "far below zero.* -20 for image 0"),
        (np.ones((50, 19)), ["Id", *COLUMNS], "without Id"),
        (np.ones((50, 18)), [COLUMNS[0]] * 18, "names"),
        (np.ones((50, 0)), [], "names"),
    ],
)
def test_bad_predictions_leave_the_old_file(tmp_path, values, columns, says):
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(SubmissionError, match=says):
        write_kaggle(path, values, columns)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_unwritable_path_is_one_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SubmissionError, match="cannot be written"):
        write_kaggle(tmp_path / "file" / "a.csv", rates(), COLUMNS)
