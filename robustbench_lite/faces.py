"""Faces of other libraries, so that code written for them runs after one import is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn

from robustbench_lite.api import AttackResult, attack
from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.core.settings import Search
from robustbench_lite.data.load import load_data
from robustbench_lite.reports.tables.rates import right

NORMS = {"Linf": "linf", "L2": "l2", "L1": "l1"}
VERSIONS = ("standard", "plus", "rand", "quick")
USUAL = {
    ("cifar10", "Linf"): 8 / 255,
    ("cifar10", "L2"): 0.5,
    ("cifar100", "Linf"): 8 / 255,
}  # of RobustBench


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
        self.model, self.norm, self.eps, self.version = _module(model), norm, eps, version
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
        if self.device is not None or isinstance(self.model, _Called):
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


def benchmark(
    model: Callable[[Tensor], Tensor],
    n_examples: int = 10_000,
    dataset: str = "cifar10",
    threat_model: Literal["Linf", "L2"] = "Linf",
    data_dir: str = "./data",
    device: str | None = None,
    batch_size: int = 32,
    eps: float | None = None,
) -> tuple[float, float]:
    """Clean and robust accuracy, as `robustbench.benchmark` returns them.

    Parameters
    ----------
    model : torch.nn.Module or callable
        Inputs in [0, 1] to logits.
    n_examples : int, default 10000
        The first so many of the test split.
    dataset : str, default "cifar10"
        Any of our data sets.
    threat_model : {"Linf", "L2"}, default "Linf"
    data_dir : str, default "./data"
        Where torchvision's files are.
    device : str, optional
        None: where the model is.
    batch_size : int, default 32
    eps : float, optional
        None: RobustBench's own for the data set and norm.

    Returns
    -------
    tuple of float
        Clean accuracy and robust accuracy, between 0 and 1.

    Raises
    ------
    InvalidParameter
        Where RobustBench has no eps of its own, and none is given.
    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> clean, robust = benchmark(net, n_examples=10, dataset="digits", eps=0.1)
    >>> robust <= clean
    True
    """
    size = USUAL.get((dataset, threat_model)) if eps is None else eps
    if size is None:
        raise InvalidParameter("eps", eps, f"a number: RobustBench has none for {dataset} in {threat_model}")
    data = load_data(dataset, data_dir=data_dir)[:n_examples]
    judged = AutoAttack(model, threat_model, size, verbose=False, device=device)
    judged.run_standard_evaluation(data.x, data.y, batch_size)
    return judged.clean_accuracy, judged.robust_accuracy


class _Called(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.where = nn.Parameter(torch.empty(0), requires_grad=False)  # tells its device

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class _Bound(Protocol):
    """A method."""

    __self__: object


def _module(model: Callable[[Tensor], Tensor]) -> nn.Module:
    """The module itself, or that a method such as `net.forward` belongs to, or one around a function."""
    if isinstance(model, nn.Module):
        return model
    owner = getattr(cast(_Bound, model), "__self__", None)
    if isinstance(owner, nn.Module) and getattr(model, "__name__", "") == "forward":
        return owner
    return _Called(model)
