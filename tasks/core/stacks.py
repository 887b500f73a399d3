"""Many small networks of one shape, trained side by side on the same batches of the same rows.

Their weights are stacked, so that the first layer, where nearly all the work is, multiplies the batch with
the weights of all networks at once: (G * H, D) by (D, B), and likewise (G * H, B) by (B, D) for its
gradient. Each network keeps its own learning rate, decay and dropout. There is no tape: the gradients of
full layers are a few lines, and none is wanted for the rows.

A network may answer several targets at once: their classes stand side by side, a block for each, and a softmax is
taken within each block.

Letters: G networks, D features, H hidden units, C classes (of all targets), B rows of a batch.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tasks.core.hyper import Mlp
from tasks.core.products import times_transposed

BETAS = 0.9, 0.999
EPSILON = 1e-8
"""AdamW's, as torch has them."""


class Stack:
    """G networks with the same first weights, as their seed gives them.

    Args:
        features: D.
        blocks: how many classes each target has; C in all.
        hypers: G; they must agree in `hidden` and `seed`.

    Attributes:
        weights: (G, H1, D), ..., (G, C, H) float32, from the first layer to the last.
        biases: (G, H1, 1), ..., (G, C, 1) float32.
    """

    def __init__(self, features: int, blocks: Sequence[int], hypers: Sequence[Mlp]) -> None:
        first = torch.Generator().manual_seed(3 * hypers[0].seed + 1)
        self.noise = torch.Generator().manual_seed(3 * hypers[0].seed + 2)
        self.hypers, self.blocks = list(hypers), list(blocks)
        self.weights: list[Tensor] = []
        self.biases: list[Tensor] = []
        for inputs, outputs in pairwise((features, *hypers[0].hidden, sum(blocks))):
            for numbers, shape in (self.weights, (outputs, inputs)), (self.biases, (outputs, 1)):
                drawn = (2 * torch.rand(shape, generator=first) - 1) / inputs**0.5  # as torch.nn.Linear
                numbers.append(drawn.repeat(len(hypers), 1, 1))
        self.adam = _AdamW([*self.weights, *self.biases], hypers)

    def __len__(self) -> int:
        return len(self.hypers)

    def logits(self, rows: Tensor) -> Tensor:
        """Return what all networks say without dropout; (B, D) -> (G, C, B)."""
        return self._forward(rows, [])[-1]

    def learn(self, rows: Tensor, hot: Tensor, share: Tensor) -> None:
        """Take one step down the gradient of the sum over answers of share * -log softmax(logits)[answer].

        Args:
            rows: (B, D).
            hot: (B, C) one-hot labels, of each target.
            share: (B, C) what the answer to each class's target weighs, nought if unknown; (B, 1) for one target.
        """
        masks = self._masks(len(rows))
        outputs = self._forward(rows, masks)
        slope = within(self.blocks, outputs[-1], Tensor.softmax).sub_(hot.T).mul_(share.T)  # (G, C, B)
        self.adam.step(self.gradients(rows, outputs, masks, slope))

    def gradients(
        self, rows: Tensor, outputs: Sequence[Tensor], masks: Sequence[Tensor], slope: Tensor
    ) -> list[Tensor]:
        """Gradients in the weights, then in the biases, given the slope in the logits, (G, C, B)."""
        by_weight, by_bias = [], [slope.sum(2, keepdim=True)]
        for layer in range(len(self.weights) - 1, 0, -1):
            below = outputs[layer - 1]  # (G, H, B)
            by_weight.append(slope @ below.mT)
            slope = self.weights[layer].mT @ slope
            if masks:
                slope.mul_(masks[layer - 1])
            slope.mul_(below.sign())  # 0 where ReLU or dropout let nothing through, else 1
            by_bias.append(slope.sum(2, keepdim=True))
        wide = times_transposed(slope.flatten(0, 1), rows.T)  # (G * H1, D)
        by_weight.append(wide.view_as(self.weights[0]))
        return by_weight[::-1] + by_bias[::-1]

    def keep(self, which: Sequence[int]) -> None:
        """Go on with these networks only."""
        chosen = torch.tensor(which, dtype=torch.long)
        self.hypers = [self.hypers[n] for n in which]
        self.weights = [weight[chosen] for weight in self.weights]
        self.biases = [bias[chosen] for bias in self.biases]
        self.adam.keep(chosen, [*self.weights, *self.biases], self.hypers)

    def of(self, number: int) -> tuple[list[Tensor], list[Tensor]]:
        """One network's weights (H1, D), ... and biases (H1,), ...; they go on changing with the stack."""
        return [weight[number] for weight in self.weights], [bias[number, :, 0] for bias in self.biases]

    def _forward(self, rows: Tensor, masks: Sequence[Tensor]) -> list[Tensor]:
        """Each layer's output, (G, H, B), after ReLU and dropout; the last one's are the logits."""
        wide = times_transposed(self.weights[0].flatten(0, 1), rows)  # (G * H1, B)
        outputs = [wide.view(len(self), -1, len(rows)).add_(self.biases[0])]
        for layer, (weight, bias) in enumerate(zip(self.weights[1:], self.biases[1:], strict=True)):
            outputs[-1].relu_()
            if masks:
                outputs[-1].mul_(masks[layer])
            outputs.append(torch.baddbmm(bias, weight, outputs[-1]))
        return outputs

    def _masks(self, rows: int) -> list[Tensor]:
        """What dropout multiplies each hidden layer with, (G, H, B); the networks share the draw."""
        if not any(hyper.dropout for hyper in self.hypers):
            return []
        dropout = torch.tensor([hyper.dropout for hyper in self.hypers])[:, None, None]
        masks = []
        for width in self.hypers[0].hidden:
            drawn = 1 - torch.rand(width, rows, generator=self.noise)  # above 0, so that dropout 0 keeps all
            masks.append((drawn - dropout).sign_().relu_().div_(1 - dropout))
        return masks


def within(blocks: Sequence[int], logits: Tensor, taken: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Take a softmax, or its logarithm, within each target's block of classes; (G, C, B)."""
    if len(blocks) == 1:
        return taken(logits, 1)
    if len(set(blocks)) == 1:
        apart = logits.view(len(logits), len(blocks), blocks[0], -1)
        return taken(apart, 2).view_as(logits)
    return torch.cat([taken(block, 1) for block in torch.split(logits, list(blocks), dim=1)], 1)


class _AdamW:
    """AdamW for each network of a stack, by torch's fused kernel: one pass over each network's numbers.

    A network is small enough for the processor's cache, where all networks together are not.
    """

    def __init__(self, numbers: Sequence[Tensor], hypers: Sequence[Mlp]) -> None:
        self.steps = torch.zeros(())
        self.first = [torch.zeros_like(each) for each in numbers]
        self.second = [torch.zeros_like(each) for each in numbers]
        self._take(numbers, hypers)

    def keep(self, which: Tensor, numbers: Sequence[Tensor], hypers: Sequence[Mlp]) -> None:
        """Go on with these networks only."""
        self.first = [moment[which] for moment in self.first]
        self.second = [moment[which] for moment in self.second]
        self._take(numbers, hypers)

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step with every network; the gradients are stacked as the numbers are."""
        self.steps.add_(1)
        by_network = zip(*(gradient.unbind() for gradient in gradients), strict=True)
        for hyper, (numbers, first, second), slopes in zip(
            self.hypers, self.networks, by_network, strict=True
        ):
            torch._fused_adamw_(
                numbers,
                slopes,
                first,
                second,
                [],
                [self.steps] * len(numbers),
                lr=hyper.learning_rate,
                beta1=BETAS[0],
                beta2=BETAS[1],
                weight_decay=hyper.weight_decay,
                eps=EPSILON,
                amsgrad=False,
                maximize=False,
            )

    def _take(self, numbers: Sequence[Tensor], hypers: Sequence[Mlp]) -> None:
        self.hypers = list(hypers)
        split = [
            zip(*(each.unbind() for each in stacked), strict=True)
            for stacked in (numbers, self.first, self.second)
        ]
        self.networks = list(zip(*split, strict=True))  # numbers and moments of each network, as views
