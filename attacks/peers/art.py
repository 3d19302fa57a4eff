"""Attacks of the Adversarial Robustness Toolbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from robustbench_lite.attacks.peers.peer import Lent, Peer, Rows
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

    def search(self, lent: Lent, rows: Rows) -> Tensor:
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            lent, nn.CrossEntropyLoss(), tuple(rows.x.shape[1:]), rows.num_classes,
            clip_values=(0.0, 1.0), device_type="gpu" if rows.x.is_cuda else "cpu",
        )  # fmt: skip
        made, options = self.known()[self.called], self.options
        usual = {
            "norm": NORMS.get(rows.norm),
            "eps": rows.eps,
            "targeted": rows.target is not None,
            "batch_size": len(rows.x),
            "verbose": False,
        }
        taken = made.attack_params  # type: ignore[attr-defined]
        options = {key: value for key, value in usual.items() if key in taken and value is not None} | options
        attack = made(classifier, **options)  # type: ignore[operator]
        labels = nn.functional.one_hot(rows.wanted, rows.num_classes).cpu().numpy()
        return torch.from_numpy(attack.generate(rows.x.cpu().numpy(), y=labels))
