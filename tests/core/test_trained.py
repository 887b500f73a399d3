"""Layers that were kept open as networks that say what was kept of them."""

from dataclasses import replace
from pathlib import Path

import layered
import numpy as np
import pandas as pd
import pytest
import torch
from layered import CUTS, checkpoint, painted, part_of, preprocessed, source_of
from torch import Tensor

from tasks.core.artifacts import Artifacts
from tasks.core.backbones import Backbone
from tasks.core.cells import Source, fill
from tasks.core.cuts import Prefix
from tasks.core.errors import RequestError
from tasks.core.heads import Grid, HeadFile, load_heads
from tasks.core.hyper import Hyper, Network, Softmax
from tasks.core.networks import load_network
from tasks.core.predictors import Networks
from tasks.core.taps import Tap
from tasks.core.trained import open_layers

on_the_processor = layered.on_the_processor

NAME = "test_efficientnet"
CUT = CUTS[NAME]
QUICK = {"learning_rates": (1e-3,), "epochs": (2,), "batch": 8, "folds": 2}
DEPTHS = {
    "suffix": Network(CUT, "pretrained", **QUICK),
    "suffix from a random start": Network(
        CUT, "random", **QUICK, head_first=False, earlier=1.0, batch_norm="live"
    ),
    "everything": Network("", "pretrained", **QUICK),
    "scratch": Network("", "random", **QUICK, head_first=False, earlier=1.0, batch_norm="live"),
}
VIEWS = ("centre", "hflip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("trained")


@pytest.fixture(scope="module")
def backbone(folder) -> Backbone:
    return checkpoint(folder, NAME)


@pytest.fixture(scope="module")
def table(folder) -> pd.DataFrame:
    return painted(folder / "pictures", 24)


def train(source: Source, hyper: Hyper, table: pd.DataFrame, **cut: object) -> HeadFile:
    """Train one experiment, and read it back from its file."""
    filled = fill(source, [Grid("an experiment", source.inputs, (hyper,))], part_of(table, **cut))
    [(key, path)] = filled.files.items()
    return load_heads(path)[key]


@pytest.fixture(scope="module", params=DEPTHS)
def depth(request, folder, backbone, table) -> tuple[Network, HeadFile]:
    hyper, artifacts = DEPTHS[request.param], Artifacts(folder / request.param)
    tap = f"{hyper.cut}:none" if hyper.cut else None
    return hyper, train(source_of(backbone, table, artifacts, tap, VIEWS), hyper, table)


def shown(hyper: Network, backbone: Backbone, table: pd.DataFrame, view: str) -> Tensor:
    """What the layers take of the test rows, made anew from their files."""
    files = table.path[part_of(table).test].tolist()
    x = preprocessed(backbone, files, view)
    return Prefix(load_network(backbone), [Tap(hyper.cut, "none")])(x)[0] if hyper.cut else x


@pytest.mark.filterwarnings("error")
def test_layers_say_of_the_test_rows_what_was_kept_of_them(depth, backbone, table):
    hyper, head = depth
    networks = open_layers(head, backbone)
    assert len(networks) == hyper.folds
    told = []
    with torch.inference_mode():
        for view in VIEWS:
            x = shown(hyper, backbone, table, view)
            told += [
                (layers(x).double().log_softmax(1) / head.predictor.temperature).softmax(1)
                for layers in networks
            ]
    expected = torch.stack(told).mean(0).numpy()
    assert head.test_rows == table.digest[part_of(table).test].tolist()
    np.testing.assert_allclose(np.exp(head.log_proba), expected, atol=1e-5)
    assert expected.std(axis=0).max() > 1e-3  # they tell samples apart


def test_opened_layers_are_frozen_and_apart_from_each_other(depth, backbone):
    networks = open_layers(depth[1], backbone)
    for layers in networks:
        assert not any(module.training for module in layers.modules())
        assert not any(each.requires_grad for each in layers.parameters())
    one, other = (list(layers.parameters()) for layers in networks)
    assert not {each.data_ptr() for each in one} & {each.data_ptr() for each in other}
    assert any(not torch.equal(*pair) for pair in zip(one, other, strict=True))


def test_the_file_tells_what_was_chosen_and_what_was_tried(depth):
    hyper, head = depth
    kind, chosen = head.story["hyper"]
    assert kind == "network"
    assert (chosen["cut"], chosen["start"]) == (hyper.cut, hyper.start)
    assert (chosen["learning_rate"], chosen["epochs"]) == (1e-3, 2)
    assert "learning_rates" not in chosen
    assert [(each["fold"], each["epochs"], each["stopped"]) for each in head.story["tried"]] == [
        (0, 2, ""),
        (1, 2, ""),
    ]
    assert head.story["temperature"] == head.predictor.temperature


def test_layers_from_a_random_start_need_no_weights(depth, backbone, table):
    """The weights' file may be gone by then; what lies before a cut has to be run by somebody else."""
    hyper, head = depth
    gone = replace(backbone, weights=Path("/nowhere/weights.pth"))
    if hyper.start == "pretrained":
        with pytest.raises(RequestError, match="nowhere"):
            open_layers(head, gone)
        return
    x = shown(hyper, backbone, table, "centre")
    for layers, same in zip(open_layers(head, gone), open_layers(head, backbone), strict=True):
        assert torch.equal(layers(x), same(x))


# What cannot be opened


def test_layers_of_a_share_were_not_kept_and_that_is_said(folder, backbone, table):
    share = part_of(table).training & (np.arange(len(table)) % 2 == 0)
    source = source_of(backbone, table, Artifacts(folder / "share"), f"{CUT}:none")
    head = train(source, DEPTHS["suffix"], table, share=share)
    assert isinstance(head.predictor, Networks)
    with pytest.raises(RequestError, match=r"^these layers were trained on a share .* and not kept$"):
        open_layers(head, backbone)


def test_a_head_on_features_is_opened_otherwise_and_that_is_said(folder, backbone, table):
    source = source_of(backbone, table, Artifacts(folder / "head"), f"{CUT}:mean")
    head = train(source, Softmax(1.0), table)
    with pytest.raises(
        RequestError, match=r"^head 'softmax' takes rows of features; .*estimators\.open_head$"
    ):
        open_layers(head, backbone)


@pytest.mark.parametrize("other", ["test_byobnet", "test_vit"])
def test_another_network_is_refused_in_one_line(depth, other, tmp_path):
    with pytest.raises(RequestError) as told:
        open_layers(depth[1], checkpoint(tmp_path, other))
    assert len(str(told.value).splitlines()) == 1
    assert "not the network whose layers these are" in str(told.value) or str(told.value).startswith("cut ")


def test_layers_that_are_no_head_refuse_rows_of_features(depth):
    with pytest.raises(RequestError, match=r"open them by tasks\.core\.trained\.open_layers"):
        depth[1].predictor.log_proba(np.zeros((1, 3)))
