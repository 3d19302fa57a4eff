"""Attacks of torchattacks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robustbench_lite.attacks.peers.peer import Lent, Peer, Rows
from robustbench_lite.core.threat import Norm

NORMS: dict[Norm | None, str] = {Norm.LINF: "Linf", Norm.L2: "L2", Norm.L1: "L1"}


@dataclass(frozen=True)
class Torchattacks(Peer):
    """An attack of torchattacks by the name of its class: `torchattacks(PGD,steps=40)`.

    Parameters
    ----------
    attack : str
        A class of `torchattacks` and the options it is made with; `eps` and `norm` are the threat's where
        it takes them and nothing else is said.

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

    def search(self, lent: Lent, rows: Rows) -> Tensor:
        made, options = self.known()[self.called], self.options
        taken = inspect.signature(made).parameters  # type: ignore[arg-type]
        for name, value in (("eps", rows.eps), ("norm", NORMS.get(rows.norm))):
            if name in taken and value is not None:
                options.setdefault(name, value)
        attack = made(lent, **options)  # type: ignore[operator]
        if rows.target is not None:
            attack.set_mode_targeted_by_label(quiet=True)
        found: Tensor = attack(rows.x, rows.wanted)
        return found
