"""training=common, training=recommended, and the weights of the loss that come of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mlpbench import config
from mlpbench.config.overrides import overrides_of
from mlpbench.config.schema import Training
from mlpbench.errors import UserError
from mlpbench.frames import Frames
from mlpbench.study.trial import Trial, plan_trial

RECOMMENDED = config.packaged_conf() / "training" / "recommended"
ARCHITECTURES = sorted(path.stem for path in (config.packaged_conf() / "architecture").glob("*.yaml"))
SIZES = ["tiny", "small", "medium", "large"]


def _plan(tmp_path: Path, *overrides: str) -> Trial:
    fixed = ["architecture=toy", "study=weights", f"results_dir={tmp_path}", "dataset.n_train=8", "dataset.n_valid=4"]
    return plan_trial([*fixed, *overrides], lambda _: None)


@pytest.mark.parametrize("architecture", sorted(set(ARCHITECTURES) - {"toy"}))
def test_recommended_is_the_authors_at_every_size(architecture: str) -> None:
    """Every setting is the file's: nothing is left over from a preset or from training=common."""
    stated = yaml.safe_load((RECOMMENDED / f"{architecture}.yaml").read_text(encoding="utf-8"))
    assert set(stated["training"]) == set(Training.model_fields)
    for size in SIZES:
        trial = config.load_trial([f"architecture={architecture}", f"size={size}", "training=recommended"])
        assert trial.training.model_dump() == {**stated["training"], "native": stated["training"]["native"] or {}}
        assert trial.budget.interval is None


def test_the_toy_has_no_authors_of_its_own() -> None:
    common, recommended = (config.load_trial(["architecture=toy", f"training={name}"]) for name in
                           ("common", "recommended"))  # fmt: skip
    assert recommended.training.model_dump() == {**common.training.model_dump(), "lr": recommended.training.lr}


def test_what_is_typed_stands_over_what_is_recommended(tmp_path: Path) -> None:
    changes = ["training=recommended", "training.lr=0.5", "budget.interval=7"]
    trial = _plan(tmp_path, "architecture=mace", *changes, "+architecture.native.pair_repulsion=true")
    chosen = trial.config
    assert (chosen.training.lr, chosen.training.lr_factor, chosen.budget.interval) == (0.5, 0.8, 7)
    assert trial.architecture["native"] == {"clip_grad": 10.0, "pair_repulsion": True}
    trial = _plan(tmp_path, "architecture=mace", *changes, "+architecture.native.clip_grad=1.0")
    assert trial.architecture["native"] == {"clip_grad": 1.0}


def test_common_is_left_alone() -> None:
    trial = config.load_trial(["architecture=mace", "training=common"])
    assert (trial.training.schedule, trial.training.native, trial.budget.interval) == ("cosine", {}, 50)


def test_an_architecture_without_authors_settings_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("architecture/foo.yaml", "preset/foo/tiny.yaml"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "architecture/foo.yaml").write_text("name: foo\nbackend: toy\nnative: {}\n")
    text = (config.packaged_conf() / "preset/toy/tiny.yaml").read_text(encoding="utf-8")
    (tmp_path / "preset/foo/tiny.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("MLPBENCH_CONF", str(tmp_path))
    assert config.load_trial(["architecture=foo"]).architecture.name == "foo"
    with pytest.raises(UserError, match="'foo' has no recommended training") as caught:
        config.load_trial(["architecture=foo", "training=recommended"])
    assert "training/recommended/foo.yaml" in caught.value.hint


def test_the_group_is_recognised_in_a_resolved_configuration() -> None:
    trial = config.load_trial(["architecture=schnet", "training=recommended"])
    overrides = overrides_of(trial.model_dump(mode="json"))
    assert overrides["training"] == "recommended"
    assert not any(key.startswith("training.") for key in overrides)
    again = config.load_trial([f"{key}={value}" for key, value in overrides.items()])
    assert (again.training, again.architecture, again.budget) == (trial.training, trial.architecture, trial.budget)


@pytest.mark.parametrize(
    ("overrides", "weights"),
    [
        ([], (2.0, 3.0, 0.0)),
        (["training.energy_per=frame"], (2.0 * 81, 3.0, 0.0)),  # ethanol: nine atoms
        (["dataset.labels=[forces]"], (0.0, 3.0, 0.0)),
        (["dataset.labels=[energy]"], (2.0, 0.0, 0.0)),
    ],
)
def test_weights_of_the_loss(tmp_path: Path, overrides: list[str], weights: tuple[float, ...]) -> None:
    trial = _plan(tmp_path, "training.energy_weight=2", "training.force_weight=3", *overrides)
    assert tuple(trial.training[f"{name}_weight"] for name in ("energy", "force", "stress")) == weights
    untouched = {key: value for key, value in trial.training.items() if not key.endswith("_weight")}
    assert untouched.items() <= trial.config.training.model_dump().items()


def test_energy_per_frame_is_the_mean_over_frames_of_different_sizes(tmp_path: Path) -> None:
    trial = _plan(tmp_path, "training.energy_per=frame", "training.energy_weight=1")
    pool = trial.dataset.pool.select(slice(0, 8))
    mixed = Frames.concatenate([pool, _single_atoms(pool, 8)])
    half = replace(trial.split, manifest={"splits": {"train": {"indices": [*range(4), *range(8, 12)]}}})
    dataset = replace(trial.dataset, pool=mixed)
    assert replace(trial, split=half, dataset=dataset).training["energy_weight"] == pytest.approx((81 + 1) / 2)


def _single_atoms(frames: Frames, count: int) -> Frames:
    keep: dict[str, Any] = {name: getattr(frames, name)[:count] for name in ("positions", "numbers", "forces", "held")}
    return replace(frames.select(slice(0, count)), n_atoms=np.ones(count, dtype=int), **keep)
