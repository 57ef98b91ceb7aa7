"""Files are written in one piece."""

import pytest

from neuro_lightning.artifacts.atomic import atomic_path


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
