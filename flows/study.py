"""The study: one TOML file that names the data, the backbones, the splits and the experiments.

Reading a study imports neither Prefect nor torch, so a wrong one is refused at once.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from flows.files import apply_change, first_complaint, folder_study, from_here, read_toml
from flows.settings import (
    BackboneSettings,
    Data,
    ExperimentSettings,
    OperatingPointSettings,
    Reference,
    SplitSettings,
    Table,
    VerdictSettings,
)
from tasks.core.backbones import Backbone, find_backbone, source_of
from tasks.core.errors import RequestError
from tasks.core.heads import Grid, Inputs
from tasks.core.hyper import Hyper, Network, Shared, SharedNetwork
from tasks.core.ladder import Ladder
from tasks.core.manifest import FOLDER_TARGET, check_columns, check_header
from tasks.core.media import CROP, parse_view
from tasks.core.recipes import Recipe
from tasks.core.samples import Columns, Source
from tasks.core.splits import SplitSpec
from tasks.core.tables import readable
from tasks.core.taps import LAST, Tap, parse_tap
from tasks.core.targets import Target
from tasks.core.wishes import Wish


class Study(Table):
    """One study. The same fields as the TOML file's."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._ -]*$", max_length=100)]
    data: Data
    backbones: dict[str, BackboneSettings] = Field(default_factory=lambda: {"lite0": BackboneSettings()})
    splits: Annotated[tuple[SplitSettings, ...], Field(min_length=1)] = (SplitSettings(name="random"),)
    experiments: Annotated[tuple[ExperimentSettings, ...], Field(min_length=1)] = (
        ExperimentSettings(name="last layer"),
    )
    operating_points: tuple[OperatingPointSettings, ...] = ()
    verdict: VerdictSettings | None = None
    references: tuple[Reference, ...] = ()
    tracking: Literal["none", "mlflow"] = "none"

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for what, names in (
            ("splits", [split.name for split in self.splits]),
            ("experiments", [grid_name for each in self.experiments for grid_name in self._named(each)]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"{what}: the name {twice[0]!r} stands twice; each needs its own")
        for split in self.splits:
            if len(set(split.seeds)) < len(split.seeds):
                raise ValueError(f"split {split.name!r}: a seed stands twice")
        for experiment in (*self.experiments, *self._depths()):
            self._backbone_of(experiment)
        return self

    @model_validator(mode="after")
    def _targets_fit(self) -> Self:
        """Refuse what goes with one target alone, or with several."""
        shared = next((each.name for each in self.experiments if each.sharing is not None), None)
        if not self.data.targets:
            if shared is not None:
                raise ValueError(f"experiment {shared!r}: sharing is for several targets (data.targets)")
            return self
        for split in self.splits:
            if split.group in {target.name for target in self.data.targets}:
                raise ValueError(
                    f"split {split.name!r}: group {split.group!r} is also a target, and all samples with one answer "
                    "would stay together; group by another column"
                )
        weighed = self.data.answer_weights == "balanced"
        twins = next((each.name for each in self.experiments if weighed and len(self._named(each)) > 1), None)
        if twins is not None:
            raise ValueError(
                f"experiment {twins!r}: data.answer_weights = 'balanced' weighs what is trained jointly alone, so that "
                "separate networks beside it would not compare; say sharing = 'joint'"
            )
        first = next(
            (each.name for each in self.experiments if each.head_first and self._is_shared(each)), None
        )
        alone = {
            "verdict": self.verdict is not None,
            "operating_points": bool(self.operating_points),
            'tracking = "mlflow"': self.tracking == "mlflow",
            f"experiment {first!r}: head_first (unless sharing is separate)": first is not None,
        }
        for what in (what for what, there in alone.items() if there):
            raise ValueError(f"{what} goes with one target (data.target), not with several yet; leave it out")
        return self

    def _named(self, experiment: ExperimentSettings) -> list[str]:
        both = self._is_shared(experiment) and experiment.sharing != "joint"
        return [experiment.name, *([_twin(experiment.name)] if both else [])]

    def _depths(self) -> tuple[ExperimentSettings, ...]:
        return () if self.verdict is None else self.verdict.depths

    def _backbone_of(self, experiment: ExperimentSettings) -> str:
        if experiment.backbone is None and len(self.backbones) == 1:
            return next(iter(self.backbones))
        if experiment.backbone is None:
            raise ValueError(
                f"experiment or depth {experiment.name!r}: there are several backbones ({', '.join(self.backbones)}); "
                f'name one, such as {{ name = "{experiment.name}", backbone = "{next(iter(self.backbones))}" }}'
            )
        if experiment.backbone not in self.backbones:
            raise ValueError(
                f"experiment {experiment.name!r}: backbone {experiment.backbone!r} is none of "
                f"{', '.join(self.backbones)}"
            )
        return experiment.backbone

    def source(self) -> Source:
        """Where samples come from, as the samples stage wants it."""
        place = self.data.manifest or self.data.folder
        assert place is not None, "checked when the study was read"  # noqa: S101
        root = self.data.root or (place if self.data.folder else place.parent)
        others = dict.fromkeys(name for split in self.split_specs() for name in split.columns())
        target = "" if self.data.targets else self.data.target
        columns = Columns(target, self.data.weight, tuple(others), self.targets())
        return Source(place, root, columns, self.data.max_bad)

    def targets(self) -> tuple[Target, ...]:
        """Several targets, as the core wants them; none of a study of one."""
        return tuple(Target(**each.model_dump()) for each in self.data.targets)

    def split_specs(self) -> tuple[SplitSpec, ...]:
        """The splits, as the core wants them."""
        return tuple(SplitSpec(**split.model_dump(exclude={"note"})) for split in self.splits)

    def backbone(self, name: str) -> Backbone:
        """Find a backbone that the study names."""
        settings = self.backbones[name]
        return find_backbone(
            settings.network,
            resize=settings.resize,
            crop=settings.crop,
            architecture=settings.architecture,
            weights=settings.weights,
        )

    def grids(self) -> list[Grid]:
        """The experiments, as the core wants them, with each backbone's own name for its last cut.

        Of several targets, small networks are for all together, for each by itself, or both.
        """
        grids = []
        for each in self.experiments:
            grid = self._grid(each)
            if not self._is_shared(each):
                grids.append(grid)
                continue
            grids.append(replace(grid, hypers=tuple(map(self._shared, grid.hypers))))
            if each.sharing != "joint":
                grids.append(replace(grid, name=_twin(each.name)))
        return grids

    def pairs(self) -> list[tuple[str, str]]:
        """The names of joint experiments and of their separate twins."""
        return [
            (each.name, _twin(each.name))
            for each in self.experiments
            if self._is_shared(each) and each.sharing != "joint"
        ]

    def _is_shared(self, experiment: ExperimentSettings) -> bool:
        shares = experiment.head == "mlp" or experiment.depth != "head"
        return bool(self.data.targets) and shares and experiment.sharing != "separate"

    def _shared(self, hyper: Hyper) -> Hyper:
        factors = tuple((each.name, each.weight) for each in self.data.targets if each.weight != 1)
        kind = SharedNetwork if isinstance(hyper, Network) else Shared
        return kind(
            **vars(hyper),
            weigh=self.data.target_weights,
            factors=factors,
            class_weight=self.data.answer_weights,
        )

    def learnt_from(self, name: str) -> tuple[str, int | None]:
        """What a backbone learnt from: its name, and how many samples, as far as that is known."""
        settings = self.backbones[name]
        known, samples = source_of(self.backbone(name))
        return settings.source or known, settings.source_samples or samples

    def plan_of_verdict(self) -> Ladder:
        """What the verdict measures, as the core wants it."""
        settings = self.verdict
        assert settings is not None, "asked only where a verdict is wanted"  # noqa: S101
        names = {grid.inputs.backbone for grid in self.depths()}
        first = self.split_specs()[0]
        return Ladder(
            depths=tuple(self.depths()),
            kinds=tuple(depth.depth for depth in settings.depths),
            split=replace(first, seeds=first.seeds[: settings.seeds]),
            shares=tuple(sorted(set(settings.shares))),
            seconds=60 * settings.minutes,
            sources={name: self.learnt_from(name) for name in sorted(names)},
        )

    def depths(self) -> list[Grid]:
        """What the verdict compares, likewise; none without a verdict."""
        return [self._grid(each) for each in self._depths()]

    def looked_at(self) -> Inputs:
        """Pooled features of the first backbone, by which near copies are found."""
        pooled = (grid.inputs for grid in self.grids() if not grid.is_network)
        return next(pooled, None) or self._last(self.used_backbones()[0])

    def _last(self, backbone: str) -> Inputs:
        return Inputs(backbone, (str(Tap(self.backbone(backbone).last, "mean")),))

    def _grid(self, experiment: ExperimentSettings) -> Grid:
        return Grid(
            name=experiment.name,
            inputs=Inputs(
                backbone=self._backbone_of(experiment),
                taps=tuple(str(tap) for tap in self._taps(experiment)),
                views=self._views(experiment),
            ),
            hypers=self._hypers(experiment),
        )

    def _hypers(self, experiment: ExperimentSettings) -> tuple[Hyper, ...]:
        """What is trained; a cut "last" is the backbone's own, as it is for taps."""
        hypers = experiment.hypers()
        if experiment.cut != LAST:
            return hypers
        last = self.backbone(self._backbone_of(experiment)).last
        return tuple(replace(each, cut=last) if isinstance(each, Network) else each for each in hypers)

    def wishes(self) -> tuple[Wish, ...]:
        """The operating points, as the core wants them."""
        return tuple(Wish(**each.model_dump()) for each in self.operating_points)

    def recipe(self, backbone: str) -> Recipe:
        """Every tap that the study wants of a backbone, once for each view, and the cuts behind which it trains."""
        wanted: dict[str, set[Tap]] = {}
        grids = [*self.grids(), *self.depths()]
        for seen in (self.looked_at(), *(grid.inputs for grid in grids)):
            for view in seen.views if seen.backbone == backbone and seen.taps else ():
                wanted.setdefault(view, set()).update(map(parse_tap, seen.taps))
        mine = [hyper for grid in grids if grid.inputs.backbone == backbone for hyper in grid.hypers]
        networks = [hyper for hyper in mine if isinstance(hyper, Network)]
        settings = self.backbones[backbone]
        return Recipe(
            {view: tuple(sorted(taps)) for view, taps in sorted(wanted.items())},
            settings.dtype,
            settings.engine,
            tuple(sorted({network.cut for network in networks})),
            renewed=any(network.start == "pretrained" for network in networks),
        )

    def _taps(self, experiment: ExperimentSettings) -> list[Tap]:
        """What is kept of each sample for an experiment; nothing where the whole network is trained."""
        if experiment.depth in ("everything", "scratch"):
            return []
        last = self.backbone(self._backbone_of(experiment)).last
        if experiment.cut:
            return [Tap(experiment.cut, "none").at(last)]
        return list(dict.fromkeys(parse_tap(text).at(last) for text in experiment.taps))

    def _views(self, experiment: ExperimentSettings) -> tuple[str, ...]:
        live = (CROP,) if experiment.depth in ("everything", "scratch") else ()
        return tuple(dict.fromkeys(view if view in live else parse_view(view) for view in experiment.views))

    def used_backbones(self) -> list[str]:
        """The backbones that an experiment uses, in the study's order."""
        used = {grid.inputs.backbone for grid in (*self.grids(), *self.depths())}
        return [name for name in self.backbones if name in used]


def _twin(name: str) -> str:
    return f"{name}, separate"


def load_study(path: Path, changes: Sequence[str] = ()) -> Study:
    """Read a study file, or make a study of a folder with one sub-folder per class.

    Everything that can be checked without Prefect or torch is checked here.

    Args:
        path: a TOML file, or a folder.
        changes: `key=value` with a dotted key and a TOML value, such as `data.max_bad=0.1`.

    Raises:
        RequestError: one line that says what is wrong, where, and what to do.
    """
    fields = folder_study(path) if path.is_dir() else read_toml(path)
    for change in changes:
        apply_change(fields, change)
    try:
        study = Study.model_validate(from_here(fields, path.parent))
    except ValidationError as error:
        raise RequestError(f"{path}: {first_complaint(error)}") from None
    check_study(study)
    return study


def check_study(study: Study) -> None:
    """Refuse a study whose backbones or data are not there, as far as that is known at once.

    Raises:
        RequestError: one line that says what is wrong and what to do.
    """
    if study.tracking == "mlflow" and find_spec("mlflow") is None:
        raise RequestError(
            "tracking = \"mlflow\": MLflow is not installed; pip install 'headstart[mlflow]', or leave tracking out"
        )
    for name in study.used_backbones():
        study.backbone(name)
    source = study.source()
    for place in (source.place, source.root):
        if not _is_unicode(place):
            raise RequestError(
                f"{readable(str(place))}: Prefect can keep no path with bytes that are not UTF-8; "
                "rename the folder, or reach it by a link of another name"
            )
    if study.data.manifest is not None:
        check_header(source.place, source.columns.names())
    elif not source.place.is_dir():
        raise RequestError(f"{source.place}: no such folder; data.folder needs one sub-folder per class")
    else:
        check_columns(source.place, ["path", FOLDER_TARGET], source.columns.names())


def _is_unicode(place: Path) -> bool:
    try:
        str(place).encode()
    except UnicodeEncodeError:
        return False
    return True
