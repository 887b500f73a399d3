"""`headstart cuts`: one line for each place where the network falls in two."""

import pytest
import torch
from torch import Tensor, nn

import tasks.core.networks
from flows.cuts import show_cuts
from tasks.core.errors import RequestError


def rows(text: str) -> dict[str, list[str]]:
    """Cut -> its cells, without units."""
    lines = [line.split("  ") for line in text.splitlines() if line.startswith(" ")]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    return {line[0]: line[1:] for line in cells if len(line) == 5}


def test_each_cut_is_printed_with_what_it_costs(capsys):
    show_cuts("lite0")
    text = capsys.readouterr().out
    assert text.startswith("lite0 (tf_efficientnet_lite0) on 224 x 224 pixels\n")
    assert text.rstrip().endswith("last: bn2")
    found = rows(text)
    assert found["cut"] == ["activation", "KB a sample", "FLOPs before", "parameters after"]
    shape, size, flops, parameters = found["blocks.2"]
    assert shape == "40 x 28 x 28"
    assert float(size) == pytest.approx(40 * 28 * 28 * 2 / 1000, abs=0.05)
    assert 0 < float(flops.removesuffix(" %")) < 100
    assert int(parameters.replace(",", "")) < 4_652_008
    assert found["bn2"][0] == "1280 x 7 x 7"
    assert found["bn2"][3] == "1,281,000"  # the classifier's


def test_another_size_gives_other_shapes(capsys):
    show_cuts("lite0", resize=64, crop=64)
    assert rows(capsys.readouterr().out)["blocks.2"][0] == "40 x 8 x 8"


def test_no_weights_are_needed(capsys, monkeypatch):
    monkeypatch.setattr("torch.hub.urlopen", lambda *given, **named: pytest.fail("asked the network"))
    show_cuts("resnet18")
    text = capsys.readouterr().out
    assert rows(text)["last"][0] == "512"
    assert "last:" not in text  # it stands in the table


def test_a_long_name_is_never_cut_short(capsys):
    show_cuts("efficientnet_b0")
    assert "…" not in capsys.readouterr().out


class Asking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x) if x.sum() > 0 else self.two(x)


def test_a_network_that_cannot_be_traced_says_so_and_lists_its_modules(capsys, monkeypatch):
    monkeypatch.setattr(tasks.core.networks, "outline", lambda backbone: Asking().eval())
    show_cuts("lite0")
    text = capsys.readouterr().out
    assert text.startswith("Asking cannot be traced (")
    assert text.endswith("so it has no cuts; these modules can be tapped: one, two\n")


def test_an_unknown_backbone_is_refused():
    with pytest.raises(RequestError, match="backbone 'resnet5' is unknown"):
        show_cuts("resnet5")


def test_a_checkpoint_is_shown_by_its_architecture(capsys, tmp_path):
    torch.save({}, tmp_path / "own.pth")
    show_cuts(str(tmp_path / "own.pth"), architecture="resnet18")
    assert rows(capsys.readouterr().out)["layer4"][0] == "512 x 7 x 7"
