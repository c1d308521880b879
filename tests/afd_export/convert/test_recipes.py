from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from afd_export.convert import recipes
from afd_export.convert.recipes import load_recipe, recipes_dir
from afd_mobile.common.artifacts import Precision
from afd_mobile.common.errors import UsageError


@pytest.mark.parametrize("precision", list(Precision))
def test_every_precision_has_a_recipe_of_its_own(precision: Precision) -> None:
    recipe = load_recipe(precision)
    assert recipe.precision is precision
    assert recipe.optimize == (precision in (Precision.FLOAT16, Precision.DYNAMIC))
    # The converter's own result, with nothing left in float, always comes first.
    assert recipe.float_spans[0] == (0, 0, 0)
    assert 0 < recipe.limits.mean_error <= recipe.limits.max_error < 1
    assert 0 < recipe.limits.min_cosine <= 1


def test_there_is_no_recipe_without_a_precision() -> None:
    assert {p.stem for p in recipes_dir().glob("*.toml")} == {p.value for p in Precision}


def test_limits_grow_with_the_loss_of_precision() -> None:
    float32, float16, dynamic, int8 = (load_recipe(p).limits for p in Precision)
    assert float32.max_error < float16.max_error < dynamic.max_error <= int8.max_error
    assert (float32.max_changed_beyond_error, float16.max_changed_beyond_error) == (0, 0)
    assert float32.min_snr_db > float16.min_snr_db > max(dynamic.min_snr_db, int8.min_snr_db)


@pytest.fixture
def own_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of float32.toml in the place where recipes are looked for."""
    copy = Path(shutil.copy(recipes_dir() / "float32.toml", tmp_path))
    monkeypatch.setattr(recipes, "recipes_dir", lambda: tmp_path)
    assert load_recipe(Precision.FLOAT32).precision is Precision.FLOAT32
    return copy


def test_an_unknown_key_is_refused(own_recipe: Path) -> None:
    own_recipe.write_text("optimise = true\n" + own_recipe.read_text("utf-8"), "utf-8")
    with pytest.raises(UsageError, match=r"float32\.toml has keys .*'optimise'"):
        load_recipe(Precision.FLOAT32)


def test_an_unknown_limit_is_refused(own_recipe: Path) -> None:
    own_recipe.write_text(own_recipe.read_text("utf-8") + "max_eror = 1.0\n", "utf-8")
    with pytest.raises(UsageError, match="'max_eror'"):
        load_recipe(Precision.FLOAT32)


def test_a_missing_limit_is_refused(own_recipe: Path) -> None:
    lines = own_recipe.read_text("utf-8").splitlines()
    kept = [line for line in lines if not line.startswith("min_snr_db")]
    own_recipe.write_text("\n".join(kept), "utf-8")
    with pytest.raises(UsageError, match=r"expected .*'min_snr_db'"):
        load_recipe(Precision.FLOAT32)
