"""Attacks of Foolbox."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robustbench_lite.attacks.peers.peer import Lent, Peer, Rows


@dataclass(frozen=True)
class Foolbox(Peer):
    """An attack of Foolbox by the name of its class: `foolbox(LinfPGD,steps=40)`.

    Parameters
    ----------
    attack : str
        A class of `foolbox.attacks` and the options it is made with. The threat's eps goes to the call; none
        where the smallest perturbation is sought.

    Source
    ------
    Rauber, Zimmermann, Bethge & Brendel 2020, "Foolbox Native".

    Examples
    --------
    >>> str(Foolbox("LinfPGD:steps=40"))
    'foolbox(LinfPGD:steps=40)'
    """

    name = "foolbox"
    package = install = "foolbox"

    def known(self) -> Mapping[str, object]:
        import foolbox

        attacks = foolbox.attacks
        return {
            name: thing
            for name, thing in vars(attacks).items()
            if isinstance(thing, type) and issubclass(thing, attacks.base.Attack)
        }

    def search(self, lent: Lent, rows: Rows) -> Tensor:
        import foolbox

        model = foolbox.PyTorchModel(lent, bounds=(0.0, 1.0), device=rows.x.device)
        if rows.target is None:
            criterion = foolbox.criteria.Misclassification(rows.y)
        else:
            criterion = foolbox.criteria.TargetedMisclassification(rows.target)
        attack = self.known()[self.called](**self.options)  # type: ignore[operator]
        found: Tensor = attack(model, rows.x, criterion, epsilons=rows.eps)[1]
        return found
