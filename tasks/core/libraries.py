"""What torchvision and timm know: architectures by name, their preprocessing, where their weights are.

The libraries are imported when one of their names is asked for, and take seconds. Nothing is told to
anyone about their use.
"""

from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tasks.core.backbones import Download
from tasks.core.errors import RequestError
from tasks.core.media import ImageSpec

TIMM = "timm:"


@dataclass(frozen=True)
class Published:
    """What a library says of an architecture and its usual weights.

    Attributes:
        architecture: its full name, "timm:" before timm's.
        preprocessing: equal to the library's own for evaluation.
        weights: where their file is looked for, if `download` is not None.
        download: where they come from; None if the library has none.
    """

    architecture: str
    preprocessing: ImageSpec
    weights: Path
    download: Download | None


def find_published(name: str, *, bundled: list[str]) -> Published:
    """Find an architecture of torchvision's, or with "timm:" before its name of timm's.

    Args:
        name: such as "resnet50" or "timm:convnext_tiny.in12k_ft_in1k".
        bundled: names of other backbones, to be offered when the name is unknown.

    Raises:
        RequestError: if it is unknown, or its preprocessing is of a kind that is not known here.
    """
    from torchvision import models

    if name.startswith(TIMM) and _timm_config(name) is not None:
        return _of_timm(name)
    known = models.list_models(module=models)
    if name in known:
        return _of_torchvision(name)
    import timm

    timms = (*timm.list_models(), *timm.list_models(pretrained=True))  # those with a tag
    everything = [*bundled, *known, *(TIMM + each for each in timms)]
    near = [TIMM + name] if timm.is_model(name) else get_close_matches(name, everything, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise RequestError(
        f"backbone {name!r} is unknown{hint} (known: {', '.join(bundled)}, torchvision's classifiers such as "
        "resnet50, timm's such as timm:convnext_tiny, and a checkpoint's path)"
    )


def fetch(name: str, download: Download, place: Path) -> Path:
    """Download weights by their library's own code, with its progress on stderr.

    Args:
        name: the backbone's, for the error.
        download: where from.
        place: where torchvision would keep the file. A repository's goes to Hugging Face's own cache.

    Returns:
        The file.

    Raises:
        RequestError: if that fails; it says which file to put where.
    """
    try:
        if download.repository:
            return _from_repository(download)
        from torch.hub import HASH_REGEX, download_url_to_file

        start = HASH_REGEX.search(place.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        download_url_to_file(download.url, str(place), start.group(1) if start else None, progress=True)
    except Exception as error:  # both libraries raise many kinds
        story = " ".join(str(error).split())[:120] or type(error).__name__
        raise RequestError(
            f"backbone {name!r}: its weights cannot be downloaded ({story}); put {download.url} at {place}, "
            "or give weights = FILE"
        ) from error
    return place


def cached(download: Download) -> Path | None:
    """Return a repository's file from Hugging Face's own cache, if it is there."""
    if not download.repository:
        return None
    from huggingface_hub import try_to_load_from_cache

    repository, file, revision = _parts(download)
    here = try_to_load_from_cache(repository, file, revision=revision)
    return Path(here) if isinstance(here, str) else None


def _parts(download: Download) -> tuple[str, str, str | None]:
    """Take a repository's name, its file and its revision apart."""
    repository, _, revision = download.repository.partition("@")
    return repository, download.url.rsplit("/", 1)[1], revision or None


def _from_repository(download: Download) -> Path:
    from huggingface_hub import constants, hf_hub_download, hf_hub_url

    constants.HF_HUB_DISABLE_TELEMETRY = True
    if (here := cached(download)) is not None:
        return here
    repository, file, revision = _parts(download)
    _knock(hf_hub_url(repository, file, revision=revision))
    return Path(hf_hub_download(repository, file, revision=revision))


def _knock(url: str) -> None:
    """Ask once whether the host answers: huggingface_hub would try for half a minute."""
    with suppress(HTTPError):  # it does, if with a refusal, which huggingface_hub tells better
        urlopen(Request(url, method="HEAD"), timeout=10).close()  # noqa: S310 - https, as the libraries have it


def _checkpoints() -> Path:
    from torch.hub import get_dir

    return Path(get_dir()) / "checkpoints"


def _of_torchvision(name: str) -> Published:
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    own = weights.transforms()
    spec = ImageSpec(
        resize=own.resize_size[0],
        crop=own.crop_size[0],
        mean=_levels(own.mean),
        std=_levels(own.std),
        interpolation=own.interpolation.value,
        fit="down",
    )
    return Published(name, spec, _checkpoints() / weights.url.rsplit("/", 1)[1], Download(weights.url))


def _of_timm(name: str) -> Published:
    config = _timm_config(name)
    full = ".".join(part for part in (config.architecture, config.tag) if part)
    channels, height, width = config.input_size
    odd = {
        "input_size": channels != 3 or height != width,
        "crop_mode": config.crop_mode not in ("center", "squash"),
        "interpolation": config.interpolation not in ("bicubic", "bilinear"),
    }
    for key in (key for key, is_odd in odd.items() if is_odd):
        raise RequestError(
            f"backbone {name!r}: its preprocessing has {key} = {getattr(config, key)!r}, which is not known "
            "here; choose another"
        )
    spec = ImageSpec(
        resize=int(height / config.crop_pct),
        crop=height,
        mean=_levels(config.mean),
        std=_levels(config.std),
        interpolation=config.interpolation,
        fit="squash" if config.crop_mode == "squash" else "down",
    )
    download = _download(config)
    kept = f"{full}.safetensors"
    if download is not None and not download.repository:
        kept = download.url.rsplit("/", 1)[1]
    return Published(TIMM + full, spec, _checkpoints() / kept, download)


def _download(config: Any) -> Download | None:
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        file = config.hf_hub_filename or "model.safetensors"
        url = f"https://huggingface.co/{repository}/resolve/{revision or 'main'}/{file}"
        return Download(url, config.hf_hub_id)
    return Download(config.url) if config.url else None


def _timm_config(name: str) -> Any:
    """Return what timm knows of a name's weights and preprocessing, None if it does not know the name."""
    import timm
    from timm.models import get_pretrained_cfg

    plain = name.removeprefix(TIMM)
    if not timm.is_model(plain):
        return None
    try:
        return get_pretrained_cfg(plain)
    except RuntimeError:  # another tag
        return None


def _levels(shares: Any) -> tuple[float, float, float]:
    """Turn shares of full brightness into levels from 0 to 255."""
    red, green, blue = (255 * float(share) for share in shares)
    return red, green, blue
