"""The tables of a study file: what each key may hold, and the refusal of what it may not."""

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.core.hyper import Centroid, Hyper, Mlp, Neighbours, Ridge, Softmax
from tasks.core.manifest import FOLDER_TARGET
from tasks.core.taps import CENTRE

STRENGTHS = {
    "softmax": (0.01, 0.0316, 0.1, 0.316, 1.0, 3.16, 10.0),
    "ridge": (0.1, 1.0, 10.0, 100.0, 1000.0),
}
"""Standardised features, and the loss is a mean, so they suit data sets of any size."""

SHARED_KEYS = frozenset({"name", "backbone", "taps", "views", "head"})
HEAD_KEYS: dict[str, tuple[str, ...]] = {
    "softmax": ("strengths", "class_weights"),
    "ridge": ("strengths", "class_weights"),
    "knn": ("k",),
    "centroid": (),
    "mlp": ("hidden", "learning_rates", "weight_decays", "dropouts", "seeds"),
}
"""What can be set of each head beside what every experiment has."""

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Strength = Annotated[float, Field(ge=1e-9, le=1e9)]
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


class Data(Table):
    """Where the samples come from: a manifest, or a folder with one sub-folder per class."""

    manifest: Path | None = Field(None, description="CSV file, or a .py file that defines manifest()")
    folder: Path | None = Field(None, description="folder with one sub-folder per class")
    root: Path | None = Field(
        None, description="where the manifest's relative paths start; its own folder if not given"
    )
    target: Annotated[Name, Field(description="column to predict")] = FOLDER_TARGET
    weight: str | None = Field(None, description="column of sample weights")
    max_bad: Annotated[float, Field(ge=0, le=1, description="share of samples that may be set aside")] = 0.05

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
    """A grid of heads on given taps: one for each combination of the lists. Inner folds choose among them."""

    name: Name
    backbone: str | None = Field(None, description="the only one if not given")
    taps: Annotated[tuple[str, ...], Field(min_length=1)] = ("last:mean",)
    views: Annotated[tuple[str, ...], Field(min_length=1)] = (CENTRE,)
    head: Literal["softmax", "ridge", "mlp", "knn", "centroid"] = Field(
        "softmax", description="each has lists of its own below; those of others stay as they are"
    )
    strengths: Many[Strength] | None = Field(None, description="softmax, ridge: of the L2 penalty")
    class_weights: Many[Literal["none", "balanced"]] = Field(("none",), description="softmax, ridge")
    k: Many[Annotated[int, Field(gt=0)]] = Field((1, 5, 15, 45), description="knn: how many neighbours vote")
    hidden: Many[Hidden] = Field(((256,),), description="mlp: widths of one or two hidden layers")
    learning_rates: Many[Positive] = Field((1e-3,), description="mlp")
    weight_decays: Many[NotNegative] = Field((0.01,), description="mlp")
    dropouts: Many[Annotated[float, Field(ge=0, lt=1)]] = Field((0.0, 0.5), description="mlp")
    seeds: Many[Seed] = Field((0,), description="mlp")

    @model_validator(mode="after")
    def _keys_fit_the_head(self) -> Self:
        others = type(self).model_fields.keys() - SHARED_KEYS - set(HEAD_KEYS[self.head])
        for key in sorted(others):
            if getattr(self, key) != type(self).model_fields[key].default:
                own = ", ".join(HEAD_KEYS[self.head]) or "none"
                raise ValueError(
                    f"experiment {self.name!r}: {key} does not go with head {self.head!r} (its own keys: {own})"
                )
        return self

    def hypers(self) -> tuple[Hyper, ...]:
        """Every combination once, in the order of the lists; strengths ascend."""
        strengths = sorted(self.strengths or STRENGTHS.get(self.head, ()))
        kinds: dict[str, Iterable[Hyper]] = {
            "softmax": (Softmax(s, way) for way, s in product(self.class_weights, strengths)),
            "ridge": (Ridge(s, way) for way, s in product(self.class_weights, strengths)),
            "knn": map(Neighbours, self.k),
            "centroid": [Centroid()],
            "mlp": (
                Mlp(*each)
                for each in product(
                    self.hidden, self.learning_rates, self.weight_decays, self.dropouts, self.seeds
                )
            ),
        }
        return tuple(dict.fromkeys(kinds[self.head]))


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
