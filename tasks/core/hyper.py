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


Hyper = Softmax | Ridge | Neighbours | Centroid | Mlp


def spelled(hyper: Hyper) -> list[object]:
    """Spell a head as plain values, for a digest."""
    return [hyper.kind, {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(hyper).items()}]
