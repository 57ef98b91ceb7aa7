"""Configs that earlier versions wrote name classes by their old paths."""

import pytest

from neuro_lightning.artifacts.old_names import MOVED, update_names
from neuro_lightning.errors import ConfigError
from neuro_lightning.settings.registry import find


@pytest.mark.parametrize("old", MOVED)
def test_a_moved_class_is_found_under_its_path_of_today(old):
    assert callable(find(MOVED[old]))
    with pytest.raises(ConfigError, match=f"has moved: write {MOVED[old]}"):
        find(old)


def test_update_names_replaces_nested_paths_and_keeps_everything_else():
    old, new = next(iter(MOVED.items()))
    config = {"data": {"_target_": old, "sizes": [{"_target_": old}], "path": old}, "n": 3, "none": None}
    assert update_names(config) == {
        "data": {"_target_": new, "sizes": [{"_target_": new}], "path": old}, "n": 3, "none": None,
    }  # fmt: skip
