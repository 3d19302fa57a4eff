"""Attacks of the Adversarial Robustness Toolbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lite.attacks.peers.peer import Lent, Peer
from robustbench_lite.core.problem import Problem
from robustbench_lite.core.threat import Norm

NORMS: dict[Norm | None, object] = {Norm.LINF: np.inf, Norm.L2: 2, Norm.L1: 1}


@dataclass(frozen=True)
class ART(Peer):
    """An evasion attack of ART by the name of its class: `art(HopSkipJump,max_iter=20)`.

    Parameters
    ----------
    attack : str
        A class of `art.attacks.evasion` and the options it is made with; `eps`, `norm`, `targeted` and
        `batch_size` are handed on where it takes them and nothing else is said.

    Source
    ------
    Nicolae et al. 2018, arXiv:1807.01069.

    Examples
    --------
    >>> ART("HopSkipJump:max_iter=20").called
    'HopSkipJump'
    """

    name = "art"
    package = "art"
    install = "adversarial-robustness-toolbox"

    def known(self) -> Mapping[str, object]:
        from art.attacks import evasion

        return {name: thing for name, thing in vars(evasion).items() if hasattr(thing, "attack_params")}

    def search(self, lent: Lent, problem: Problem) -> Tensor:
        from art.estimators.classification import PyTorchClassifier

        model = problem.oracle.model
        classifier = PyTorchClassifier(
            lent, nn.CrossEntropyLoss(), tuple(problem.x0.shape[1:]), model.num_classes,
            clip_values=(0.0, 1.0), device_type="gpu" if problem.x0.is_cuda else "cpu",
        )  # fmt: skip
        made, options = self.known()[self.called], self.options
        usual = {
            "norm": NORMS.get(problem.threat.norm),
            "eps": problem.threat.eps,
            "targeted": problem.target is not None,
            "batch_size": len(problem),
            "verbose": False,
        }
        taken = made.attack_params  # type: ignore[attr-defined]
        options = {key: value for key, value in usual.items() if key in taken and value is not None} | options
        attack = made(classifier, **options)  # type: ignore[operator]
        wanted = problem.y if problem.target is None else problem.target
        labels = nn.functional.one_hot(wanted, model.num_classes).cpu().numpy()
        return torch.from_numpy(attack.generate(problem.x0.cpu().numpy(), y=labels))
