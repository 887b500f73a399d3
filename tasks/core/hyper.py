"""Heads and their hyper-parameters, as plain values: no torch, so that a study is read at once."""

from dataclasses import asdict, dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Softmax:
    """L2-regularised softmax regression (`tasks.core.linear`).

    Attributes:
        strength: of the L2 penalty; the loss is a weighted mean, and features are standardised.
        class_weight: "none", or "balanced": every class weighs the same in all.
    """

    strength: float
    class_weight: str = "none"
    kind: ClassVar[str] = "softmax"


@dataclass(frozen=True)
class Ridge:
    """Least squares on one-hot targets (`tasks.core.ridge`); attributes as `Softmax`."""

    strength: float
    class_weight: str = "none"
    kind: ClassVar[str] = "ridge"


@dataclass(frozen=True)
class Neighbours:
    """The k nearest training rows vote (`tasks.core.neighbours`).

    Attributes:
        k: how many.
    """

    k: int
    kind: ClassVar[str] = "knn"


@dataclass(frozen=True)
class Centroid:
    """The nearest class mean (`tasks.core.neighbours`)."""

    kind: ClassVar[str] = "centroid"


@dataclass(frozen=True)
class Mlp:
    """A small network (`tasks.core.mlp`).

    Attributes:
        hidden: the width of each hidden layer, one or two of them.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        dropout: chance that a hidden unit is left out of a step.
        seed: of the first weights, the order of the rows and the dropout.
    """

    hidden: tuple[int, ...]
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    dropout: float = 0.0
    seed: int = 0
    kind: ClassVar[str] = "mlp"


@dataclass(frozen=True)
class Shared(Mlp):
    """A small network whose hidden layers all targets share (`tasks.core.joint`).

    Attributes:
        weigh: how targets weigh in the loss: "equal", or "known", by how much is known of each.
        factors: what a target's weight is multiplied with, by its name; 1 for the others.
        class_weight: of a target's answers: "none", or "balanced", and each weighs the same in all.
    """

    weigh: str = "equal"
    factors: tuple[tuple[str, float], ...] = ()
    class_weight: str = "none"
    kind: ClassVar[str] = "shared"


@dataclass(frozen=True)
class Network:
    """Layers of the backbone trained together with a new classifier (`tasks.core.search`).

    Inner folds choose a learning rate and a number of epochs; the networks that they leave speak together.

    Attributes:
        cut: the layers behind it are trained, on activations kept there; "" trains all, from pictures.
        start: the layers' first weights: "pretrained", or "random".
        learning_rates: of the last layer, to choose from.
        epochs: to choose from.
        head_first: whether the new classifier starts at its optimum on the frozen network (LP-FT, Kumar et
            al. 2022), or at nought.
        earlier: the first trained layer's learning rate, as a share of the last one's.
        weight_decay: of AdamW.
        mixup: of Beta(mixup, mixup), by which two samples are mixed (Zhang et al. 2018); 0 mixes none.
        batch: samples of a step.
        batch_norm: "frozen" keeps the pretrained statistics, "live" lets them move with the batches.
        folds: how many inner folds, and networks.
        seed: of the first weights, the order of the samples and what is mixed.
    """

    cut: str
    start: str
    learning_rates: tuple[float, ...]
    epochs: tuple[int, ...]
    head_first: bool = False
    earlier: float = 0.3
    weight_decay: float = 0.05
    mixup: float = 0.0
    batch: int = 32
    batch_norm: str = "frozen"
    folds: int = 3
    seed: int = 0
    kind: ClassVar[str] = "network"


@dataclass(frozen=True)
class SharedNetwork(Network):
    """Layers that all targets share (`tasks.core.answer_layers`); attributes as `Network` and `Shared`."""

    weigh: str = "equal"
    factors: tuple[tuple[str, float], ...] = ()
    class_weight: str = "none"
    kind: ClassVar[str] = "shared network"


def budget(network: Network, samples: int) -> int:
    """Say how many samples a search learns from, each as often as it does.

    Args:
        network: what is searched.
        samples: of the training part.
    """
    first, *more = network.epochs
    tried = first * len(network.learning_rates) + sum(more)
    others = max(network.epochs) * (network.folds - 1)
    return (tried + others) * samples * (network.folds - 1) // network.folds


JOINT = frozenset({Shared.kind, SharedNetwork.kind})
"""Kinds of what several targets share."""

Hyper = Softmax | Ridge | Neighbours | Centroid | Mlp | Network


def spelled(hyper: Hyper) -> list[object]:
    """Spell a head as plain values, for a digest."""
    return [hyper.kind, {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(hyper).items()}]
