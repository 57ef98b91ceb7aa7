"""Files are written in one piece."""

import pytest

from neuro_lightning.artifacts.atomic import atomic_path
from neuro_lightning.artifacts.tensors import read_tensors
from neuro_lightning.errors import CheckpointError


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_only_when_it_is_complete(tmp_path, durable):
    target = tmp_path / "new" / "values.csv"
    with atomic_path(target, durable=durable) as part:
        part.write_text("one")
        assert part.parent == target.parent and part.suffix == ".csv" and part.name.startswith(".")
        assert not target.exists()
    assert target.read_text() == "one"
    with pytest.raises(KeyboardInterrupt), atomic_path(target, durable=durable) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "one"
    assert [path.name for path in target.parent.iterdir()] == ["values.csv"]


def test_a_file_of_another_kind_is_no_checkpoint_and_none_is_told_to_run_it(tmp_path):
    """Beside the refusal torch proposes ``weights_only=False``, which would run what is in the file."""
    (tmp_path / "run.json").write_text('{"status": "finished"}')
    with pytest.raises(CheckpointError, match=r"run.json cannot be read as a checkpoint") as refused:
        read_tensors(tmp_path / "run.json")
    assert "weights_only" not in str(refused.value)
