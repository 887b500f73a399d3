"""What a training that is not done has come to, kept so that a run that is killed loses a minute; without pickle."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from tasks.core.files import replacing, sealed, unsealed


@dataclass(frozen=True)
class Checkpoint:
    """One training's place: its weights, running statistics and optimiser's moments after some step.

    Attributes:
        path: the file; its name must tell all that decides the training.
    """

    path: Path

    def keep(self, done: int, layers: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write what is done, whole or not at all.

        Args:
            done: how many steps.
            layers: in training.
            optimizer: theirs.
        """
        state = {f"layers {name}": tensor for name, tensor in layers.state_dict().items()}
        for number, moments in optimizer.state_dict()["state"].items():
            state |= {f"moment {number} {name}": tensor for name, tensor in moments.items()}
        whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
        data = save(whole, {"done": json.dumps(done)})
        with replacing(self.path) as partial:
            partial.write_bytes(sealed(data))

    def restore(self, layers: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Go back to what was kept.

        Returns:
            How many steps are done: 0, and nothing is changed, if there is no file, or one that is damaged.
        """
        try:
            data = unsealed(self.path.read_bytes())
            if data is None:
                return 0
            tensors, done = load(data), _done(data)
        except (OSError, ValueError, KeyError, SafetensorError):
            return 0
        layers.load_state_dict(_named(tensors, "layers "))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _named(tensors, "moment ").items():
            number, _, moment = name.partition(" ")
            state.setdefault(int(number), {})[moment] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return done


def _done(data: bytes) -> int:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return int(header["__metadata__"]["done"])


def _named(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(kind): tensor for name, tensor in tensors.items() if name.startswith(kind)}
