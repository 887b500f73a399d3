"""The tables of a study file: what each key may hold, and the refusal of what it may not."""

from collections.abc import Iterable
from dataclasses import replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.core.answers import MACRO, MICRO
from tasks.core.hyper import Centroid, Hyper, Mlp, Neighbours, Network, Ridge, Softmax
from tasks.core.manifest import FOLDER_TARGET
from tasks.core.taps import CENTRE

STRENGTHS = {
    "softmax": (0.01, 0.0316, 0.1, 0.316, 1.0, 3.16, 10.0),
    "ridge": (0.1, 1.0, 10.0, 100.0, 1000.0),
}
"""Standardised features, and the loss is a mean, so they suit data sets of any size."""

SHARED_KEYS = frozenset({"name", "backbone", "views", "depth"})
HEAD_KEYS: dict[str, tuple[str, ...]] = {
    "softmax": ("strengths", "class_weights"),
    "ridge": ("strengths", "class_weights"),
    "knn": ("k",),
    "centroid": (),
    "mlp": ("hidden", "learning_rates", "weight_decays", "dropouts", "seeds", "sharing"),
}
"""What can be set of each head beside what every experiment has."""

TRAINING_KEYS = ("learning_rates", "epochs", "weight_decay", "mixup", "batch", "folds", "seed", "sharing")
TUNING_KEYS = ("head_first", "earlier", "batch_norm")
DEPTH_KEYS: dict[str, tuple[str, ...]] = {
    "suffix": ("cut", "start", *TUNING_KEYS, *TRAINING_KEYS),
    "everything": (*TUNING_KEYS, *TRAINING_KEYS),
    "scratch": TRAINING_KEYS,
}
"""What can be set where layers are trained, instead of taps and a head; TUNING_KEYS where they are pretrained."""

LEARNING_RATES = {
    "mlp": (1e-3,),
    "suffix": (2e-4, 6e-4),
    "everything": (2e-4, 6e-4),
    "scratch": (1e-3, 3e-3),
}
EPOCHS = {"suffix": (10,), "everything": (10,), "scratch": (30,)}
"""Tried where nothing is said. A random start needs larger steps, and more of them."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Hidden = Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1, max_length=2)]

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(min_length=1)]


class Table(BaseModel):
    """A table of the study; a key that it does not know is refused with the near ones named."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                near = get_close_matches(key, cls.model_fields, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"unknown key {key!r}{hint} (known: {', '.join(cls.model_fields)})")
        return given


class TargetSettings(Table):
    """One of several columns to predict."""

    name: Name
    kind: Literal["yes/no", "classes"] = Field("yes/no", description="0, 1 or unknown; or any text")
    weight: Positive = Field(1.0, description="what its weight in a joint loss is multiplied with")


class Data(Table):
    """Where the samples come from: a manifest, or a folder with one sub-folder per class."""

    manifest: Path | None = Field(None, description="CSV file, or a .py file that defines manifest()")
    folder: Path | None = Field(None, description="folder with one sub-folder per class")
    root: Path | None = Field(
        None, description="where the manifest's relative paths start; its own folder if not given"
    )
    target: Annotated[Name, Field(description="column to predict")] = FOLDER_TARGET
    targets: tuple[TargetSettings, ...] = Field(
        (), description="several columns to predict instead, by name or spelled out"
    )
    target_weights: Literal["equal", "known"] = Field(
        "equal", description="of targets in a joint loss: all alike, or by how much is known of each"
    )
    answer_weights: Literal["none", "balanced"] = Field(
        "none", description="of a target's answers in a joint loss: as they are, or each the same in all"
    )
    least_known: Annotated[int, Field(gt=0)] = Field(
        3,
        description="samples of each answer in every inner fold and test part, below which a target is left out",
    )
    weight: str | None = Field(None, description="column of sample weights")
    max_bad: Annotated[float, Field(ge=0, le=1, description="share of samples that may be set aside")] = 0.05

    @field_validator("targets", mode="before")
    @classmethod
    def _spell_out(cls, given: Any) -> Any:
        """Make a table of each target that is named alone."""
        if not isinstance(given, list | tuple):
            raise ValueError('give a list of columns, such as ["pedestrian", "car"]')  # noqa: TRY004 - pydantic's
        return [{"name": each} if isinstance(each, str) else each for each in given]

    @model_validator(mode="after")
    def _targets_differ(self) -> Self:
        names = [target.name for target in self.targets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"targets: {twice[0]!r} stands twice; name each column once")
        taken = sorted({MACRO, MICRO} & set(names))
        if taken:
            raise ValueError(
                f"targets: {taken[0]!r} is what scores over all targets are called; rename the column"
            )
        if names and self.target != FOLDER_TARGET:
            raise ValueError(f"give either target ({self.target!r}) or targets")
        return self

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.manifest is None) == (self.folder is None):
            raise ValueError("give either manifest or folder")
        if self.folder is not None and self.root is not None:
            raise ValueError("root goes with a manifest; a folder's paths start at the folder")
        return self


class BackboneSettings(Table):
    """A pretrained network and how pictures are fed to it."""

    network: Name = "lite0"
    resize: Annotated[int, Field(gt=0)] | None = Field(
        None, description="pixels of the shorter side; the network's own if not given"
    )
    crop: Annotated[int, Field(gt=0)] | None = Field(
        None, description="pixels of the centre square; the network's own if not given"
    )
    architecture: Name | None = Field(None, description="of a checkpoint: resnet50, timm:convnext_tiny, ...")
    weights: Path | None = Field(None, description="a file of weights instead of the network's own")
    engine: Literal["auto", "eager", "channels_last", "compiled", "openvino"] = "auto"
    dtype: Literal["float16", "float32"] = "float16"
    source: str | None = Field(None, description="what weights of yours learnt from, for the verdict")
    source_samples: Annotated[int, Field(gt=0)] | None = Field(None, description="how many samples that was")


class SplitSettings(Table):
    """How training and test parts are made."""

    name: Name
    test: Annotated[float, Field(gt=0, lt=1, description="share of the samples that are tested on")] = 0.25
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, description="one split each")] = (0, 1, 2, 3, 4)
    stratify: tuple[str, ...] = Field(
        (), description="columns whose values keep their shares; the target if none"
    )
    group: str | None = Field(None, description="column; samples that share its value stay on one side")
    column: str | None = Field(None, description="column that says train or test, instead of the above")
    note: str = ""


class ExperimentSettings(Table):
    """A grid of heads on given taps, or layers that are trained. Inner folds choose among what the lists say."""

    name: Name
    backbone: str | None = Field(None, description="the only one if not given")
    depth: Literal["head", "suffix", "everything", "scratch"] = Field(
        "head",
        description="how much is trained: a head, the layers behind a cut, all, or all from random weights",
    )
    taps: Annotated[tuple[str, ...], Field(min_length=1)] = ("last:mean",)
    views: Annotated[tuple[str, ...], Field(min_length=1)] = (CENTRE,)
    head: Literal["softmax", "ridge", "mlp", "knn", "centroid"] = Field(
        "softmax", description="each has lists of its own below; those of others stay as they are"
    )
    strengths: Many[Strength] | None = Field(None, description="softmax, ridge: of the L2 penalty")
    class_weights: Many[Literal["none", "balanced"]] = Field(("none",), description="softmax, ridge")
    k: Many[Annotated[int, Field(gt=0)]] = Field((1, 5, 15, 45), description="knn: how many neighbours vote")
    hidden: Many[Hidden] = Field(((256,),), description="mlp: widths of one or two hidden layers")
    learning_rates: Many[Positive] | None = Field(None, description="mlp, and where layers are trained")
    weight_decays: Many[NotNegative] = Field((0.01,), description="mlp")
    dropouts: Many[Annotated[float, Field(ge=0, lt=1)]] = Field((0.0, 0.5), description="mlp")
    seeds: Many[Seed] = Field((0,), description="mlp")
    sharing: Literal["both", "joint", "separate"] | None = Field(
        None,
        description="mlp, and where layers are trained, of several targets: one network for all, one for each, "
        "or both beside each other; both",
    )
    cut: str | None = Field(None, description="suffix: the layers behind it are trained")
    start: Literal["pretrained", "random"] = Field("pretrained", description="suffix: of the layers' weights")
    epochs: Many[Annotated[int, Field(gt=0)]] | None = Field(None, description="where layers are trained")
    head_first: bool | None = Field(
        None, description="suffix, everything: the classifier starts at its optimum, not at nought; false"
    )
    earlier: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="suffix, everything: the first trained layer's learning rate, a share of the last's; 0.3",
    )
    weight_decay: NotNegative = Field(0.05, description="where layers are trained")
    mixup: NotNegative = Field(
        0.0, description="where layers are trained: of Beta(mixup, mixup); 0 mixes none"
    )
    batch: Annotated[int, Field(gt=0)] = Field(32, description="where layers are trained: samples of a step")
    batch_norm: Literal["frozen", "live"] | None = Field(
        None, description="suffix, everything: whether its statistics move; frozen"
    )
    folds: Annotated[int, Field(ge=2, le=10)] = Field(3, description="where layers are trained: inner folds")
    seed: Seed = Field(0, description="where layers are trained")

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        """Refuse keys of another depth or head."""
        is_head = self.depth == "head"
        what = f"head {self.head!r}" if is_head else f"depth {self.depth!r}"
        own = ("taps", "head", *HEAD_KEYS[self.head]) if is_head else DEPTH_KEYS[self.depth]
        for key in sorted(type(self).model_fields.keys() - SHARED_KEYS - set(own)):
            if getattr(self, key) != type(self).model_fields[key].default:
                listed = ", ".join(key for key in own if key not in ("taps", "head")) or "none"
                raise ValueError(
                    f"experiment {self.name!r}: {key} does not go with {what} (its own keys: {listed})"
                )
        if self.depth == "suffix" and not self.cut:
            raise ValueError(
                f"experiment {self.name!r}: depth 'suffix' needs a cut; headstart cuts lists them"
            )
        tuned = next((name for name in TUNING_KEYS if getattr(self, name) is not None), None)
        if self.start == "random" and tuned is not None:
            raise ValueError(
                f"experiment {self.name!r}: {tuned} is for pretrained layers, not for a random start"
            )
        return self

    def hypers(self) -> tuple[Hyper, ...]:
        """Every combination once, in the order of the lists; strengths ascend. Layers are one search."""
        if self.depth != "head":
            return (self._network(),)
        strengths = sorted(self.strengths or STRENGTHS.get(self.head, ()))
        kinds: dict[str, Iterable[Hyper]] = {
            "softmax": (Softmax(s, way) for way, s in product(self.class_weights, strengths)),
            "ridge": (Ridge(s, way) for way, s in product(self.class_weights, strengths)),
            "knn": map(Neighbours, self.k),
            "centroid": [Centroid()],
            "mlp": (
                Mlp(*each)
                for each in product(
                    self.hidden, self._rates("mlp"), self.weight_decays, self.dropouts, self.seeds
                )
            ),
        }
        return tuple(dict.fromkeys(kinds[self.head]))

    def _network(self) -> Network:
        network = Network(
            cut=self.cut or "",
            start="random" if self.depth == "scratch" else self.start,
            learning_rates=self._rates(self.depth),
            epochs=tuple(dict.fromkeys(self.epochs or EPOCHS[self.depth])),
            weight_decay=self.weight_decay,
            mixup=self.mixup,
            batch=self.batch,
            folds=self.folds,
            seed=self.seed,
        )
        if network.start == "random":  # there is nothing to be careful with
            return replace(network, head_first=False, earlier=1.0, batch_norm="live")
        set_here = {key: value for key in TUNING_KEYS if (value := getattr(self, key)) is not None}
        return replace(network, **set_here)

    def _rates(self, kind: str) -> tuple[float, ...]:
        return tuple(dict.fromkeys(self.learning_rates or LEARNING_RATES[kind]))


class VerdictSettings(Table):
    """How much to train, measured: depths on nested shares of the training part, within a time."""

    depths: Many[ExperimentSettings] = Field(
        ("head", "everything", "scratch"),  # spelled out below
        validate_default=True,
        description="head, a cut's name, everything, scratch, or experiments spelled out",
    )
    views: Many[Name] = Field((CENTRE,), description="of the depths that are named alone")
    shares: Many[Annotated[float, Field(gt=0, le=1)]] = Field(
        (0.05, 0.25, 1.0), description="of the training part, nested"
    )
    seeds: Annotated[int, Field(gt=0)] = Field(3, description="of the first split's seeds, the first so many")
    minutes: Positive = Field(30.0, description="of training in one run; what is kept costs nothing")

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, given: Any) -> Any:
        """Make an experiment of each depth that is named alone."""
        if not isinstance(given, dict):
            return given
        depths, views = given.get("depths", cls.model_fields["depths"].default), given.get("views", [CENTRE])
        if not isinstance(depths, list | tuple):
            return given
        spelled = [depth_of(each, views) if isinstance(each, str) else each for each in depths]
        return {**given, "depths": spelled}

    @model_validator(mode="after")
    def _depths_differ(self) -> Self:
        names = [depth.name for depth in self.depths]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"depths: the name {twice[0]!r} stands twice; each needs its own")
        if 1.0 not in self.shares:
            raise ValueError("shares: 1.0 is missing; what all labels give must be measured")
        return self


def depth_of(name: str, views: Any) -> dict[str, Any]:
    """Spell out a depth that is named alone: a cut's name stands for the layers behind it."""
    if name == "head":
        return {"name": name, "views": views}
    if name in ("everything", "scratch"):
        return {"name": name, "depth": name, "views": views}
    return {"name": name, "depth": "suffix", "cut": name, "views": views}


class OperatingPointSettings(Table):
    """A recall or precision that is wanted; inner folds choose the threshold, the test part tells what it gives."""

    label: str | None = Field(None, description="the class to find; the last by name if not given")
    recall: Annotated[float, Field(gt=0, le=1)] | None = None
    precision: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _one_wish(self) -> Self:
        if (self.recall is None) == (self.precision is None):
            raise ValueError("an operating point wants either recall or precision")
        return self


class Reference(Table):
    """A figure from elsewhere, shown beside ours."""

    name: Name
    metric: str = "accuracy"
    value: float
