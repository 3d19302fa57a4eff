"""Attacks of adversarial-library."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from robustbench_lite.attacks.peers.peer import Lent, Peer, Rows
from robustbench_lite.core.threat import Norm

SIZES = ("ε", "eps")
NORMS: dict[Norm | None, float] = {Norm.L0: 0, Norm.L1: 1, Norm.L2: 2, Norm.LINF: float("inf")}


@dataclass(frozen=True)
class AdversarialLibrary(Peer):
    """An attack of adversarial-library by the name of its function: `advlib(ddn,steps=100)`.

    Parameters
    ----------
    attack : str
        A function of `adv_lib.attacks` and its options; `ε` and `norm` are the threat's where it takes them
        and nothing else is said.

    Source
    ------
    Rony & Ben Ayed, "Adversarial Library", https://github.com/jeromerony/adversarial-library.

    Examples
    --------
    >>> AdversarialLibrary("ddn:steps=100").options
    {'steps': 100}
    """

    name = "advlib"
    package = "adv_lib"
    install = "adv-lib"

    def known(self) -> Mapping[str, object]:
        from adv_lib import attacks

        return {name: thing for name, thing in vars(attacks).items() if inspect.isfunction(thing)}

    def search(self, lent: Lent, rows: Rows) -> Tensor:
        attack, options = self.known()[self.called], self.options
        taken = inspect.signature(attack).parameters  # type: ignore[arg-type]
        for name, value in (*((size, rows.eps) for size in SIZES), ("norm", NORMS.get(rows.norm))):
            if name in taken and value is not None:
                options.setdefault(name, value)
        targeted = rows.target is not None
        found: Tensor = attack(lent, rows.x, rows.wanted, targeted=targeted, **options)  # type: ignore[operator]
        return found
