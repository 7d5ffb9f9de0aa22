"""What makes two trainings the same one: records of runs that were begun before are those that are made today."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from training import CLASSES, loop, plan, reconstructing

from cvjobs.common import rules
from cvjobs.common.errors import WrongUse
from cvjobs.storage.local_store import LocalStore
from cvjobs.training import identity
from cvjobs.training.identity import TrainIdentity, TrainRules
from cvjobs.training.loop.checkpoints import Checkpoints
from cvjobs.training.plan import Subject
from cvjobs.training.recipe import recipe

# As config.json has it in 0.1.0 after `train --model small/cnn --weights random --epochs 3 --batch-size 16 --seed 3`.
RECORD = """
{"task": "classify", "classes": ["blue", "green", "red"], "init_head_from_labels": false, "seed": 3, "model":
"small/cnn", "weights": "seed 0", "data": "0000000000000000000000000000000000000000000000000000000000000000",
"batch_size": 16, "precision": "fp32", "max_pixels": 80000000, "transform": {"size": [32, 32], "resize": 0,
"fit": "exact", "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}, "epochs": 3,
"opt": "adamw", "lr": 0.001, "lr_base_size": 64, "momentum": 0.9, "weight_decay": 0.05, "layer_decay": 0.0,
"freeze_until": "", "clip_grad": 0.0, "clip_mode": "norm", "accumulate": 1, "sched": "cosine", "warmup_epochs":
0.3, "decay_epochs": 2.0, "decay_rate": 0.1, "min_lr": 0.0, "patience": 0, "loss": "auto", "smoothing": 0.1,
"focal_gamma": 2.0, "class_weights": "none", "logit_adjustment": 0.0, "sampling": "shuffle", "drop_last": false,
"scale": [0.25, 1.0], "ratio": [0.75, 1.3333333333333333], "hflip": 0.5, "vflip": 0.0, "color_jitter": 0.0,
"aa": "trivialaugment", "erasing": 0.1, "mixup": 0.2, "cutmix": 0.0, "ema": 0.9998, "swa": 0.0, "denoise": 0.0,
"img_size": []}
"""


def today() -> tuple[TrainIdentity, dict[str, Any]]:
    """Return the identity of the same command, and its record."""
    subject = Subject(
        task="classify",
        model="small/cnn",
        weights="random",
        classes=CLASSES,
        dim=128,
        side=None,
        seed=3,
        init_head=False,
    )
    trainable = subject.trainable()
    made = TrainIdentity(
        subject=subject,
        weights_sha256="seed 0",
        recipe=recipe.named("from-scratch", classes=True, epochs=3),
        batch=16,
        precision="fp32",
        begun_epochs=3,
    )
    first = TrainRules(
        listing=rules.FIRST,
        labels=rules.FIRST,
        team=rules.FIRST,
        pictures=rules.FIRST,
        splits=rules.FIRST,
        canvases=rules.FIRST,
    )
    transform = replace(trainable.transform, pixel_rules=rules.FIRST)
    return made, made.record("0" * 64, 80_000_000, transform, first)


def test_the_record_of_a_run_is_the_same_as_ever() -> None:
    assert list(today()[1].items()) == list(json.loads(RECORD).items())


def test_a_run_that_was_begun_before_is_continued_and_another_one_refused(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    (tmp_path / identity.CONFIG).write_text(json.dumps({"identity": json.loads(RECORD), "command": "train"}))
    made, now = today()
    identity.check(store, identity.earlier(store), now)
    transform = made.subject.trainable().transform.like({})
    other = replace(made, precision="bf16").record(
        "1" * 64, 80_000_000, transform, identity.rules_of({"task": "classify"})
    )
    with pytest.raises(WrongUse, match="was begun with other images or labels; precision fp32, not bf16: choose"):
        identity.check(store, identity.earlier(store), other)


@pytest.mark.parametrize("said", [{"listing": 2, "labels": 2}, {"listing": 2, "labels": 2, "team": 2}])
def test_rules_are_written_as_they_were_read(said: dict[str, int]) -> None:
    assert identity.rules_of({"rules": said}).record == said


def test_the_digest_in_a_checkpoint_is_the_same_as_ever(tmp_path: Path) -> None:
    made = plan(tmp_path, "run")
    said = TrainIdentity.of(made).checkpoint_digest(made.train)
    assert said == "dd5e1885ac839f94971a3d614da068026b5794ea6d6de8d6f26453122d36074c"
    painted = reconstructing(plan(tmp_path, "run", denoise=0.1))
    said = TrainIdentity.of(painted).checkpoint_digest(painted.train)
    assert said == "3cd7f6e561ec9608d5eb7fae65c6685c88c7dd2fd10629e4f781cb58cc97c6c6"


def test_a_checkpoint_has_the_digest_of_its_plan(tmp_path: Path) -> None:
    made = plan(tmp_path, "run", epochs=1)
    loop(made).run()
    found = Checkpoints(made.store()).newest(print)
    assert found is not None
    assert found.meta["identity"] == TrainIdentity.of(made).checkpoint_digest(made.train)
    assert found.meta["identity"] != TrainIdentity.of(replace(made, batch=8)).checkpoint_digest(made.train)
