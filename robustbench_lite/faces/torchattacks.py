"""Attacks as torchattacks calls its own: `import robustbench_lite.faces.torchattacks as torchattacks`.

Names and parameters are theirs, the attacks are ours, with every result judged. A parameter that ours does
not have is refused; a step size that it does not take is warned about. The adversarial examples that come
back are the points that came furthest within the threat; `records` of the last call say what each is worth.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import pandas as pd
import torch
from torch import Tensor, nn

from robustbench_lite.api import attack
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.settings import Search
from robustbench_lite.faces.called import as_module

GREY = 1 / 255
NORMS = {"Linf": "linf", "L2": "l2", "L1": "l1"}
Net = Callable[[Tensor], Tensor]


class Attack:
    """An attack made for one model; called with images and labels it returns adversarial images.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Inputs in [0, 1] to logits.
    text, threat : str
        In the grammar of names.
    seed : int, default 0
    """

    def __init__(self, model: Net, text: str, threat: str, seed: int = 0) -> None:
        self.model, self.text, self.threat, self.seed = as_module(model), text, threat, seed
        self.goal: str | None = "untargeted"  # None: the labels of a call are what is wanted
        self.mean: Tensor | None = None
        self.std: Tensor | None = None
        self.records: pd.DataFrame | None = None

    def __call__(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Adversarial images (n, C, H, W) of images in [0, 1], or normalised ones where that was set."""
        if self.mean is not None and self.std is not None:
            inputs = inputs * self.std.to(inputs) + self.mean.to(inputs)
        goal: object = labels if self.goal is None else self.goal
        y = self._answers(inputs) if self.goal is None else labels
        found = attack(self.model, inputs, y, self.text, self.threat, goal, Search(seed=self.seed))
        self.records = found.records
        adversarial = found.adversarial.to(inputs)
        if self.mean is not None and self.std is not None:
            adversarial = (adversarial - self.mean.to(inputs)) / self.std.to(inputs)
        return adversarial

    def set_mode_default(self) -> None:
        """Away from the labels."""
        self.goal = "untargeted"

    def set_mode_targeted_by_label(self, quiet: bool = False) -> None:
        """Towards the labels of a call."""
        self.goal = None

    def set_mode_targeted_least_likely(self, kth_min: int = 1, quiet: bool = False) -> None:
        """Towards the least likely class; kth_min: 1 alone."""
        if kth_min != 1:
            raise InvalidParameter("kth_min", kth_min, "1")
        self.goal = "least_likely"

    def set_mode_targeted_random(self, quiet: bool = False) -> None:
        """Towards a random other class."""
        self.goal = "random"

    def set_normalization_used(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Say that images come normalised, and the model wants them so."""
        self.mean, self.std = (torch.tensor(list(values)).view(1, -1, 1, 1) for values in (mean, std))
        self.model = _Normalised(self.model, self.mean, self.std)

    def _answers(self, x: Tensor) -> Tensor:
        """What the model says, which is left in the mode that it is in."""
        modes = [(part, part.training) for part in self.model.modules()]
        try:
            with torch.no_grad():
                answers: Tensor = self.model.eval()(x).argmax(1)
        finally:
            for part, mode in modes:
                part.training = mode
        return answers


class _Normalised(nn.Module):
    """A model of images in [0, 1], from one that wants them normalised."""

    def __init__(self, inner: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner((x - self.get_buffer("mean").to(x)) / self.get_buffer("std").to(x))
        return scores


class FGSM(Attack):
    """One step of eps."""

    def __init__(self, model: Net, eps: float = 8 * GREY) -> None:
        super().__init__(model, "fgsm", f"linf:{eps!r}")


class BIM(Attack):
    """Equal steps from the image."""

    def __init__(self, model: Net, eps: float = 8 * GREY, alpha: float = 2 * GREY, steps: int = 10) -> None:
        super().__init__(model, f"iterative:steps={steps},step_size={alpha!r}", f"linf:{eps!r}")


class PGD(Attack):
    """Equal steps from a random point of the ball."""

    def __init__(
        self, model: Net, eps: float = 8 * GREY, alpha: float = 2 * GREY, steps: int = 10,
        random_start: bool = True,
    ) -> None:  # fmt: skip
        text = f"pgd:steps={steps},step_size={alpha!r},random_start={random_start}"
        super().__init__(model, text, f"linf:{eps!r}")


class PGDL2(Attack):
    """The same in l2."""

    def __init__(
        self, model: Net, eps: float = 1.0, alpha: float = 0.2, steps: int = 10, random_start: bool = True
    ) -> None:
        text = f"pgd:steps={steps},step_size={alpha!r},random_start={random_start}"
        super().__init__(model, text, f"l2:{eps!r}")


class _Momentum(Attack):
    """Ours go in steps of eps / steps."""

    def __init__(self, model: Net, text: str, eps: float, alpha: float | None, steps: int) -> None:
        if alpha is not None and abs(alpha - eps / steps) > 1e-9:
            warnings.warn(
                f"alpha={alpha} is not taken: steps are eps / steps, {eps / steps:.4g}", stacklevel=3
            )
        super().__init__(model, f"{text},steps={steps}", f"linf:{eps!r}")


class MIFGSM(_Momentum):
    """Momentum."""

    def __init__(
        self, model: Net, eps: float = 8 * GREY, alpha: float | None = None, steps: int = 10,
        decay: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(model, f"mifgsm:decay={decay!r}", eps, alpha, steps)


class NIFGSM(_Momentum):
    """Momentum, looking ahead."""

    def __init__(
        self, model: Net, eps: float = 8 * GREY, alpha: float | None = None, steps: int = 10,
        decay: float = 1.0,
    ) -> None:  # fmt: skip
        super().__init__(model, f"nifgsm:decay={decay!r}", eps, alpha, steps)


class SINIFGSM(_Momentum):
    """Momentum, looking ahead, on dimmed copies."""

    def __init__(
        self, model: Net, eps: float = 8 * GREY, alpha: float | None = None, steps: int = 10,
        decay: float = 1.0, m: int = 5,
    ) -> None:  # fmt: skip
        super().__init__(model, f"sinifgsm:decay={decay!r},scales={m}", eps, alpha, steps)


class VMIFGSM(_Momentum):
    """Momentum less the variance of gradients around."""

    def __init__(
        self, model: Net, eps: float = 8 * GREY, alpha: float | None = None, steps: int = 10,
        decay: float = 1.0, N: int = 5, beta: float = 1.5,
    ) -> None:  # fmt: skip
        text = f"vmifgsm:decay={decay!r},neighbours={N},reach={beta!r}"
        super().__init__(model, text, eps, alpha, steps)


class DIFGSM(_Momentum):
    """Momentum on inputs of other sizes."""

    def __init__(
        self, model: Net, eps: float = 8 * GREY, alpha: float | None = None, steps: int = 10,
        decay: float = 0.0, resize_rate: float = 0.9, diversity_prob: float = 0.5,
    ) -> None:  # fmt: skip
        text = f"difgsm:decay={decay!r},shrink={resize_rate!r},diversity={diversity_prob!r}"
        super().__init__(model, text, eps, alpha, steps)


class TIFGSM(_Momentum):
    """Momentum of smoothed gradients."""

    def __init__(
        self, model: Net, eps: float = 8 * GREY, alpha: float | None = None, steps: int = 10,
        decay: float = 0.0, len_kernel: int = 15,
    ) -> None:  # fmt: skip
        super().__init__(model, f"tifgsm:decay={decay!r},kernel={len_kernel}", eps, alpha, steps)


class Jitter(Attack):
    """PGD on scaled and shaken scores."""

    def __init__(
        self, model: Net, eps: float = 8 * GREY, alpha: float = 2 * GREY, steps: int = 10, scale: float = 10,
        std: float = 0.1, random_start: bool = True,
    ) -> None:  # fmt: skip
        text = f"jitter:steps={steps},step_size={alpha!r},scale={float(scale)!r},noise={std!r}"
        super().__init__(model, f"{text},random_start={random_start}", f"linf:{eps!r}")


class APGD(Attack):
    """Steps that choose their own size."""

    def __init__(
        self, model: Net, norm: Literal["Linf", "L2", "L1"] = "Linf", eps: float = 8 * GREY, steps: int = 10,
        n_restarts: int = 1, seed: int = 0, loss: Literal["ce", "dlr"] = "ce",
    ) -> None:  # fmt: skip
        text = f"apgd:steps={steps},restarts={n_restarts},loss={loss}"
        super().__init__(model, text, _ball(norm, eps), seed)


class APGDT(Attack):
    """The same through the likeliest other classes."""

    def __init__(
        self, model: Net, norm: Literal["Linf", "L2", "L1"] = "Linf", eps: float = 8 * GREY, steps: int = 10,
        n_restarts: int = 1, seed: int = 0, n_classes: int = 10,
    ) -> None:  # fmt: skip
        text = f"apgd:steps={steps},restarts={n_restarts},loss=dlr,targets={min(9, n_classes - 1)}"
        super().__init__(model, text, _ball(norm, eps), seed)


class FAB(Attack):
    """The smallest change, of which eps is asked: what lies farther away is no success."""

    def __init__(
        self, model: Net, norm: Literal["Linf", "L2", "L1"] = "Linf", eps: float = 8 * GREY, steps: int = 10,
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(model, f"fab:steps={steps}", _ball(norm, eps), seed)


class Square(Attack):
    """Random squares, by scores alone."""

    def __init__(
        self, model: Net, norm: Literal["Linf", "L2"] = "Linf", eps: float = 8 * GREY, n_queries: int = 5000,
        n_restarts: int = 1, p_init: float = 0.8, seed: int = 0,
    ) -> None:  # fmt: skip
        text = f"square:steps={n_queries},restarts={n_restarts},area={p_init!r}"
        super().__init__(model, text, _ball(norm, eps), seed)


class AutoAttack(Attack):
    """The strongest, one after the other."""

    def __init__(
        self, model: Net, norm: Literal["Linf", "L2", "L1"] = "Linf", eps: float = 8 * GREY,
        version: Literal["standard", "plus", "rand"] = "standard", n_classes: int = 10,
        seed: int | None = None, verbose: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(model, f"auto:version={version}", _ball(norm, eps), seed or 0)


class CW(Attack):
    """The smallest l2 change, by distance against margin; c: where the weight's bisection begins."""

    def __init__(
        self, model: Net, c: float = 1.0, kappa: float = 0.0, steps: int = 50, lr: float = 0.01
    ) -> None:
        text = f"cw:weight={float(c)!r},confidence={float(kappa)!r},steps={steps},rate={lr!r}"
        super().__init__(model, text, "l2:min")


class DeepFool(Attack):
    """The nearest linearised boundary, again and again."""

    def __init__(self, model: Net, steps: int = 50, overshoot: float = 0.02) -> None:
        super().__init__(model, f"deepfool:steps={steps},overshoot={overshoot!r}", "l2:min")


class OnePixel(Attack):
    """Differential evolution of a few pixels."""

    def __init__(self, model: Net, pixels: int = 1, steps: int = 10, popsize: int = 10) -> None:
        super().__init__(model, f"one_pixel:steps={steps},population={max(4, popsize)}", f"l0:{pixels}")


def _ball(norm: str, eps: float) -> str:
    if norm not in NORMS:
        raise InvalidParameter("norm", norm, f"one of {', '.join(NORMS)}")
    return f"{NORMS[norm]}:{eps!r}"
