"""Exact answers and proven lower bounds: the certifiers there are."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry


def _entry(name: str, where: str, summary: str, paper: str = "") -> tuple[str, Entry]:
    return name, Entry(name, f"robustbench_lite.certify.{where}", summary, paper=paper)


CERTIFIERS: dict[str, Entry] = dict(
    [
        _entry("linear", "linear:LinearBounds", "exact distances of linear models, every norm"),
        _entry(
            "trees",
            "trees:TreeBounds",
            "exact distances of a decision tree, every norm",
            "Chen et al. 2019, arXiv:1906.03849",
        ),
        _entry(
            "neighbours",
            "neighbours:NeighbourBounds",
            "distances of nearest neighbours, every norm",
            "Wang et al. 2019, arXiv:1906.03310",
        ),
        _entry(
            "kernels",
            "kernels:KernelBounds",
            "sound distances of machines with a Gaussian kernel, every norm",
        ),
        _entry(
            "networks",
            "networks:NetworkBounds",
            "sound distances of small rectified networks, every norm",
            "Zhang et al. 2018, arXiv:1811.00866; Xu et al. 2021, arXiv:2011.13824",
        ),
        _entry(
            "network_programmes",
            "network_programmes:ProgrammedNetworks",
            "exact distances of networks of few rectified units in linf and l1, with --certify above 1",
            "Tjeng, Xiao & Tedrake 2019, arXiv:1711.07356",
        ),
        _entry(
            "lipschitz",
            "lipschitz:LipschitzBounds",
            "sound distances of larger rectified networks, by spectral norms",
            "Tsuzuku et al. 2018, arXiv:1802.04034",
        ),
        _entry(
            "single_changes",
            "single_changes:SingleChangeBounds",
            "whether one change suffices, l0, for any model of features that take steps",
        ),
        _entry(
            "smoothing",
            "smoothing:SmoothingBounds",
            "probabilistic distances of votes under noise in l2, l1 and linf",
            "Cohen, Rosenfeld & Kolter 2019, arXiv:1902.02918",
        ),
        _entry(
            "ensembles",
            "ensembles:EnsembleBounds",
            "distances of forests and boosting, every norm",
            "Devos, Meert & Davis 2021, arXiv:2006.12858",
        ),
    ]
)
