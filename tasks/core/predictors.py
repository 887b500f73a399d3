"""Trained heads as plain arrays: what one says of rows of raw features, without torch.

Whatever a head was trained with (standardisation, views, batches) is folded into its arrays, so that
a head opens anywhere and says the same.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol, Self

import numpy as np

from tasks.core.errors import RequestError

GRID = 4096
"""Before distances are taken, coordinates are rounded to this part of a deviation; see `Voting`."""
BLOCK = 2**22
"""So many numbers at most are held at once in a matrix of distances."""


class Predictor(Protocol):
    """A trained head.

    Attributes:
        kind: names the class in a head's file.
    """

    kind: ClassVar[str]

    @property
    def columns(self) -> int:
        """D, the number of features that it takes."""
        ...

    def log_proba(self, features: np.ndarray) -> np.ndarray:
        """Return log probabilities; (N, D) any float type -> (N, C) float64."""
        ...

    def tempered(self, temperature: float) -> Self:
        """The head whose log probabilities are divided by a temperature, and made to sum to one again."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that decides what it says, by name."""
        ...

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Make one of what `arrays` gave."""
        ...


@dataclass(frozen=True)
class Linear:
    """Softmax of a linear map of raw features.

    Attributes:
        weight: (C, D) float64.
        bias: (C,) float64.
    """

    weight: np.ndarray
    bias: np.ndarray
    kind: ClassVar[str] = "linear"

    @property
    def columns(self) -> int:
        """D, the number of features that it takes."""
        return int(self.weight.shape[1])

    def log_proba(self, features: np.ndarray) -> np.ndarray:
        """Return log probabilities; (N, D) -> (N, C) float64."""
        return log_softmax(features.astype(np.float64, copy=False) @ self.weight.T + self.bias)

    def tempered(self, temperature: float) -> Self:
        """See `Predictor`."""
        return replace(self, weight=self.weight / temperature, bias=self.bias / temperature)

    def arrays(self) -> dict[str, np.ndarray]:
        """Weight and bias."""
        return {"weight": self.weight, "bias": self.bias}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Make one of what `arrays` gave."""
        return cls(arrays["weight"], arrays["bias"])


@dataclass(frozen=True)
class Layers:
    """A network of full layers with ReLU between them, on raw features, then softmax.

    Attributes:
        weights: (H1, D), (H2, H1), ..., (C, H) float32, from the first layer to the last.
        biases: (H1,), ..., (C,) float32.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    kind: ClassVar[str] = "layers"

    @property
    def columns(self) -> int:
        """D, the number of features that it takes."""
        return int(self.weights[0].shape[1])

    def log_proba(self, features: np.ndarray) -> np.ndarray:
        """Return log probabilities; (N, D) -> (N, C) float64."""
        rows = features.astype(np.float32)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            rows = np.maximum(rows @ weight.T + bias, 0)
        return log_softmax((rows @ self.weights[-1].T + self.biases[-1]).astype(np.float64))

    def tempered(self, temperature: float) -> Self:
        """See `Predictor`."""
        weights, biases = self.weights, self.biases
        return replace(
            self,
            weights=(*weights[:-1], (weights[-1] / temperature).astype(np.float32)),
            biases=(*biases[:-1], (biases[-1] / temperature).astype(np.float32)),
        )

    def only(self, classes: slice) -> Self:
        """The network with some of its outputs."""
        weights, biases = self.weights, self.biases
        return replace(
            self,
            weights=(*weights[:-1], weights[-1][classes]),
            biases=(*biases[:-1], biases[-1][classes]),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """weight_0, bias_0, weight_1, ..."""
        named = {f"weight_{n}": weight for n, weight in enumerate(self.weights)}
        return named | {f"bias_{n}": bias for n, bias in enumerate(self.biases)}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Make one of what `arrays` gave."""
        depth = len(arrays) // 2
        return cls(
            tuple(arrays[f"weight_{n}"] for n in range(depth)),
            tuple(arrays[f"bias_{n}"] for n in range(depth)),
        )


@dataclass(frozen=True)
class Voting:
    """The k nearest training rows vote, beside a prior that leaves no class without a chance.

    Distances are Euclidean between standardised rows whose coordinates are rounded to 1 / `GRID`. Sums
    of their products are then exact in double precision, in whatever order they are added, as long as
    the rows' lengths stay below some 10,000 deviations: rows at the same distance tie to the bit, and a
    tie goes to the row that comes first.

    Attributes:
        rows: (M, D) float32 training rows, from `on_grid`.
        labels: (M,) int.
        votes: (M,) what each row's vote weighs, above zero.
        prior: (C,) what is added to the votes for each class, above zero.
        mean: (D,) float64 that standardises raw features, with
        scale: (D,) float64.
        k: how many rows vote; all, where there are fewer.
        temperature: divides the log probabilities.
    """

    rows: np.ndarray
    labels: np.ndarray
    votes: np.ndarray
    prior: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    k: int
    temperature: float = 1.0
    kind: ClassVar[str] = "voting"

    @property
    def columns(self) -> int:
        """D, the number of features that it takes."""
        return len(self.mean)

    def log_proba(self, features: np.ndarray) -> np.ndarray:
        """Return log probabilities; (N, D) -> (N, C) float64."""
        told: np.ndarray = self.by_each(on_grid(features, self.mean, self.scale), [self.k])[0]
        return told if self.temperature == 1 else log_softmax(told / self.temperature)

    def tempered(self, temperature: float) -> Self:
        """See `Predictor`."""
        return replace(self, temperature=self.temperature * temperature)

    def by_each(self, rows: np.ndarray, ks: Sequence[int]) -> np.ndarray:
        """Log probabilities by several numbers of neighbours, from one sorting of the distances.

        Args:
            rows: (n, D) from `on_grid`.
            ks: S numbers above zero.

        Returns:
            (S, n, C).
        """
        candidates = self.rows.astype(np.float64)
        lengths = np.square(candidates).sum(axis=1)  # (M,)
        hot = np.eye(len(self.prior))[self.labels] * self.votes[:, None]  # (M, C)
        most = min(max(ks), len(candidates))
        step = max(1, BLOCK // max(len(candidates), most * len(self.prior)))
        tally = np.empty((len(ks), len(rows), len(self.prior)))
        for start in range(0, len(rows), step):
            block = slice(start, start + step)
            away = lengths - 2 * (rows[block].astype(np.float64) @ candidates.T)  # (b, M), see `nearest`
            running = hot[nearest(away, most)].cumsum(axis=1)  # (b, k, C)
            for s, k in enumerate(ks):
                tally[s, block] = running[:, min(k, most) - 1]
        tally += self.prior
        told: np.ndarray = np.log(tally / tally.sum(axis=2, keepdims=True))
        return told

    def arrays(self) -> dict[str, np.ndarray]:
        """All attributes by their names; numbers as (1,)."""
        return {
            "rows": self.rows,
            "labels": self.labels,
            "votes": self.votes,
            "prior": self.prior,
            "mean": self.mean,
            "scale": self.scale,
            "k": np.array([self.k]),
            "temperature": np.array([self.temperature]),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Make one of what `arrays` gave."""
        named = {name: array for name, array in arrays.items() if name not in ("k", "temperature")}
        return cls(**named, k=int(arrays["k"][0]), temperature=float(arrays["temperature"][0]))


@dataclass(frozen=True)
class Networks:
    """The weights of networks that speak together (`tasks.core.search`); torch alone can make them speak.

    Attributes:
        tensors: number of the network and name in its state dict, "0 conv.weight" -> its numbers.
        temperature: divides the log probabilities.
    """

    tensors: Mapping[str, np.ndarray]
    temperature: float = 1.0
    kind: ClassVar[str] = "networks"

    @property
    def columns(self) -> int:
        """None: a network takes pictures or activations, no row of features."""
        return 0

    def log_proba(self, features: np.ndarray) -> np.ndarray:
        """Refuse: see `tasks.core.trained`, which makes networks of these weights.

        Raises:
            RequestError: always.
        """
        raise RequestError(
            "these are layers of a network, no head on rows of features; open them by tasks.core.trained.open_layers"
        )

    def tempered(self, temperature: float) -> Self:
        """See `Predictor`."""
        return replace(self, temperature=self.temperature * temperature)

    def arrays(self) -> dict[str, np.ndarray]:
        """All tensors by their names, and the temperature as (1,)."""
        return {**self.tensors, "temperature": np.array([self.temperature])}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Make one of what `arrays` gave."""
        tensors = {name: array for name, array in arrays.items() if name != "temperature"}
        return cls(tensors, float(arrays["temperature"][0]))

    def without_tensors(self) -> Self:
        """What is left where the layers are not kept."""
        return replace(self, tensors={})

    def only(self, classifier: str, classes: slice, temperature: float) -> Self:
        """The networks with some of their outputs.

        Args:
            classifier: the name of the last layer, as the network's own state dict has it.
            classes: which outputs.
            temperature: of these.
        """
        ends = tuple(f"{classifier}.{part}" for part in ("weight", "bias"))
        tensors = {
            name: array[classes] if name.partition(" ")[2].endswith(ends) else array
            for name, array in self.tensors.items()
        }
        return replace(self, tensors=tensors, temperature=temperature)

    def states(self) -> list[dict[str, np.ndarray]]:
        """The state dict of each network."""
        found: dict[int, dict[str, np.ndarray]] = {}
        for name, array in self.tensors.items():
            number, _, own = name.partition(" ")
            found.setdefault(int(number), {})[own] = array
        return [found[number] for number in sorted(found)]


def say(predictors: Sequence[Predictor], features: np.ndarray) -> list[np.ndarray]:
    """Ask many heads about the same rows; linear ones share one product; (N, D) -> (N, C) each."""
    rows = features.astype(np.float64)
    linear = [head for head in predictors if isinstance(head, Linear)]
    scores: Iterator[np.ndarray] = iter(())
    if linear:
        wide = rows @ np.concatenate([head.weight for head in linear]).T  # (N, sum of C)
        scores = iter(np.split(wide, np.cumsum([len(head.bias) for head in linear])[:-1], axis=1))
    return [
        log_softmax(next(scores) + head.bias) if isinstance(head, Linear) else head.log_proba(features)
        for head in predictors
    ]


KINDS: dict[str, type[Predictor]] = {head.kind: head for head in (Linear, Layers, Voting, Networks)}
"""The class that a head's file names."""


def on_grid(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Standardise rows and round them to 1 / `GRID`; (N, D) -> (N, D) float32."""
    rows = (features.astype(np.float64) - mean) / scale
    rounded: np.ndarray = (np.round(rows * GRID) / GRID).astype(np.float32)
    return rounded


def nearest(away: np.ndarray, k: int) -> np.ndarray:
    """Find the k columns with the least value in each row, ties by number.

    Args:
        away: (n, M) squared distances, or such less something that is the same for the whole row.
        k: at most M.

    Returns:
        (n, k) numbers of columns, the nearest first.
    """
    edge = np.partition(away, k - 1, axis=1)[:, k - 1 : k]  # (n, 1)
    closer, level = away < edge, away == edge
    places = k - closer.sum(axis=1, keepdims=True)  # left for those at the edge
    taken = closer | (level & (level.cumsum(axis=1) <= places))
    near = np.nonzero(taken)[1].reshape(len(away), k)  # by number
    order = np.take_along_axis(away, near, axis=1).argsort(axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1)


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Logarithm of the softmax over the last axis; (..., C) -> (..., C)."""
    above = scores - scores.max(axis=-1, keepdims=True)
    log_proba: np.ndarray = above - np.log(np.exp(above).sum(axis=-1, keepdims=True))
    return log_proba
