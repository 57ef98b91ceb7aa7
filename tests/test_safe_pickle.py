"""Pickled dictionaries are read, and nothing in them is run."""

import io
import os
import pickle
import pickletools
import struct

import numpy as np
import pytest

from neuro_lightning.data.checks.bounds import check_arrays
from neuro_lightning.data.formats.safe_pickle import load_dict
from neuro_lightning.errors import DataError

CONTENT = {
    "sresp": np.arange(12, dtype=np.float32).reshape(3, 4),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(3, dtype=">i2"),
    "bools": np.array([True, False]),
    "text": np.array(["ab", "c"]),
    "empty": np.zeros((0, 3)),
    "stat": np.array([{"med": [1.5, 2], "ypix": np.arange(3)}, {"med": [0.0, 1], "npix": np.int64(4)}], dtype=object),
    "info": "gratings",
    "number": 3,
    "scalar": np.float32(1.25),
    "list": [1, 2, 3],
    "raw": np.bytes_(b""),
}


def npy(path, pickled: bytes) -> None:
    """An .npy file of one object with the pickle ``pickled``."""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        file.write(pickled)


def wrapped(item) -> np.ndarray:
    array = np.empty((), object)
    array[()] = item
    return array


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [None, 2, 3, 4])
@pytest.mark.parametrize("core", ["numpy._core", "numpy.core"])
def test_reads_what_numpy_reads(tmp_path, protocol, core):
    path = tmp_path / "data.npy"
    if protocol is None:
        np.save(path, CONTENT, allow_pickle=True)
    else:
        pickled = pickle.dumps(wrapped(CONTENT), protocol=protocol)
        if protocol < 4:  # text opcodes: the module's old name can be put in place
            assert b"numpy._core.multiarray" in pickled
            pickled = pickled.replace(b"numpy._core.multiarray", core.encode() + b".multiarray")
        npy(path, pickled)
    read = load_dict(path, [k for k in CONTENT if k != "stat"], ["stat", "absent"])
    assert set(read) == set(CONTENT)
    for key, value in CONTENT.items():
        if key != "stat":
            np.testing.assert_array_equal(read[key], value)
            assert read[key].dtype == np.asarray(value).dtype, key
    assert read["stat"].shape == (2,) and read["stat"][0]["med"] == [1.5, 2] and read["stat"][1]["npix"] == 4
    np.testing.assert_array_equal(read["stat"][0]["ypix"], [0, 1, 2])


def test_python2_pickle(tmp_path):
    """Python 2 wrote arrays' bytes as BINSTRING, which Python 3 decodes as text."""
    state = b"(K\x01(K\x02tcnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(K\x03S'<'\nNNNI-1\nI-1\nK\x00tbI00\n"
    data = struct.pack("<2d", 1.5, -2.25)
    inner = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR" + state
    inner += b"T" + struct.pack("<i", len(data)) + data + b"tb"
    outer = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(K\x01(tcnumpy\ndtype\n(S'O8'\nI0\nI1\n"
    )
    outer += b"tR(K\x03S'|'\nNNNI-1\nI-1\nK?tbI00\n(lp1\n(dS'x'\n" + inner + b"satb."
    path = tmp_path / "old.npy"
    npy(path, outer)
    np.testing.assert_array_equal(load_dict(path, ["x"])["x"], [1.5, -2.25])


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch {}",), "system"),
        (eval, ("1",), "eval"),
        (np.load, ("{}",), "load"),
        (getattr, ("", "x"), "getattr"),
    ],
)
def test_code_is_refused_not_run(tmp_path, function, args, name):
    path, trace = tmp_path / "evil.npy", tmp_path / "trace"
    np.save(path, {"x": np.zeros(2), "y": Call(function, *[str(a).format(trace) for a in args])}, allow_pickle=True)
    with pytest.raises(DataError, match=rf"evil\.npy asks for \w+(\.\w+)*\.{name}, .*refused"):
        load_dict(path, ["x"])
    assert not trace.exists()


def test_forged_dtypes_codecs_and_subclasses_are_refused(tmp_path):
    path = tmp_path / "forged.npy"
    array = pickle.dumps(wrapped({"x": np.zeros(2)}), protocol=2)
    for old, new in [(b"f8", b"O8"), (b"_codecs\nencode", b"_codecs\ndecode"), (b"latin1", b"utf-16")]:
        assert old in array
        npy(path, array.replace(old, new))
        with pytest.raises(DataError, match=r"forged\.npy"):
            load_dict(path, ["x"])
    npy(path, pickle.dumps(Call(bytes, 10**13), protocol=2))
    with pytest.raises(DataError, match=r"forged\.npy"):
        load_dict(path, ["x"])
    np.save(path, {"x": np.rec.fromarrays([[1, 2], [3, 4]])}, allow_pickle=True)
    with pytest.raises(DataError, match=r"forged\.npy"):
        load_dict(path, ["x"])


def test_a_file_cannot_change_the_reader(tmp_path):
    """BUILD sets attributes: what a file may name has none that it could set."""
    for target in (b"cnumpy\ndtype\n", b"cbuiltins\ndict\n", b"cnumpy.core.multiarray\nscalar\n"):
        npy(tmp_path / "set.npy", b"\x80\x02" + target + b"N}X\x0c\x00\x00\x00__defaults__)s\x86b.")
        with pytest.raises(DataError, match=r"set\.npy"):
            load_dict(tmp_path / "set.npy", ["x"])


def test_damaged_files(tmp_path):
    path = tmp_path / "data.npy"
    np.save(path, CONTENT, allow_pickle=True)
    whole = path.read_bytes()
    for size in (0, 5, 40, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"data\.npy"):
            load_dict(path, ["sresp"])
    rng = np.random.default_rng(0)
    for _ in range(300):  # whatever bits flip: arrays or a DataError
        flipped = bytearray(whole)
        flipped[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            load_dict(path, ["sresp"], list(CONTENT))
        except DataError as error:
            assert "data.npy" in str(error)


def test_wrong_kinds_of_file(tmp_path):
    path = tmp_path / "data.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(DataError, match="pickled dictionary is expected"):
        load_dict(path, ["x"])
    np.save(path, wrapped([1, 2]), allow_pickle=True)
    with pytest.raises(DataError, match="does not hold a dictionary"):
        load_dict(path, ["x"])
    np.save(path, {"a": np.zeros(1), "b": np.zeros(1)}, allow_pickle=True)
    with pytest.raises(DataError, match=r"lacks x, y\. .*It has: a, b"):
        load_dict(path, ["x", "a", "y"])
    with pytest.raises(DataError, match="is not there"):
        load_dict(tmp_path / "none.npy", ["x"])
    loop = [1]
    loop.append(loop)
    np.save(path, {"x": np.arange(2), "loop": loop}, allow_pickle=True)
    np.testing.assert_array_equal(load_dict(path, ["x"])["x"], [0, 1])
    load_dict(path, ["loop"])  # it ends


def test_npz(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, resp=np.ones((2, 3)), other=np.array([{}], dtype=object))
    assert load_dict(path, ["resp"])["resp"].shape == (2, 3)
    with pytest.raises(DataError, match=r"data\.npz"):
        load_dict(path, ["resp", "other"])
    with pytest.raises(DataError, match="lacks stimuli"):
        load_dict(path, ["stimuli"])


def test_check_arrays():
    good = {"sresp": np.ones((3, 5)), "run": np.ones((5, 1)), "xyz": np.ones((3, 3)), "extra": np.full(2, np.nan)}
    shapes = {"sresp": "NT", "run": "T1", "xyz": "3N", "absent": "T"}
    assert check_arrays("f.npy: ", good, shapes) == {"N": 3, "T": 5}
    for key, value, message in [
        ("run", np.ones((4, 1)), r"run has the shape \(4, 1\), but it must be T x 1 with T = 5 as in sresp"),
        ("xyz", np.ones((2, 3)), r"xyz has the shape \(2, 3\), but it must be 3 x N"),
        ("run", np.full((5, 1), np.nan), "run holds NaN"),
        ("sresp", np.ones(5), "sresp must be numbers, N x T"),
        ("sresp", np.array([["a"]]), "must be numbers"),
        ("sresp", np.ones((0, 5)), r"shape \(0, 5\)"),
    ]:
        with pytest.raises(DataError, match=f"^f.npy: .*{message}"):
            check_arrays("f.npy: ", {**good, key: value}, shapes)


def test_the_sample_pickles_hold_calls():
    """The refusals above test something: the evil file really carries the call."""
    stream = io.BytesIO(pickle.dumps(Call(os.system, "true"), protocol=3))
    assert any(op.name == "REDUCE" for op, _, _ in pickletools.genops(stream.read()))
