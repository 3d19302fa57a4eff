"""Attacks of torchattacks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robustbench_lite.attacks.peers.peer import Lent, Peer
from robustbench_lite.core.problem import Problem


@dataclass(frozen=True)
class Torchattacks(Peer):
    """An attack of torchattacks by the name of its class: `torchattacks(PGD,steps=40)`.

    Parameters
    ----------
    attack : str
        A class of `torchattacks` and the options it is made with; `eps` is the threat's where it takes one
        and none is given.

    Source
    ------
    Kim 2020, arXiv:2010.01950.

    Examples
    --------
    >>> Torchattacks("PGD:steps=40,random_start=False").options
    {'steps': 40, 'random_start': False}
    """

    name = "torchattacks"
    package = install = "torchattacks"

    def known(self) -> Mapping[str, object]:
        import torchattacks

        base = torchattacks.attack.Attack
        return {
            name: thing
            for name, thing in vars(torchattacks).items()
            if isinstance(thing, type) and issubclass(thing, base)
        }

    def search(self, lent: Lent, problem: Problem) -> Tensor:
        made, options = self.known()[self.called], self.options
        if problem.threat.eps is not None and "eps" in inspect.signature(made).parameters:  # type: ignore[arg-type]
            options.setdefault("eps", problem.threat.eps)
        attack = made(lent, **options)  # type: ignore[operator]
        if problem.target is not None:
            attack.set_mode_targeted_by_label(quiet=True)
        found: Tensor = attack(problem.x0, problem.y if problem.target is None else problem.target)
        return found
