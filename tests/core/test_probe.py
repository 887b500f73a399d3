"""A classifier that starts at its optimum is regularised softmax regression on what reaches it."""

import layered
import numpy as np
import pytest
import torch
from layered import CUTS, SIZE, Given, tiny
from sklearn.linear_model import LogisticRegression
from torch import nn

from tasks.core.cuts import Prefix
from tasks.core.layers import last_linear, part
from tasks.core.probe import STRENGTH, reaching, start_at_optimum
from tasks.core.taps import LAST, Tap

on_the_processor = layered.on_the_processor

N, VIEWS = 60, 2


def pictures(classes: int) -> tuple[Given, np.ndarray, np.ndarray]:
    """Looks, labels and weights of samples."""
    random = np.random.default_rng(classes)
    labels = random.integers(0, classes, N)
    x = random.normal(size=(VIEWS, N, 3, SIZE, SIZE)) + labels[None, :, None, None, None] / 2
    return Given(torch.from_numpy(x).float()), labels, random.uniform(0.2, 2, N)


def by_scikit_learn(
    features: np.ndarray, labels: np.ndarray, weights: np.ndarray, asked: np.ndarray
) -> np.ndarray:
    """Log probabilities by scikit-learn, on features standardised by the weighted mean and deviation."""
    mean = np.average(features, axis=0, weights=weights)
    scale = np.sqrt(np.average(np.square(features - mean), axis=0, weights=weights))
    scale[scale < 1e-6] = 1
    penalty = (
        STRENGTH / 2 if labels.max() == 1 else STRENGTH
    )  # of one vector, where ours has two of half its length
    head = LogisticRegression(C=1 / (penalty * weights.sum()), tol=1e-8, max_iter=5000)
    head.fit((features - mean) / scale, labels, sample_weight=weights)
    return head.predict_log_proba((asked - mean) / scale)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("whole", [True, False])
def test_the_start_is_scikit_learns_optimum_on_the_features_of_all_views(name, classes, whole):
    network = tiny(name)
    looks, labels, weights = pictures(classes)
    rows = np.flatnonzero(np.arange(N) % 3 > 0)
    with torch.inference_mode():
        features = [Prefix(network, [Tap(LAST)])(view)[0].double().numpy() for view in looks.looks]
        kept = [Prefix(network, [Tap(CUTS[name], "none")])(view)[0].clone() for view in looks.looks]
    expected = by_scikit_learn(
        np.concatenate([view[rows] for view in features]),
        np.tile(labels[rows], VIEWS),
        np.tile(weights[rows], VIEWS) / VIEWS,
        features[1],
    )

    given = looks if whole else Given(torch.stack(kept))
    layers = part(network, "" if whole else CUTS[name], classes=classes, blank=True)
    start_at_optimum(layers, given, labels, weights, rows, classes=classes)
    with torch.inference_mode():
        found = layers(given.looks[1]).double().log_softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.abs(expected - expected.mean(axis=0)).max() > 0.1  # it tells samples apart


def test_nothing_but_the_classifier_changes():
    network = tiny("test_resnet")
    looks, labels, weights = pictures(3)
    layers = part(network, "", classes=3, blank=True)
    before = {name: tensor.clone() for name, tensor in layers.state_dict().items()}
    start_at_optimum(layers, looks, labels, weights, np.arange(N), classes=3)
    changed = {name for name, tensor in layers.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"fc.weight", "fc.bias"}
    assert not any(module.training for module in layers.modules())
    assert not [module for module in layers.modules() if module._forward_pre_hooks]
    assert all(each.requires_grad for each in layers.parameters())


def test_samples_that_are_not_learnt_from_do_not_matter():
    looks, labels, weights = pictures(3)
    rows, others = np.arange(40), np.arange(40, N)
    starts = []
    for spoilt in (False, True):
        if spoilt:
            labels[others] = 0
            weights[others] = 9
            looks.looks[:, others] = 7
        layers = part(tiny("test_resnet"), "", classes=3, blank=True)
        start_at_optimum(layers, looks, labels, weights, rows, classes=3)
        starts.append(last_linear(layers).weight.detach().clone())
    assert torch.equal(*starts)


def test_samples_of_no_weight_do_not_matter_nor_does_a_class_that_has_none():
    looks, labels, weights = pictures(3)
    weights[labels == 2] = 0
    with_them, without = (part(tiny("test_resnet"), "", classes=3, blank=True) for _ in range(2))
    start_at_optimum(with_them, looks, labels, weights, np.arange(N), classes=3)
    start_at_optimum(without, looks, labels, weights, np.flatnonzero(labels < 2), classes=3)
    with torch.inference_mode():
        said = [layers(looks.looks[0]).softmax(1) for layers in (with_them, without)]
    torch.testing.assert_close(*said, atol=1e-3, rtol=0)
    assert (said[0][:, 2] < 0.02).all()


def test_what_reaches_the_classifier_is_what_the_last_tap_gives_the_views_below_each_other():
    network, (looks, _, _) = tiny("test_vit"), pictures(2)
    layers = part(network, CUTS["test_vit"], classes=2, blank=True)
    [kept] = Prefix(network, [Tap(CUTS["test_vit"], "none")])(looks.looks.flatten(0, 1))
    given = Given(kept.unflatten(0, (VIEWS, N)))
    rows = np.array([7, 3, 50])
    found = reaching(layers, last_linear(layers), given, rows)
    expected = [Prefix(network, [Tap(LAST)])(view[rows])[0].numpy() for view in looks.looks]
    np.testing.assert_allclose(found, np.concatenate(expected), atol=1e-4)


def test_a_last_layer_that_is_not_linear_stays_as_it_is():
    layers = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    before = layers[0].weight.detach().clone()
    looks, labels, weights = pictures(2)
    start_at_optimum(layers, looks, labels, weights, np.arange(N), classes=2)
    assert torch.equal(layers[0].weight, before)


def test_the_hook_is_gone_though_a_look_fails():
    class Broken(Given):
        def fixed(self, rows: np.ndarray, view: str) -> torch.Tensor:
            raise OSError("gone")

    layers = part(tiny("test_resnet"), "", classes=2, blank=True)
    looks, labels, weights = pictures(2)
    with pytest.raises(OSError, match="gone"):
        start_at_optimum(layers, Broken(looks.looks), labels, weights, np.arange(N), classes=2)
    assert not [module for module in layers.modules() if module._forward_pre_hooks]
