"""The benchmark of RobustBench as its own package has it: one import is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from robustbench_lite.core.errors import InvalidParameter
from robustbench_lite.data.load import load_data
from robustbench_lite.faces.autoattack import AutoAttack

USUAL = {
    ("cifar10", "Linf"): 8 / 255,
    ("cifar10", "L2"): 0.5,
    ("cifar100", "Linf"): 8 / 255,
}  # of RobustBench


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
