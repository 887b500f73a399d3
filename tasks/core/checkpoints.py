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
class Done:
    """How much of a training is done.

    Attributes:
        steps: how many.
        seconds: that they took, in all processes that had a part in it.
    """

    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """One training's place: its weights, running statistics and optimiser's moments after some step.

    Attributes:
        path: the file; its name must tell all that decides the training.
    """

    path: Path

    def keep(self, done: Done, layers: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Write what is done, whole or not at all.

        Args:
            done: how much.
            layers: in training.
            optimizer: theirs.
        """
        state = {f"layers {name}": tensor for name, tensor in layers.state_dict().items()}
        for number, moments in optimizer.state_dict()["state"].items():
            state |= {f"moment {number} {name}": tensor for name, tensor in moments.items()}
        whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
        data = save(whole, {"done": json.dumps(done.steps), "seconds": json.dumps(done.seconds)})
        with replacing(self.path) as partial:
            partial.write_bytes(sealed(data))

    def restore(self, layers: nn.Module, optimizer: torch.optim.Optimizer) -> Done:
        """Go back to what was kept.

        Returns:
            How much is done: nothing, and nothing is changed, if there is no file, or one that is damaged.
        """
        try:
            data = unsealed(self.path.read_bytes())
            if data is None:
                return Done()
            tensors, done = load(data), _done(data)
        except (OSError, ValueError, KeyError, SafetensorError):
            return Done()
        layers.load_state_dict(_named(tensors, "layers "))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _named(tensors, "moment ").items():
            number, _, moment = name.partition(" ")
            state.setdefault(int(number), {})[moment] = tensor
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        return done


def _done(data: bytes) -> Done:
    told = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return Done(int(told["done"]), float(told.get("seconds", 0.0)))


def _named(tensors: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(kind): tensor for name, tensor in tensors.items() if name.startswith(kind)}
