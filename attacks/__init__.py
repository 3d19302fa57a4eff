"""The attacks: one file each, mathematics only; the driver does the rest."""

from __future__ import annotations

from robustbench_lite.core.registry import Entry


def _entry(
    name: str, where: str, summary: str, access: str, norms: str, paper: str = ""
) -> tuple[str, Entry]:
    return name, Entry(name, f"robustbench_lite.attacks.{where}", summary, access, norms, paper)


ATTACKS: dict[str, Entry] = dict(
    [
        _entry("acg", "fixed_budget.acg:ACG", "auto-pgd with conjugate directions", "gradient", "l2 linf", "Yamamura et al. 2022, arXiv:2206.09628"),
        _entry("admix", "transfer.copies:Admix", "momentum on copies mixed with other classes", "gradient", "l2 linf", "Wang et al. 2021, arXiv:2102.00436"),
        _entry("alma", "minimum_norm.alma:ALMA", "distance under a constraint: an augmented Lagrangian", "gradient", "l1 l2", "Rony et al. 2021, arXiv:2011.11857"),
        _entry("alma_prox", "dense.alma_prox:ALMAProx", "smallest linf change of nearly all positions: an augmented Lagrangian", "gradient", "linf", "Rony, Pesquet & Ben Ayed 2023, arXiv:2206.07179"),
        _entry("apgd", "fixed_budget.apgd:APGD", "gradient steps that choose their own size", "gradient", "l1 l2 linf", "Croce & Hein 2020, arXiv:2003.01690"),
        _entry("asma", "dense.asma:ASMA", "towards a mask, by the scores that are not there yet", "gradient", "l2", "Ozbulak, Van Messem & De Neve 2019, arXiv:1907.13124"),
        _entry("auto", "composite.auto:Auto", "the strongest for a model and threat, one after the other", "decision", "l0 l1 l2 linf", "Croce & Hein 2020, arXiv:2003.01690"),
        _entry("bandits", "score_based.bandits:Bandits", "a belief about the gradient that queries correct", "score", "l2 linf", "Ilyas, Engstrom & Madry 2019, arXiv:1807.07978"),
        _entry("bim", "fixed_budget.bim:BIM", "iterative FGSM in steps of one grey level", "gradient", "linf", "Kurakin et al. 2016, arXiv:1607.02533"),
        _entry("blended_noise", "decision_based.paths:BlendedNoise", "towards an image of noise", "decision", "l1 l2 linf", "Rauber, Brendel & Bethge 2017, arXiv:1707.04131"),
        _entry("blur", "decision_based.paths:Blur", "a Gaussian that grows", "decision", "l1 l2 linf", "Rauber, Brendel & Bethge 2017, arXiv:1707.04131"),
        _entry("boundary", "decision_based.boundary:Boundary", "random steps around the sample and towards it", "decision", "l2", "Brendel, Rauber & Bethge 2018, arXiv:1712.04248"),
        _entry("brendel_bethge", "minimum_norm.brendel_bethge:BrendelBethge", "along the boundary towards the sample", "gradient", "l1 l2 linf", "Brendel et al. 2019, arXiv:1907.01003"),
        _entry("cma", "score_based.cma:CMA", "a normal distribution of coarse patterns that learns its spread", "score", "l2 linf", "Meunier et al. 2019, arXiv:1910.02244"),
        _entry("contrast", "decision_based.paths:Contrast", "towards the middle of the box", "decision", "l1 l2 linf", "Rauber, Brendel & Bethge 2017, arXiv:1707.04131"),
        _entry("cornersearch", "sparse.cornersearch:CornerSearch", "single pixels ranked, then sets of the best", "score", "l0", "Croce & Hein 2019, arXiv:1909.05040"),
        _entry("corruption", "corruptions.corruption:Corruption", "noise, blur, weather, compression at five severities; threat box", "decision", "", "Hendrycks & Dietterich 2019, arXiv:1903.12261"),
        ("curve", Entry("curve", "robustbench_lite.attacks.composite.curve:Curve", "curve(NAME): the smallest eps at which another attack succeeds", "gradient", "l1 l2 linf", first="attack", inner="one")),
        _entry("cw", "minimum_norm.cw:CW", "distance against margin, weighed by search", "gradient", "l0 l2 linf", "Carlini & Wagner 2017, arXiv:1608.04644"),
        _entry("dag", "dense.dag:DAG", "all positions that are not changed yet, at once", "gradient", "l2 linf", "Xie et al. 2017, arXiv:1703.08603"),
        _entry("ddn", "minimum_norm.ddn:DDN", "smallest l2 perturbation: direction and norm apart", "gradient", "l2", "Rony et al. 2018, arXiv:1811.09600"),
        _entry("deepfool", "minimum_norm.deepfool:DeepFool", "to the nearest face, linearised repeatedly", "gradient", "l2 linf", "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599"),
        _entry("dense_pdpgd", "dense.primal_dual:DensePDPGD", "smallest change with a weight for every position", "gradient", "l1 linf", "Matyasko & Chau 2021, arXiv:2106.01538"),
        _entry("difgsm", "transfer.copies:DIFGSM", "momentum on inputs shrunk and moved at random", "gradient", "l2 linf", "Xie et al. 2019, arXiv:1803.06978"),
        _entry("ead", "minimum_norm.ead:EAD", "C&W's objective with an l1 term", "gradient", "l1 l2", "Chen et al. 2018, arXiv:1709.04114"),
        _entry("evolutionary", "decision_based.evolutionary:Evolutionary", "one parent whose steps learn their features", "decision", "l2", "Dong et al. 2019, arXiv:1904.04433"),
        _entry("exact", "structure.exact:Exact", "the smallest perturbation of linear models, trees, forests, neighbours", "structure", "l0 l1 l2 linf", "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599; Chen et al. 2019, arXiv:1906.03849"),
        _entry("fab", "minimum_norm.fab:FAB", "smallest perturbation, class by class", "gradient", "l1 l2 linf", "Croce & Hein 2020, arXiv:1907.02044"),
        _entry("few_pixels", "sparse.few_pixels:FewPixels", "the best single pixel, then the next, near those", "score", "l0", "Narodytska & Kasiviswanathan 2017, arXiv:1612.06299"),
        _entry("ffgsm", "fixed_budget.rfgsm:FFGSM", "a random point, then one long step", "gradient", "l1 l2 linf", "Wong, Rice & Kolter 2020, arXiv:2001.03994"),
        _entry("fgsm", "fixed_budget.fgsm:FGSM", "one step along the gradient's sign", "gradient", "l1 l2 linf", "Goodfellow et al. 2014, arXiv:1412.6572"),
        _entry("fmn", "minimum_norm.fmn:FMN", "smallest perturbation: a ball that follows the boundary", "gradient", "l0 l1 l2 linf", "Pintor et al. 2021, arXiv:2102.12827"),
        _entry("fooling", "fooling.fooling:Fooling", "images of nothing that the model is sure of; threat box", "score", "", "Nguyen et al. 2014, arXiv:1412.1897"),
        _entry("genattack", "score_based.genattack:GenAttack", "a small population that breeds", "score", "linf", "Alzantot et al. 2019, arXiv:1805.11090"),
        _entry("geoda", "decision_based.geoda:GeoDA", "the boundary's normal, followed from the sample", "decision", "l2 linf", "Rahmati et al. 2020, arXiv:2003.06468"),
        _entry("grid", "grid:Grid", "every combination of a transformation's parameters", "decision", "", "Engstrom et al. 2019, arXiv:1712.02779"),
        _entry("hopskipjump", "decision_based.hopskipjump:HopSkipJump", "along the boundary, by decisions alone", "decision", "l2 linf", "Chen, Jordan & Wainwright 2019, arXiv:1904.02144"),
        _entry("iterative", "fixed_budget.bim:Iterative", "FGSM in small steps; targeted too", "gradient", "l1 l2 linf", "Kurakin et al. 2016, arXiv:1607.02533"),
        _entry("jitter", "fixed_budget.jitter:Jitter", "pgd on noisy softmaxes of scaled scores", "gradient", "l1 l2 linf", "Schwinn et al. 2021, arXiv:2105.10304"),
        _entry("jsma", "sparse.saliency:JSMA", "pixel after pixel, by the saliency map", "gradient", "l0", "Papernot et al. 2016, arXiv:1511.07528"),
        _entry("lbfgs", "minimum_norm.lbfgs:LBFGS", "the first attack: box-constrained L-BFGS", "gradient", "l2", "Szegedy et al. 2013, arXiv:1312.6199"),
        _entry("leaf_tuple", "structure.leaf_tuple:LeafTuple", "from leaf to leaf of forests and boosting", "structure", "l0 l1 l2 linf", "Zhang, Zhang & Hsieh 2020, arXiv:2010.11598"),
        _entry("linear_demo", "structure.linear_demo:LinearDemo", "a linear model's exact worst case, in closed form", "structure", "l0 l1 l2 linf", "Goodfellow et al. 2014, arXiv:1412.6572"),
        _entry("mifgsm", "fixed_budget.mifgsm:MIFGSM", "iterative FGSM with momentum", "gradient", "l2 linf", "Dong et al. 2018, arXiv:1710.06081"),
        _entry("nattack", "score_based.nattack:NAttack", "a distribution of perturbations that learns", "score", "l2 linf", "Li et al. 2019, arXiv:1905.00441"),
        _entry("nes", "score_based.spsa:NES", "gradients estimated along normal directions", "score", "l2 linf", "Ilyas et al. 2018, arXiv:1804.08598"),
        _entry("newtonfool", "minimum_norm.newtonfool:NewtonFool", "Newton's steps on the class's probability", "gradient", "l2", "Jang et al. 2017, doi:10.1145/3134600.3134635"),
        _entry("nifgsm", "fixed_budget.mifgsm:NIFGSM", "iterative FGSM with momentum that looks ahead", "gradient", "l2 linf", "Lin et al. 2020, arXiv:1908.06281"),
        _entry("noise", "noise:Noise", "random points of the ball: the control", "decision", "l0 l1 l2 linf", "Carlini et al. 2019, arXiv:1902.06705"),
        ("oblivious", Entry("oblivious", "robustbench_lite.attacks.composite.oblivious:Oblivious", "oblivious(NAME): another attack, on the model behind a defense", "gradient", "l1 l2 linf", "Athalye et al. 2018, arXiv:1802.00420", first="attack", inner="one")),
        _entry("one_pixel", "sparse.one_pixel:OnePixel", "few pixels, by differential evolution or exhaustively", "score", "l0", "Su et al. 2017, arXiv:1710.08864"),
        _entry("opt", "decision_based.sign_opt:Opt", "the direction of the nearest boundary, measured", "decision", "l2 linf", "Cheng et al. 2019, arXiv:1807.04457"),
        _entry("parsimonious", "score_based.parsimonious:Parsimonious", "blocks at either end of the ball, lazily and greedily", "score", "linf", "Moon, An & Song 2019, arXiv:1905.06635"),
        _entry("patch", "universal.patch:Patch", "one square or disc for every image and place", "gradient", "l0", "Brown et al. 2017, arXiv:1712.09665"),
        _entry("pdgd", "minimum_norm.primal_dual:PDGD", "the weights of distance and margin as a player", "gradient", "l2", "Matyasko & Chau 2021, arXiv:2106.01538"),
        _entry("pdpgd", "minimum_norm.primal_dual:PDPGD", "the same with the distance's proximal operator", "gradient", "l1 l2", "Matyasko & Chau 2021, arXiv:2106.01538"),
        _entry("pgd", "fixed_budget.pgd:PGD", "projected gradient descent from random points", "gradient", "l1 l2 linf", "Madry et al. 2018, arXiv:1706.06083"),
        _entry("pgd_l0", "sparse.pgd_l0:PGDL0", "gradient steps of which few pixels are kept", "gradient", "l0", "Croce & Hein 2019, arXiv:1909.05040"),
        _entry("pifgsm", "transfer.patchwise:PIFGSM", "long steps, what is cut off handed to neighbours", "gradient", "linf", "Gao et al. 2020, arXiv:2007.06765"),
        _entry("pixle", "sparse.pixle:Pixle", "pixels that take other pixels' values", "score", "l0", "Pomponi, Scardapane & Uncini 2022, arXiv:2202.02236"),
        _entry("pointwise", "decision_based.pointwise:Pointwise", "pixel after pixel back to the sample", "decision", "l0 l1", "Schott et al. 2019, arXiv:1805.09190"),
        _entry("procedural", "universal.procedural:Procedural", "a pattern of waves, one for every sample", "decision", "l2 linf", "Co et al. 2019, arXiv:1810.00470"),
        _entry("qeba", "decision_based.hopskipjump:QEBA", "hopskipjump among coarse images", "decision", "l2 linf", "Li et al. 2020, arXiv:2005.14137"),
        _entry("rays", "decision_based.rays:RayS", "corners turned block by block, by decisions alone", "decision", "linf", "Chen & Gu 2020, arXiv:2006.12792"),
        _entry("rfgsm", "fixed_budget.rfgsm:RFGSM", "a random corner, then one step", "gradient", "linf", "Tramèr et al. 2018, arXiv:1705.07204"),
        _entry("salt_and_pepper", "decision_based.paths:SaltAndPepper", "more and more pixels at either end of the box", "decision", "l0 l1 l2 linf", "Rauber, Brendel & Bethge 2017, arXiv:1707.04131"),
        _entry("sigma_zero", "sparse.sigma_zero:SigmaZero", "fewest pixels: a smooth count and a threshold that adapts", "gradient", "l0", "Cinà et al. 2025, arXiv:2402.01879"),
        _entry("sign_flip", "decision_based.sign_flip:SignFlip", "a perturbation that shrinks and turns its signs", "decision", "linf", "Chen et al. 2020, doi:10.1007/978-3-030-58555-6_17"),
        _entry("sign_opt", "decision_based.sign_opt:SignOpt", "the direction of the nearest boundary, by signs", "decision", "l2 linf", "Cheng et al. 2020, arXiv:1909.10773"),
        _entry("signhunter", "score_based.signhunter:SignHunter", "the gradient's signs, block by block", "score", "l2 linf", "Al-Dujaili & O'Reilly 2020, arXiv:1902.06894"),
        _entry("simba", "score_based.simba:SimBA", "one feature after the other, up or down", "score", "l2 linf", "Guo et al. 2019, arXiv:1905.07121"),
        _entry("sinifgsm", "transfer.copies:SINIFGSM", "momentum that looks ahead, on copies at several scales", "gradient", "l2 linf", "Lin et al. 2020, arXiv:1908.06281"),
        _entry("sparse_rs", "sparse.sparse_rs:SparseRS", "a set of pixels that exchanges its members", "score", "l0", "Croce et al. 2022, arXiv:2006.12834"),
        _entry("sparsefool", "sparse.sparsefool:SparseFool", "DeepFool's plane by the fewest features", "gradient", "l0 l1", "Modas et al. 2019, arXiv:1811.02248"),
        _entry("spgd", "sparse.spgd:SPGD", "which pixels, and their values, each by gradients", "gradient", "l0", "Zhong, Huang & Liu 2024, arXiv:2405.05075"),
        _entry("spsa", "score_based.spsa:SPSA", "gradients estimated along random signs", "score", "l2 linf", "Uesato et al. 2018, arXiv:1802.05666"),
        _entry("square", "score_based.square:Square", "random squares; asks for scores only", "score", "l2 linf", "Andriushchenko et al. 2020, arXiv:1912.00049"),
        _entry("substitute", "transfer.substitute:Substitute", "a network learnt from decisions, attacked instead", "decision", "l2 linf", "Papernot et al. 2017, arXiv:1602.02697"),
        _entry("superdeepfool", "minimum_norm.superdeepfool:SuperDeepFool", "DeepFool, and back onto the boundary's normal", "gradient", "l1 l2 linf", "Abdolahpourrostam et al. 2024, arXiv:2303.12481"),
        _entry("surfree", "decision_based.surfree:SurFree", "circles through the sample in random planes", "decision", "l2", "Maho, Furon & Le Merrer 2021, arXiv:2011.12807"),
        _entry("tifgsm", "transfer.copies:TIFGSM", "momentum with smoothed gradients", "gradient", "l2 linf", "Dong et al. 2019, arXiv:1904.02884"),
        _entry("trust_region", "minimum_norm.trust_region:TrustRegion", "steps as long as the slope holds", "gradient", "l2 linf", "Yao et al. 2019, arXiv:1812.06371"),
        _entry("universal", "universal.universal:Universal", "one perturbation for every sample", "gradient", "l2 linf", "Moosavi-Dezfooli et al. 2016, arXiv:1610.08401"),
        _entry("upgd", "fixed_budget.upgd:UPGD", "pgd with the steps of an optimiser", "gradient", "l1 l2 linf", "Madry et al. 2018, arXiv:1706.06083"),
        _entry("vfga", "sparse.saliency:VFGA", "pixel after pixel, its value by vote", "gradient", "l0", "Hajri et al. 2020, arXiv:2011.12423"),
        _entry("vmifgsm", "transfer.variance:VMIFGSM", "momentum less the variance of gradients around", "gradient", "l2 linf", "Wang & He 2021, arXiv:2103.15571"),
        _entry("vnifgsm", "transfer.variance:VNIFGSM", "the same, looking ahead", "gradient", "l2 linf", "Wang & He 2021, arXiv:2103.15571"),
        _entry("zoo", "score_based.zoo:ZOO", "distance against margin, coordinate by coordinate", "score", "l2", "Chen et al. 2017, arXiv:1708.03999"),
    ]
)  # fmt: skip

PEERS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("advlib", "robustbench_lite.attacks.peers.advlib:AdversarialLibrary", "of adversarial-library: advlib(ddn,steps=100)", inner="foreign"),
        Entry("art", "robustbench_lite.attacks.peers.art:ART", "of the Adversarial Robustness Toolbox: art(HopSkipJump,max_iter=20)", inner="foreign"),
        Entry("foolbox", "robustbench_lite.attacks.peers.foolbox:Foolbox", "of Foolbox: foolbox(LinfPGD,steps=40)", inner="foreign"),
        Entry("torchattacks", "robustbench_lite.attacks.peers.torchattacks:Torchattacks", "of torchattacks: torchattacks(PGD,steps=40)", inner="foreign"),
    )
}  # fmt: skip
