"""Layers are trained from kept activations exactly as the whole network is with the rest frozen."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from layered import Given, Killed, killed_after
from torch import Tensor, nn

from tasks.core.answers import UNKNOWN, Answers, label_weights
from tasks.core.checkpoints import Checkpoint
from tasks.core.cuts import Prefix
from tasks.core.finetune import Course, Diverged, Samples, Training, ask, mixed, on_device, shape
from tasks.core.layers import grouped, in_order, part, with_new_classifier
from tasks.core.taps import Tap
from tasks.core.truth import Known, KnownAnswers

CLASSES = 3


def small_cnn() -> nn.Module:
    from torchvision.models import resnet18

    return resnet18(weights=None, num_classes=7)


def small_vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(
        image_size=32, patch_size=8, num_layers=3, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=7
    )


NETWORKS = {
    "a CNN with batch norm": (small_cnn, "layer2"),
    "a transformer": (small_vit, "encoder.layers.encoder_layer_0"),
}


def pretrained(make) -> nn.Module:
    """A network whose batch norms have seen something."""
    torch.manual_seed(3)
    network = make()
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.randn(16, 3, 32, 32) * 2 + 0.5)
    return network.eval().requires_grad_(False)


def pictures(samples: int = 48, views: int = 2) -> tuple[Tensor, np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    labels = random.integers(0, CLASSES, samples)
    x = torch.from_numpy(random.normal(size=(views, samples, 3, 32, 32))).float()
    x += torch.from_numpy(labels).float()[None, :, None, None, None]
    return x, labels, random.uniform(0.3, 2, samples)


def whole_with_frozen_prefix(
    network: nn.Module, cut: str, x: Tensor, labels: np.ndarray, weights: np.ndarray, course: Course
) -> list[float]:
    """The plain way: the whole network in every step, its prefix in eval mode and without gradients."""
    whole = copy.deepcopy(network)
    with_new_classifier(whole, CLASSES)
    suffix = part(network, cut, classes=CLASSES, blank=True)
    names = {id(each): name.removeprefix("body.network.") for name, each in suffix.named_parameters()}
    order = [names[id(each)] for each in in_order(suffix)]
    rates = course.learning_rate * course.earlier ** np.linspace(1, 0, len(order))
    trained = [whole.get_parameter(name).requires_grad_(True) for name in order]
    decays = [course.weight_decay if each.ndim > 1 else 0.0 for each in trained]
    optimizer = torch.optim.AdamW(
        [{"params": [each], "weight_decay": decay} for each, decay in zip(trained, decays, strict=True)]
    )
    whole.eval()  # batch norm frozen; there is no dropout
    share = torch.from_numpy(weights / weights.mean()).float()
    batches = max(1, round(len(labels) / course.batch))
    losses: list[float] = []
    for epoch in range(course.epochs):
        shuffled = np.random.default_rng([course.seed, epoch]).permutation(len(labels))
        for rows in np.array_split(shuffled, batches):
            step = len(losses)
            view = np.random.default_rng([course.seed, step, 1]).integers(0, len(x), len(rows))
            logits = whole(x[view, rows])
            each = nn.functional.cross_entropy(logits, torch.from_numpy(labels[rows]), reduction="none")
            loss = (each * share[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * shape(step, course.epochs * batches)
            optimizer.step()
            losses.append(float(loss.detach()))
    return losses


def samples_of(looks: Tensor, labels: np.ndarray, weights: np.ndarray) -> Samples:
    rows = np.arange(len(labels))
    return Samples(Given(looks), rows, Known(labels, weights, rows, CLASSES))


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_activations_train_the_suffix_as_the_whole_network_with_its_prefix_frozen_would(name):
    make, cut = NETWORKS[name]
    network = pretrained(make)
    x, labels, weights = pictures()
    course = Course(3e-3, epochs=7, batch=16)  # 3 batches an epoch
    expected = whole_with_frozen_prefix(network, cut, x, labels, weights, course)[:20]

    before = {key: value.clone() for key, value in network.state_dict().items()}
    prefix = Prefix(network, [Tap(cut, "none")])
    with torch.inference_mode():
        kept = torch.stack([prefix(view)[0] for view in x]).clone()
    training = Training(
        part(network, cut, classes=CLASSES, blank=True), samples_of(kept, labels, weights), course
    )
    training.run()

    assert len(training.losses) == 21
    np.testing.assert_allclose(training.losses[:20], expected, rtol=0, atol=1e-5)
    assert training.losses[19] < 0.7 * training.losses[0]  # it did learn
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)  # buffers too, byte by byte


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr("tasks.core.finetune.EVERY", -1.0)


def made(network: nn.Module, cut: str = "layer2") -> tuple[nn.Module, Samples]:
    """A suffix and what it learns from."""
    x, labels, weights = pictures(40)
    with torch.inference_mode():
        kept = torch.stack([Prefix(network, [Tap(cut, "none")])(view)[0] for view in x]).clone()
    return part(network, cut, classes=CLASSES, blank=True), samples_of(kept, labels, weights)


def state(layers: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in layers.state_dict().items()}


@pytest.mark.parametrize("batch_norm", ["frozen", "live"])
@pytest.mark.parametrize("killed_at", [9, 33, 61])
def test_a_training_that_was_killed_in_the_middle_of_an_epoch_ends_with_the_same_bits(
    tmp_path, every_step, batch_norm, killed_at
):
    network = pretrained(small_cnn)
    course = Course(1e-2, epochs=3, batch=8, batch_norm=batch_norm, mixup=0.4)
    layers, samples = made(network)
    Training(layers, samples, course).run()
    expected = state(layers)

    checkpoint = Checkpoint(tmp_path / "x.checkpoint")
    layers, samples = made(network)
    with pytest.raises(Killed):
        Training(layers, samples, course, checkpoint, killed_after(killed_at)).run()
    layers, samples = made(network)  # another process
    told: list[int] = []
    resumed = Training(layers, samples, course, checkpoint, told.append)
    resumed.run()

    assert told[0] > 0  # it did not begin anew
    assert resumed.before > 0  # and what was done was not free
    again = Training(*made(network), course, checkpoint)
    again.run()
    assert again.before > resumed.before
    assert sum(told) == 3 * 40
    found = state(layers)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_training_that_is_done_is_not_done_again(tmp_path):
    network, course = pretrained(small_cnn), Course(1e-2, epochs=2, batch=8)
    checkpoint = Checkpoint(tmp_path / "x.checkpoint")
    layers, samples = made(network)
    Training(layers, samples, course, checkpoint).run()
    again, samples = made(network)
    training = Training(again, samples, course, checkpoint)
    training.run()
    assert not training.losses
    assert all(
        torch.equal(each, other)
        for each, other in zip(state(layers).values(), state(again).values(), strict=True)
    )


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-7], lambda data: data[:50] + b"?" + data[51:], lambda data: b""]
)
def test_a_damaged_checkpoint_is_as_none(tmp_path, every_step, spoil):
    network, course = pretrained(small_cnn), Course(1e-2, epochs=2, batch=8)
    layers, samples = made(network)
    Training(layers, samples, course).run()
    checkpoint = Checkpoint(tmp_path / "x.checkpoint")
    other, samples = made(network)
    with pytest.raises(Killed):
        Training(other, samples, course, checkpoint, killed_after(50)).run()
    checkpoint.path.write_bytes(spoil(checkpoint.path.read_bytes()))
    again, samples = made(network)
    Training(again, samples, course, checkpoint).run()
    assert all(
        torch.equal(each, other)
        for each, other in zip(state(layers).values(), state(again).values(), strict=True)
    )


def test_a_loss_that_is_no_number_stops_the_training_and_says_when():
    layers, samples = made(pretrained(small_cnn))
    with pytest.raises(Diverged, match=r"^the loss was not finite at step \d+ of 50$"):
        Training(layers, samples, Course(1e30, epochs=10, batch=8)).run()


@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_gradients_added_up_over_parts_of_a_batch_are_those_of_the_batch(at_once):
    network, course = pretrained(small_cnn), Course(1e-2, epochs=3, batch=10)
    losses = []
    for micro in (10, at_once):
        layers, samples = made(network)
        training = Training(layers, samples, course)
        training.micro = micro
        training.run()
        losses.append(training.losses)
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-4)


def test_a_batch_that_does_not_fit_in_memory_is_halved_until_it_does():
    class Small(nn.Module):
        """Memory for three samples."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, CLASSES)
            self.seen: list[int] = []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(len(x))
            if len(x) > 3:
                raise torch.OutOfMemoryError
            return self.inner(x)

    x = torch.randn(1, 16, 4)
    layers = Small()
    Training(layers, samples_of(x, np.arange(16) % 3, np.ones(16)), Course(0.1, epochs=1, batch=16)).run()
    assert layers.seen == [16, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2]


@pytest.mark.parametrize("rows", [1, 31, 33, 47, 49, 65])
def test_no_batch_is_much_smaller_than_wanted(rows):
    """A batch of one sample has no statistics, and torch refuses it."""
    layers = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, CLASSES))
    seen: list[int] = []
    layers[0].register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    course = Course(0.1, epochs=1, batch=32, batch_norm="live" if rows > 1 else "frozen")
    Training(layers, samples_of(torch.randn(1, rows, 4), np.arange(rows) % 3, np.ones(rows)), course).run()
    assert sum(seen) == rows
    assert min(seen) >= min(rows, 22)
    assert max(seen) <= 48


def test_live_batch_norm_moves_and_frozen_stays():
    for batch_norm, moves in (("frozen", False), ("live", True)):
        layers, samples = made(pretrained(small_cnn))
        before = state(layers)
        Training(layers, samples, Course(1e-3, epochs=1, batch=8, batch_norm=batch_norm)).run()
        found = state(layers)
        means = [name for name in before if name.endswith("running_mean")]
        assert means
        assert all(torch.equal(before[name], found[name]) != moves for name in means)


def test_samples_of_no_weight_teach_nothing():
    x, labels, weights = torch.randn(1, 30, 4), np.arange(30) % 3, np.ones(30)
    weights[20:] = 0
    spoilt = x.clone()
    spoilt[:, 20:] = 100.0
    found = []
    for looks in (x, spoilt):
        torch.manual_seed(1)
        layers = nn.Sequential(nn.Linear(4, CLASSES))
        Training(layers, samples_of(looks, labels, weights), Course(0.1, epochs=3, batch=10)).run()
        found.append(layers[0].weight.detach().clone())
    torch.testing.assert_close(found[0], found[1])


def test_earlier_layers_learn_more_slowly_in_the_order_of_computation():
    layers = part(pretrained(small_cnn), "layer3", classes=CLASSES, blank=True)
    names = {id(each): name for name, each in layers.named_parameters()}
    groups = grouped(layers, 0.1, earlier=0.01, weight_decay=0.5)
    rates = [group["lr"] for group in groups]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(0.001)
    assert rates[-1] == pytest.approx(0.1)
    order = [names[id(group["params"][0])] for group in groups]
    assert "layer4.0.conv1" in order[0]
    assert "fc" in order[-1]
    assert all((group["weight_decay"] == 0.5) == (group["params"][0].ndim > 1) for group in groups)


def test_what_is_asked_is_the_mean_over_views_of_what_the_layers_say():
    layers, samples = made(pretrained(small_cnn))
    Training(layers, samples, Course(1e-2, epochs=1, batch=8)).run()
    rows = np.array([3, 1, 7])
    said = ask(layers, samples.looks, rows)
    assert said.shape == (2, 3, CLASSES)
    with torch.inference_mode():
        naive = torch.log_softmax(layers(samples.looks.looks[1][rows]), dim=1).numpy()
    np.testing.assert_allclose(said[1], naive, atol=1e-5)


def test_the_learning_rate_rises_then_falls_to_nearly_nought():
    heights = [shape(step, 100) for step in range(100)]
    assert max(heights) == heights[19] == 1
    assert heights[:20] == sorted(heights[:20])
    assert heights[19:] == sorted(heights[19:], reverse=True)
    assert 0 < heights[-1] < 0.001
    assert all(0 < shape(step, steps) <= 1 for steps in range(1, 12) for step in range(steps))


def test_mixing_keeps_what_targets_sum_to():
    x, target = torch.randn(8, 2), torch.rand(8, 3)
    blended, targets = mixed(x, target, 0.4, [1, 2])
    assert blended.shape == x.shape
    torch.testing.assert_close(targets.sum(0), target.sum(0))
    assert not torch.equal(targets, target)


def test_training_leaves_the_random_numbers_of_others_alone():
    layers, samples = made(pretrained(small_cnn))
    torch.manual_seed(11)
    before = torch.get_rng_state()
    Training(layers, samples, replace(Course(1e-2, 1, batch=8), seed=4)).run()
    assert torch.equal(before, torch.get_rng_state())


# Several targets


@pytest.mark.parametrize("name", NETWORKS)
def test_layers_learn_several_targets_by_the_mean_over_the_known_answers(name):
    """Against a naive loop with a tape over each target's known rows."""
    make, cut = NETWORKS[name]
    network = pretrained(make)
    x, labels, weights = pictures()
    random = np.random.default_rng(2)
    both = np.column_stack([labels > 0, labels]).astype(np.int64)
    both[random.random(both.shape) < 0.4] = UNKNOWN
    answers = Answers(("yes", "kind"), (("0", "1"), ("a", "b", "c")), both)
    seen = np.flatnonzero(answers.known.any(axis=1))
    known = KnownAnswers(answers, weights, seen)
    prefix = Prefix(network, [Tap(cut, "none")])
    with torch.inference_mode():
        kept = torch.stack([prefix(view)[0] for view in x]).clone()
    course = Course(3e-3, epochs=4, batch=16)
    layers = part(network, cut, classes=5, blank=True)
    naive = copy.deepcopy(layers).to(
        memory_format=torch.channels_last
    )  # as it is trained; AdamW magnifies rounding
    training = Training(layers, Samples(Given(kept), seen, known), course)
    training.run()
    groups = grouped(naive, course.learning_rate, earlier=course.earlier, weight_decay=course.weight_decay)
    optimizer, losses = torch.optim.AdamW(groups), []
    share = label_weights(answers.take(seen), weights[seen])
    place = {row: number for number, row in enumerate(seen.tolist())}
    batches = max(1, round(len(seen) / course.batch))
    for epoch in range(course.epochs):
        for rows in np.array_split(np.random.default_rng([0, epoch]).permutation(seen), batches):
            step = len(losses)
            view = np.random.default_rng([0, step, 1]).integers(0, len(kept), len(rows))
            said = naive(on_device(kept[view, rows], torch.device("cpu")))
            mine = share[[place[row] for row in rows.tolist()]]
            total = torch.zeros(())
            for target, columns in enumerate((slice(0, 2), slice(2, 5))):
                told = both[rows, target] != UNKNOWN
                each = nn.functional.cross_entropy(
                    said[told][:, columns], torch.from_numpy(both[rows[told], target]), reduction="none"
                )
                total = total + (each * torch.from_numpy(mine[told, target]).float()).sum()
            loss = total / float(mine.sum())
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * shape(step, course.epochs * batches)
            optimizer.step()
            losses.append(float(loss.detach()))
    np.testing.assert_allclose(training.losses, losses, rtol=1e-4, atol=1e-5)
