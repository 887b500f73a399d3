"""Many small networks at once: right gradients, each as if it were alone, stopped at its best."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from tasks.core import mlp
from tasks.core.answers import UNKNOWN, Answers, label_weights
from tasks.core.coordinates import standardisation
from tasks.core.fits import Fit, Folds
from tasks.core.hyper import Mlp
from tasks.core.mlp import EPOCHS, PATIENCE, fit_mlp, fit_shared
from tasks.core.predictors import log_softmax
from tasks.core.stacks import Stack

QUICK = Mlp((8,), 1e-2)


def problem(rows: int = 90, width: int = 6, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of which the label can be told, with some noise."""
    rng = np.random.default_rng(seed)
    features = (3 * rng.standard_normal((rows, width)) + 5).astype(np.float32)
    scores = features @ rng.standard_normal((width, classes)) + rng.gumbel(size=(rows, classes))
    return features, (scores - scores.mean(0)).argmax(1)


def folded(rows: int, folds: int = 3) -> Folds:
    numbers = np.random.default_rng(1).permutation(rows)
    return [(np.sort(np.setdiff1d(numbers, held)), np.sort(held)) for held in np.array_split(numbers, folds)]


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    *hypers: Mlp,
    weights: np.ndarray | None = None,
    folds: Folds = (),
    epochs: int = 3,
    classes: int = 3,
) -> list[Fit]:
    weights = np.ones(len(features)) if weights is None else weights
    return fit_mlp(features, labels, weights, classes=classes, hypers=hypers, folds=folds, epochs=epochs)


def same(one: Fit, other: Fit) -> bool:
    """Whether two fits are the same to the bit."""
    first, second = one.predictor.arrays(), other.predictor.arrays()
    if one.inner is not None and other.inner is not None:
        first, second = {**first, "inner": one.inner}, {**second, "inner": other.inner}
    return all(np.array_equal(first[name], second[name]) for name in first | second)


def alike(one: Fit, other: Fit, features: np.ndarray) -> None:
    """Two fits are the same to rounding."""
    np.testing.assert_allclose(
        one.predictor.log_proba(features), other.predictor.log_proba(features), atol=1e-4
    )
    if one.inner is not None and other.inner is not None:
        np.testing.assert_allclose(one.inner, other.inner, atol=1e-4)


def plain(stack: Stack, number: int) -> torch.nn.Sequential:
    """The same network in torch's own words."""
    layers: list[torch.nn.Module] = []
    for weight, bias in zip(*stack.of(number), strict=True):
        layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("hidden", [(7,), (7, 5)])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_gradients_are_those_of_autograd(hidden: tuple[int, ...], dropout: float) -> None:
    draw = torch.Generator().manual_seed(3)
    rows, share = torch.randn(11, 6, generator=draw), torch.rand(11, generator=draw)
    hot = torch.nn.functional.one_hot(torch.randint(4, (11,), generator=draw), 4).float()
    stack = Stack(6, [4], [Mlp(hidden, dropout=dropout), Mlp(hidden, dropout=dropout / 2)])
    for numbers in (*stack.weights, *stack.biases):
        numbers.add_(0.3 * torch.randn(numbers.shape, generator=draw))  # the networks now differ
    masks = stack._masks(11)
    outputs = stack._forward(rows, masks)
    slope = (outputs[-1].softmax(1) - hot.T) * share
    found = stack.gradients(rows, outputs, masks, slope)
    numbers = [each.clone().requires_grad_() for each in (*stack.weights, *stack.biases)]
    layers = len(hidden) + 1
    for network in range(2):
        above = rows
        for layer in range(layers):
            above = above @ numbers[layer][network].T + numbers[layers + layer][network, :, 0]
            if layer < layers - 1:
                above = above.relu() * (masks[layer][network].T if masks else 1)
        (-(above.log_softmax(1) * hot).sum(1) * share).sum().backward()
    for ours, theirs in zip(found, numbers, strict=True):
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("hidden", [(7,), (7, 5)])
def test_a_network_in_a_stack_learns_what_torch_teaches_it_alone(hidden: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(3)
    hypers = [Mlp(hidden, 1e-2, 0.1), Mlp(hidden, 1e-3, 0.0), Mlp(hidden, 3e-2, 0.5)]
    stack = Stack(6, [4], hypers)
    networks = [plain(stack, number) for number in range(3)]
    optimisers = [
        torch.optim.AdamW(network.parameters(), lr=hyper.learning_rate, weight_decay=hyper.weight_decay)
        for network, hyper in zip(networks, hypers, strict=True)
    ]
    for _ in range(20):
        rows, labels = torch.randn(11, 6, generator=draw), torch.randint(4, (11,), generator=draw)
        stack.learn(rows, torch.nn.functional.one_hot(labels, 4).float(), torch.full((11, 1), 1 / 11))
        for network, optimiser in zip(networks, optimisers, strict=True):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(network(rows), labels).backward()
            optimiser.step()
    said = stack.logits(rows)
    for number, network in enumerate(networks):
        torch.testing.assert_close(said[number].T, network(rows).detach(), rtol=1e-3, atol=1e-4)


def test_dropout_leaves_out_its_share_and_keeps_the_mean() -> None:
    masks = Stack(3, [2], [Mlp((400,), dropout=0.0), Mlp((400,), dropout=0.25)])._masks(100)
    assert torch.equal(masks[0][0], torch.ones(400, 100))
    assert (masks[0][1] == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert masks[0][1].mean() == pytest.approx(1, abs=0.02)


def test_company_does_not_matter() -> None:
    """Other rates, dropouts, seeds and shapes in the same call; alone it is the same to rounding."""
    features, labels = problem()
    folds = folded(90)
    grid = [
        Mlp(hidden, rate, 0.1, dropout, seed)
        for hidden, rate, dropout, seed in product([(8,), (6, 5)], [1e-3, 1e-2], [0.0, 0.3], [0, 1])
    ]
    together = fit(features, labels, *grid, folds=folds)
    for number in (0, 3, 6, 9, 15):
        [alone] = fit(features, labels, grid[number], folds=folds)
        alike(together[number], alone, features)
    assert not np.allclose(together[0].inner, together[1].inner, atol=1e-3)  # the seed matters
    assert not np.allclose(together[0].inner, together[2].inner, atol=1e-3)  # dropout matters


@pytest.mark.parametrize("hidden", [(32,), (32, 16)])
def test_rings_are_learnt_where_softmax_cannot(hidden: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    labels, angle = rng.integers(2, size=300), rng.uniform(0, 2 * np.pi, 300)
    radius = 1 + 2 * labels + 0.2 * rng.standard_normal(300)
    features = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    [ours] = fit(features, labels, Mlp(hidden, 1e-2), folds=folded(300), epochs=40, classes=2)
    assert LogisticRegression().fit(features, labels).score(features, labels) < 0.7
    assert ours.inner is not None
    assert (ours.inner.argmax(1) == labels).mean() > 0.95
    assert (ours.predictor.log_proba(features).argmax(1) == labels).mean() > 0.95


def test_each_fold_speaks_by_its_best_epoch_and_stops_when_patience_is_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[tuple[int, ...], list[list[float]]] = {}
    judge = mlp._judge

    def watched(stack: Stack, table: mlp._Table, judged: torch.Tensor) -> tuple[torch.Tensor, list[float]]:
        said, losses = judge(stack, table, judged)
        seen.setdefault(tuple(judged.tolist()), []).append(losses)
        return said, losses

    monkeypatch.setattr(mlp, "_judge", watched)
    features, labels = problem()
    weights = np.random.default_rng(2).uniform(0.5, 2, 90)
    folds = folded(90)
    [ours] = fit(features, labels, Mlp((8,), 3e-2), weights=weights, folds=folds, epochs=100)
    best = []
    for _, held in folds:
        losses = [each for [each] in seen[tuple(held.tolist())]][1:]  # without the start
        assert ours.inner is not None
        loss = -np.average(ours.inner[held, labels[held]], weights=weights[held])
        assert loss == pytest.approx(min(losses), rel=1e-6)
        best.append(1 + int(np.argmin(losses)))
        assert len(losses) == best[-1] + PATIENCE < 100
    assert ours.converged
    assert ours.facts == {"epochs": np.median(best)}


def test_a_network_that_leaves_the_stack_early_leaves_the_others_as_they_were() -> None:
    features, labels = problem()
    hypers = [Mlp((8,), rate) for rate in (1e-1, 1e-2, 3e-2)]
    folds = folded(90)
    together = fit(features, labels, *hypers, folds=folds, epochs=80)
    assert len({each.facts["epochs"] for each in together}) == 3
    for ours, hyper in zip(together, hypers, strict=True):
        [alone] = fit(features, labels, hyper, folds=folds, epochs=80)
        assert alone.facts == ours.facts
        np.testing.assert_allclose(ours.inner, alone.inner, atol=1e-2)


def test_one_that_was_still_improving_has_not_converged() -> None:
    features, labels = problem()
    [ours] = fit(features, labels, Mlp((8,), 1e-4), folds=folded(90), epochs=3)
    assert not ours.converged
    assert ours.facts == {"epochs": 3}


def test_what_is_said_of_a_row_did_not_see_its_label() -> None:
    """One epoch, since the labels of a fold do choose among the epochs."""
    features, labels = problem()
    folds = folded(90)
    [clean] = fit(features, labels, QUICK, folds=folds, epochs=1)
    assert clean.inner is not None
    for _, held in folds:
        poisoned = labels.copy()
        poisoned[held] = (poisoned[held] + 1) % 3
        [ours] = fit(features, poisoned, QUICK, folds=folds, epochs=1)
        assert ours.inner is not None
        assert np.array_equal(ours.inner[held], clean.inner[held])
        assert not np.allclose(ours.inner, clean.inner)


def test_rows_that_weigh_nothing_do_not_count() -> None:
    features, labels = problem()
    weights = np.random.default_rng(2).uniform(0.5, 2, 90)
    weights[::4] = 0
    counts = weights > 0
    folds = folded(90)
    [ours] = fit(features, labels, QUICK, weights=weights, folds=folds)
    assert ours.inner is not None
    other, wrong = features.copy(), labels.copy()
    other[~counts], wrong[~counts] = 1e3, 0
    [changed] = fit(other, wrong, QUICK, weights=weights, folds=folds)
    assert changed.inner is not None
    assert np.array_equal(ours.inner[counts], changed.inner[counts])
    [left_out] = fit(features[counts], labels[counts], QUICK, weights=weights[counts])
    [ours] = fit(features, labels, QUICK, weights=weights)
    alike(ours, left_out, features)


def test_only_the_proportions_of_the_weights_count() -> None:
    features, labels = problem()
    weights = np.random.default_rng(2).uniform(0.5, 2, 90)
    [ours] = fit(features, labels, QUICK, weights=weights, folds=folded(90))
    [scaled] = fit(features, labels, QUICK, weights=1000 * weights, folds=folded(90))
    [equal] = fit(features, labels, QUICK, folds=folded(90))
    alike(ours, scaled, features)
    assert not np.allclose(ours.inner, equal.inner, atol=1e-3)


def test_the_same_input_gives_the_same_bits() -> None:
    features, labels = problem()
    hypers = [Mlp((8,), dropout=0.3), Mlp((6, 5), seed=1), Mlp((8,), 1e-2, dropout=0.3)]
    first, second = (fit(features, labels, *hypers, folds=folded(90), epochs=5) for _ in range(2))
    assert all(same(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("folds", [folded(90), ()])
@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_one_that_diverges_harms_nobody(folds: Folds, rate: float) -> None:
    features, labels = problem()
    good, bad, fair = fit(
        features, labels, QUICK, Mlp((8,), rate, 1.0), Mlp((8,), 1e-3), folds=folds, epochs=40
    )
    assert not bad.converged or rate < 1e30  # 1e3 is finite for some epochs
    assert np.isfinite(bad.predictor.log_proba(features)).all()
    assert bad.inner is None or np.isfinite(bad.inner).all()
    for ours, hyper in (good, QUICK), (fair, Mlp((8,), 1e-3)):
        [alone] = fit(features, labels, hyper, folds=folds, epochs=40)
        assert alone.facts == ours.facts
        np.testing.assert_allclose(
            ours.predictor.log_proba(features), alone.predictor.log_proba(features), atol=1e-2
        )


def test_the_standardisation_is_folded_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The predictor says of raw rows what the network says of standardised ones."""
    copies = []
    copy = mlp._copy

    def watched(stack: Stack, place: int, *rest: object) -> mlp._State:
        copies.append(copy(stack, place, *rest))  # type: ignore[arg-type]
        return copies[-1]

    monkeypatch.setattr(mlp, "_copy", watched)
    features, labels = problem()
    features[:, 2] = 7  # does not vary
    weights = np.random.default_rng(2).uniform(0.5, 2, 90)
    [ours] = fit(features, labels, Mlp((6, 5)), weights=weights)
    rows = standardisation(features, weights).apply(features)
    for weight, bias in zip(copies[-1].weights, copies[-1].biases, strict=True):
        rows = np.maximum(rows, 0) if weight is not copies[-1].weights[0] else rows
        rows = rows @ weight.double().numpy().T + bias.double().numpy()
    np.testing.assert_allclose(ours.predictor.log_proba(features), log_softmax(rows), atol=1e-4)


def test_without_folds_a_fixed_number_of_epochs_is_trained() -> None:
    features, labels = problem()
    [ours] = fit(features, labels, QUICK, epochs=10 * EPOCHS)
    assert ours.inner is None
    assert ours.converged
    assert ours.facts == {"epochs": EPOCHS}
    [shorter] = fit(features, labels, QUICK, epochs=2)
    assert shorter.facts == {"epochs": 2}


def test_a_class_may_be_missing_from_a_fold_or_altogether() -> None:
    features, labels = problem()
    labels = np.sort(labels)
    folds: Folds = [(np.flatnonzero(labels != label), np.flatnonzero(labels == label)) for label in range(3)]
    [ours] = fit(features, labels, QUICK, folds=folds, classes=4)
    assert ours.inner is not None
    assert ours.inner.shape == (90, 4)
    np.testing.assert_allclose(np.exp(ours.inner).sum(1), 1)


def test_half_precision_features_and_few_rows_will_do() -> None:
    features, labels = problem(rows=5)
    [ours] = fit(features.astype(np.float16), labels, QUICK, folds=folded(5, 2))
    assert np.isfinite(ours.predictor.log_proba(features)).all()


def test_progress_counts_every_network_and_threads_are_given_back() -> None:
    features, labels = problem()
    told: list[int] = []
    before = torch.get_num_threads()
    fit_mlp(
        features,
        labels,
        np.ones(90),
        classes=3,
        hypers=[QUICK, Mlp((4, 4)), Mlp((8,), seed=2)],
        folds=folded(90),
        epochs=1,
        advance=told.append,
    )
    assert sum(told) == 3 * (3 + 1)
    assert torch.get_num_threads() == before


# Several targets at once


def questions(rows: int, seed: int = 0, unknown: float = 0.4) -> tuple[np.ndarray, Answers]:
    """Rows and three answers, of two, two and three classes, some unknown."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, 6))
    labels = np.column_stack(
        [
            features[:, 0] + features[:, 1] > 0,
            features[:, 0] - features[:, 2] > 0.3,
            np.digitize(features[:, 3], [-0.5, 0.5]),
        ]
    ).astype(np.int64)
    labels[random.random(labels.shape) < unknown] = UNKNOWN
    return features, Answers(("a", "b", "c"), (("0", "1"), ("0", "1"), ("l", "m", "r")), labels)


def test_a_shared_network_learns_what_torch_teaches_it_by_a_loss_over_the_known_answers() -> None:
    draw = torch.Generator().manual_seed(3)
    stack = Stack(6, [2, 3], [Mlp((7,), 1e-2, 0.1)])
    network = plain(stack, 0)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(20):
        rows = torch.randn(11, 6, generator=draw)
        labels = torch.stack([torch.randint(-1, n, (11,), generator=draw) for n in (2, 3)], 1)
        known = labels >= 0
        each = torch.rand(11, 2, generator=draw) * known
        each /= each.sum()
        hot = torch.cat(
            [torch.nn.functional.one_hot(labels[:, t] + 1, n + 1)[:, 1:] for t, n in enumerate((2, 3))], 1
        )
        stack.learn(rows, hot.float(), torch.repeat_interleave(each, torch.tensor([2, 3]), dim=1))
        optimiser.zero_grad()
        said = network(rows).split([2, 3], dim=1)
        losses = [
            torch.nn.functional.cross_entropy(said[t][known[:, t]], labels[known[:, t], t], reduction="none")
            @ each[known[:, t], t]
            for t in (0, 1)
        ]
        sum(losses).backward()
        optimiser.step()
    rows = torch.randn(11, 6, generator=draw)
    torch.testing.assert_close(stack.logits(rows)[0].T, network(rows).detach(), rtol=1e-3, atol=1e-4)


def test_what_stands_in_place_of_an_unknown_answer_does_not_matter() -> None:
    features, answers = questions(120)
    folds = [(np.arange(60), np.arange(60, 120)), (np.arange(60, 120), np.arange(60))]
    weights = label_weights(answers, np.ones(120))
    noise = np.where(answers.known, weights, 123.0)  # weights of unknown answers are not looked at either
    first, second = (
        fit_shared(features, answers, each, hypers=[Mlp((8,))], folds=folds, epochs=5)[0]
        for each in (weights, noise)
    )
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.inner, other.inner)
        np.testing.assert_array_equal(one.predictor.log_proba(features), other.predictor.log_proba(features))


def test_each_target_gets_a_head_of_its_own_classes_on_the_shared_layer() -> None:
    features, answers = questions(200)
    [fits] = fit_shared(features, answers, label_weights(answers, np.ones(200)), hypers=[QUICK], folds=[])
    assert [fit.predictor.log_proba(features).shape for fit in fits] == [(200, 2), (200, 2), (200, 3)]
    shared = [fit.predictor.weights[0] for fit in fits]
    assert all((each == shared[0]).all() for each in shared)
    for target, fit in enumerate(fits):
        known = answers.known[:, target]
        right = fit.predictor.log_proba(features).argmax(1) == answers.labels[:, target]
        assert right[known].mean() > 0.85
        np.testing.assert_allclose(np.exp(fit.predictor.log_proba(features)).sum(axis=1), 1)


def test_rows_of_which_nothing_is_known_are_not_learnt_from() -> None:
    features, answers = questions(100, unknown=0.0)
    blank = np.full((40, 3), UNKNOWN)
    more = Answers(answers.targets, answers.classes, np.concatenate([answers.labels, blank]))
    noise = np.random.default_rng(5).normal(size=(40, 6)) * 50
    alone = fit_shared(
        features, answers, label_weights(answers, np.ones(100)), hypers=[Mlp((8,))], folds=[], epochs=5
    )
    among = fit_shared(
        np.concatenate([features, noise]),
        more,
        label_weights(more, np.ones(140)),
        hypers=[Mlp((8,))],
        folds=[],
        epochs=5,
    )
    for one, other in zip(alone[0], among[0], strict=True):
        np.testing.assert_allclose(
            one.predictor.log_proba(features), other.predictor.log_proba(features), atol=1e-4
        )
