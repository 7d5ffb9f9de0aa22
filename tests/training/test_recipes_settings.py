"""Named recipes, their overrides and the sentences about wrong ones; the order in which images are seen."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

import numpy as np
import pytest

from cvjobs.common.errors import WrongUse
from cvjobs.config import commands
from cvjobs.config import fields as config_fields
from cvjobs.training.recipe import sampling
from cvjobs.training.recipe.recipe import NAMED, SETTINGS, Optimizer, Recipe, named
from cvjobs.training.recipe.recipe_options import replaced
from cvjobs.training.recipe.setting import sides, span


def test_an_override_replaces_one_setting_and_none_leaves_it() -> None:
    recipe = named("finetune", lr=0.01, opt=None)
    assert (recipe.lr, recipe.opt, recipe.lr_base_size) == (0.01, "adamw", 64)


@pytest.mark.parametrize("recipe", NAMED)
def test_a_named_recipe_is_whole_for_any_length_and_schedule(recipe: str) -> None:
    assert named(recipe, epochs=1).warmup_epochs <= 0.1
    assert named(recipe, sched="onecycle").warmup_epochs == 0


def test_a_warm_up_that_was_asked_for_is_kept() -> None:
    assert named("finetune", epochs=4, warmup_epochs=2.0).warmup_epochs == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"lr": 0.0}, "--lr must be more than 0"),
        ({"lr": float("nan")}, "--lr must be more than 0"),
        ({"smoothing": 1.0}, "--smoothing must be from 0 to below 1"),
        ({"mixup": -1.0}, "--mixup must be at least 0"),
        ({"opt": "adamv"}, "nearest: adam"),
        ({"scale": (0.9, 0.5)}, "--scale must be two numbers"),
        ({"scale": (0.5, 2.0)}, "more than all of it"),
        ({"img_size": (7,)}, "--img-size"),
        ({"img_size": (64, 96, 128)}, "--img-size"),
        ({"sched": "onecycle", "warmup_epochs": 1.0}, "leave out --warmup-epochs"),
        ({"epochs": 2, "warmup_epochs": 2.0}, "leaves none of 2"),
        ({"ema": 0.9, "swa": 0.5}, "choose one"),
        ({"loss": "bce", "logit_adjustment": 1.0}, "--logit-adjustment"),
        ({"learning_rate": 1}, "no setting learning_rate"),
    ],
)
def test_a_wrong_setting_is_a_sentence(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(WrongUse, match=words):
        named("quick", **overrides)


def test_an_unknown_recipe_is_a_sentence() -> None:
    with pytest.raises(WrongUse, match="nearest: finetune"):
        named("fine-tune")


def test_a_span_is_one_number_or_two() -> None:
    assert (span("0.5", "--scale"), span("0.5:1", "--scale")) == ((0.5,), (0.5, 1))
    assert (sides("224"), sides("128:224")) == ((224,), (128, 224))
    for text in ("", "a", "1:2:3", "1:", "inf", "nan:1"):
        with pytest.raises(WrongUse, match="--scale must be"):
            span(text, "--scale")
    for text in ("64.5", "1e400", "-"):
        with pytest.raises(WrongUse, match="--img-size must be"):
            sides(text)


TRAIN = commands.load("train").Config


def test_every_setting_is_an_option_of_train() -> None:
    known = config_fields.fields(TRAIN)
    assert {field.name for field in fields(Recipe)} - set(known) == {"lr_base_size"}
    assert get_args(known["opt"].kind) == get_args(Optimizer)
    assert all(known[name].group == setting.group for name, (_, setting) in SETTINGS.items())


@pytest.mark.parametrize(
    ("name", "default"),
    [
        (
            "epochs",
            "30, 10 in finetune, 100 in from-scratch, 3 in quick, 60 in segment, 20 in segment-many, 12 in detect-many",
        ),
        ("clip_grad", "1, 0 in from-scratch"),
        ("ratio", "0.75:1.33, 1:1 in quick and autoencoder"),
        ("smoothing", "0.1, 0 in quick"),
        ("opt", "adamw"),
        ("img_size", "the model's own"),
        ("denoise", "0"),
    ],
)
def test_an_option_says_the_value_in_each_recipe(name: str, default: str) -> None:
    assert str(config_fields.fields(TRAIN)[name].info.help).endswith(f".  [default: {default}]")


def test_what_is_given_replaces_the_recipes_own() -> None:
    given = config_fields.build(
        TRAIN, "data", "run", scale="0.5:1", img_size="128:224", mixup=1, opt="lamb", drop_last=True
    )
    recipe = named("quick", **replaced(given))
    assert (recipe.scale, recipe.img_size, recipe.mixup, recipe.opt, recipe.drop_last) == (
        (0.5, 1.0),
        (128, 224),
        1.0,
        "lamb",
        True,
    )
    assert named("quick", **replaced(config_fields.build(TRAIN, "data", "run"))) == NAMED["quick"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"opt": "adamv"}, r"opt must be one of sgd, .*, not 'adamv' \(nearest: adam\)"),
        ({"hflip": 1.5}, "hflip must be a number at least 0 and at most 1, not 1.5"),
        ({"epochs": 0}, "epochs must be a whole number at least 1, not 0"),
    ],
)
def test_a_wrong_option_is_found_before_a_recipe_is_made(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WrongUse, match=sentence):
        config_fields.build(TRAIN, "data", "run", **options)


LABELS = np.repeat([0, 1, 2], [90, 9, 2])


def test_shuffling_has_every_row_once_and_another_order_each_epoch_and_seed() -> None:
    recipe = named("quick")
    orders = [sampling.order(LABELS, recipe, *position) for position in ((0, 0), (0, 1), (1, 0))]
    assert all(sorted(rows) == list(range(101)) for rows in orders)
    assert len({rows.tobytes() for rows in orders}) == 3
    assert np.array_equal(orders[1], sampling.order(LABELS, recipe, 0, 1))


def test_the_order_is_the_same_in_every_version_of_numpy() -> None:
    assert sampling.order(np.zeros(8, int), named("quick"), 7, 3).tolist() == [2, 5, 7, 3, 0, 6, 4, 1]


def test_balanced_sampling_sees_every_class_equally_often() -> None:
    rows = sampling.order(LABELS, named("quick", sampling="balanced"), 0, 0)
    counts = np.bincount(LABELS[rows])
    assert len(rows) == 101
    assert sorted(counts) == [33, 34, 34]
    often = np.bincount(rows, minlength=101)
    assert often[:90].max() == 1, "no row of a large class comes twice"
    assert set(often[90:99]) <= {3, 4}, "all rows of a small class come before any comes again"
    assert set(often[99:]) <= {16, 17}
    assert len(set(LABELS[rows[:12]])) > 1, "the classes are mixed"


def test_balanced_sampling_of_several_labels_is_refused() -> None:
    with pytest.raises(WrongUse, match="--sampling balanced"):
        sampling.order(np.eye(4, dtype=int), named("quick", sampling="balanced"), 0, 0)


def test_dropping_the_last_step_that_is_not_full() -> None:
    assert [sampling.steps(100, 32, drop) for drop in (False, True)] == [4, 3]
    assert [sampling.steps(96, 32, drop) for drop in (False, True)] == [3, 3]
    with pytest.raises(WrongUse, match="--drop-last leaves nothing"):
        sampling.steps(31, 32, True)
