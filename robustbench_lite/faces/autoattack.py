"""AutoAttack as its own package has it: one import is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from robustbench_lite.api import AttackResult, attack
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.settings import Search
from robustbench_lite.faces.called import Called, as_module
from robustbench_lite.reports.tables.rates import right

NORMS = {"Linf": "linf", "L2": "l2", "L1": "l1"}
VERSIONS = ("standard", "plus", "rand", "quick")


class AutoAttack:
    """`auto`, as the package `autoattack` calls its own.

    `from robustbench_lite import AutoAttack` in place of `from autoattack import AutoAttack`.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Inputs in [0, 1] to logits.
    norm : {"Linf", "L2", "L1"}, default "Linf"
    eps : float, default 0.3
    seed : int, optional
        None: 0.
    verbose : bool, default True
        Print initial and robust accuracy, as theirs does.
    version : {"standard", "plus", "rand", "quick"}, default "standard"
        Of `auto`; `quick` is ours alone.
    device : str, optional
        Where a module is moved to; None: it stays where it is. A function is called where the samples are.

    Examples
    --------
    >>> import torch
    >>> x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    >>> AutoAttack(net, eps=0.1, verbose=False).run_standard_evaluation(x, y).shape
    torch.Size([4, 1, 8, 8])
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        norm: Literal["Linf", "L2", "L1"] = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        version: Literal["standard", "plus", "rand", "quick"] = "standard",
        device: str | None = None,
    ) -> None:
        if norm not in NORMS:
            raise InvalidParameter("norm", norm, f"one of {', '.join(NORMS)}")
        if version not in VERSIONS:
            raise InvalidParameter("version", version, f"one of {', '.join(VERSIONS)}")
        self.model, self.norm, self.eps, self.version = as_module(model), norm, eps, version
        self.seed, self.verbose, self.device = seed or 0, verbose, device
        self.result: AttackResult | None = None

    @property
    def clean_accuracy(self) -> float:
        """Of the last evaluation; NaN before the first."""
        return float("nan") if self.result is None else float(right(self.result.records).mean())

    @property
    def robust_accuracy(self) -> float:
        """Of the last evaluation; NaN before the first."""
        if self.result is None:
            return float("nan")
        broken = self.result.records["success"].astype(bool)
        return float((right(self.result.records) & ~broken).mean())

    def run_standard_evaluation(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Adversarial examples, the sample itself where none was found.

        Parameters
        ----------
        x_orig : Tensor
            (n, …) in [0, 1].
        y_orig : Tensor
            (n,) classes.
        bs : int, default 250
            Samples at once, at most.
        return_labels : bool, default False
            Whether the model's answers to them come too.

        Returns
        -------
        Tensor, or tuple of Tensor
            (n, …), and (n,) where labels are asked for. `result` holds the judged records.
        """
        if self.device is not None or isinstance(self.model, Called):
            self.model.to(self.device or x_orig.device)
        threat, search = f"{NORMS[self.norm]}:{self.eps!r}", Search(seed=self.seed, batch_size=bs)
        found = self.result = attack(
            self.model, x_orig, y_orig, f"auto:version={self.version}", threat, search=search
        )
        records = found.records
        if self.verbose:
            print(f"initial accuracy: {self.clean_accuracy:.2%}")
            print(f"robust accuracy: {self.robust_accuracy:.2%}")
            for note in found.notes:
                print(f"note: {note}")
        # Theirs hands back the sample where it holds; ours, the point that came furthest.
        won = found.success.to(x_orig.device).view(-1, *[1] * (x_orig.dim() - 1))
        adversarial = torch.where(won, found.adversarial.to(x_orig), x_orig)
        if not return_labels:
            return adversarial
        answers = torch.where(
            found.success,
            torch.from_numpy(records["adversarial_prediction"].to_numpy(dtype="int64").copy()),
            torch.from_numpy(records["clean_prediction"].to_numpy(dtype="int64").copy()),
        )
        return adversarial, answers.to(x_orig.device)
