"""Scikit-learn's estimators and transformers, each as the tensors that decide as it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectorMixin
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.impute import SimpleImputer
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid, RadiusNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    Binarizer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from sklearn.svm import SVC, LinearSVC, NuSVC
from torch import Tensor

from robustbench_lite.models.sklearn.boosted import is_boosted, of_boosted
from robustbench_lite.models.sklearn.forests import TREES, CannotLift, of_trees, only_trees
from robustbench_lite.models.sklearn.gaussian_process import ProcessCore
from robustbench_lite.models.sklearn.kernel import KernelCore
from robustbench_lite.models.sklearn.lifted import Affine, Core, Transform
from robustbench_lite.models.sklearn.neighbours import NeighbourCore, RadiusCore, StoredCore
from robustbench_lite.models.sklearn.smooth import LinearCore, PerceptronCore, QuadraticCore
from robustbench_lite.models.sklearn.transforms import Binned, Normalised, Polynomial, Powered, Quantiles
from robustbench_lite.models.sklearn.votes import (
    CalibratedCore,
    CodeCore,
    Curve,
    DuelCore,
    Isotonic,
    Member,
    RestCore,
    Sigmoids,
    StackCore,
    VoteCore,
)

LINEAR = (
    RidgeClassifier,
    RidgeClassifierCV,
    LogisticRegression,
    Perceptron,
    SGDClassifier,
    LinearSVC,
    LinearDiscriminantAnalysis,
)


# Those whose decision function is the difference of scores, or is known otherwise.
DECIDING = (
    *LINEAR,
    SVC,
    NuSVC,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    QuadraticDiscriminantAnalysis,
    OneVsRestClassifier,
)


def vector(values: object) -> Tensor:
    return torch.tensor(np.asarray(values, dtype=np.float64))


def transform_of(step: BaseEstimator) -> Transform:
    """A fitted transformer, its operations in scikit-learn's order."""
    d = step.n_features_in_ if hasattr(step, "n_features_in_") else 0
    if isinstance(step, StandardScaler):
        mean = step.mean_ if step.with_mean else None
        scale = step.scale_ if step.with_std else None
        return Affine(
            shift=None if mean is None else vector(mean), divisor=None if scale is None else vector(scale)
        )
    if isinstance(step, MinMaxScaler) and not step.clip:
        return Affine(factor=vector(step.scale_), offset=vector(step.min_))
    if isinstance(step, MaxAbsScaler):
        return Affine(divisor=vector(step.scale_))
    if isinstance(step, RobustScaler) and not step.unit_variance:
        centre = vector(step.center_) if step.with_centering else None
        return Affine(shift=centre, divisor=vector(step.scale_) if step.with_scaling else None)
    if isinstance(step, PCA):
        matrix = step.components_
        if step.whiten:
            matrix = matrix / np.sqrt(step.explained_variance_)[:, None]
        return Affine(shift=vector(np.broadcast_to(step.mean_, (d,))), matrix=vector(matrix))
    if isinstance(step, SelectorMixin):
        chosen = np.flatnonzero(step.get_support())
        matrix = np.zeros((len(chosen), d))
        matrix[np.arange(len(chosen)), chosen] = 1.0
        return Affine(matrix=vector(matrix))
    gap = getattr(step, "missing_values", None)
    nothing = isinstance(gap, float) and bool(np.isnan(gap))
    if isinstance(step, SimpleImputer) and nothing and not step.add_indicator and len(step.statistics_) == d:
        return Affine()  # no input of ours is missing
    return _curved(step)


def _curved(step: BaseEstimator) -> Transform:
    """A fitted transformer that is no affine map."""
    d = getattr(step, "n_features_in_", 0)
    if isinstance(step, Normalizer):
        return Normalised(step.norm)
    if isinstance(step, PolynomialFeatures):
        return Polynomial(_factors(step.powers_), d)
    if isinstance(step, PowerTransformer) and not step.standardize:
        return Powered(vector(step.lambdas_), step.method == "box-cox")
    if isinstance(step, QuantileTransformer):
        normal = step.output_distribution == "normal"
        return Quantiles(vector(step.quantiles_.T.copy()), vector(step.references_), normal)
    if isinstance(step, Binarizer):
        return _binary(step.threshold, step.n_features_in_)
    if isinstance(step, KBinsDiscretizer):
        most = max(len(edges) for edges in step.bin_edges_)
        wide, middle = np.full((d, most - 2), np.inf), np.zeros((d, most - 1))
        for row, centre, edges in zip(wide, middle, step.bin_edges_, strict=True):
            row[: len(edges) - 2] = edges[1:-1]
            own = (edges[1:] + edges[:-1]) / 2
            centre[: len(own)] = own
            step_on = max(edges[-1] - edges[0], 1e-9)  # past the last bin of a feature with fewer
            centre[len(own) :] = own[-1] + step_on * np.arange(1, most - len(own))
        bins = () if step.encode == "ordinal" else tuple(int(count) for count in step.n_bins_)
        return Binned(vector(wide), vector(middle), right=True, one_hot=bins)
    raise CannotLift(f"{type(step).__name__} has no lift")


def _factors(powers: np.ndarray) -> Tensor:
    """Which features each product is of (k, degree), as often as its power; one past the last fills up."""
    k, d = powers.shape
    found = np.full((k, max(1, int(powers.sum(1).max()))), d)
    for row, power in zip(found, powers, strict=True):
        of = np.repeat(np.arange(d), power)
        row[: len(of)] = of
    return torch.from_numpy(found)


def transforms_of(step: BaseEstimator) -> list[Transform]:
    """A fitted transformer as one transform after the other."""
    if isinstance(step, PowerTransformer) and step.standardize:
        plain = Powered(vector(step.lambdas_), step.method == "box-cox")
        return [plain, transform_of(step._scaler)]
    return [transform_of(step)]


def core_of(estimator: BaseEstimator, transforms: list[Transform]) -> tuple[Core, list[Transform]]:
    """The core of a classifier, and the transforms that stay in front of it."""
    if isinstance(estimator, LINEAR):
        return _linear(estimator), transforms
    if isinstance(estimator, MultinomialNB | ComplementNB):
        return _naive_bayes(estimator), transforms
    if isinstance(estimator, BernoulliNB):
        return _bernoulli(estimator, transforms)
    if isinstance(estimator, NearestCentroid):
        return _centroids(estimator), transforms
    if isinstance(estimator, SVC | NuSVC):
        return _kernel(estimator), transforms
    if isinstance(estimator, KNeighborsClassifier):
        return _neighbours(estimator), transforms
    if isinstance(estimator, RadiusNeighborsClassifier):
        return _radius(estimator), transforms
    if isinstance(estimator, MLPClassifier):
        weights, biases = (tuple(vector(p) for p in ps) for ps in (estimator.coefs_, estimator.intercepts_))
        return PerceptronCore(weights, biases, estimator.activation), transforms
    if isinstance(estimator, GaussianNB):
        roots = tuple(vector(1 / np.sqrt(variance)) for variance in estimator.var_)
        spread = -0.5 * np.log(2 * np.pi * estimator.var_).sum(1)
        offset = vector(np.log(estimator.class_prior_) + spread)
        return QuadraticCore(vector(estimator.theta_), roots, offset), transforms
    if isinstance(estimator, QuadraticDiscriminantAnalysis):
        pairs = zip(estimator.rotations_, estimator.scalings_, strict=True)
        roots = tuple(vector(rotation * scaling**-0.5) for rotation, scaling in pairs)
        spread = np.array([-0.5 * np.log(scaling).sum() for scaling in estimator.scalings_])
        return QuadraticCore(
            vector(estimator.means_), roots, vector(np.log(estimator.priors_) + spread)
        ), transforms
    if isinstance(estimator, VotingClassifier):
        shares = estimator._weights_not_none or [1.0] * len(estimator.estimators_)
        members = tuple(member_of(one) for one in estimator.estimators_)
        return VoteCore(members, vector(shares), estimator.voting == "soft"), transforms
    if isinstance(estimator, OneVsRestClassifier):
        return _against_the_rest(estimator), transforms
    if is_boosted(estimator):
        return of_boosted(estimator, transforms)
    if isinstance(estimator, TREES) and only_trees(estimator):
        return of_trees(estimator, transforms)
    of_others = _of_others(estimator)
    if of_others is not None:
        return of_others, transforms
    raise CannotLift(f"{type(estimator).__name__} has no lift")


def member_of(estimator: BaseEstimator) -> Member:
    """A part of another estimator: a classifier, or a pipeline that ends in one."""
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    before = [one for step in steps[:-1] if step not in ("passthrough", None) for one in transforms_of(step)]
    core, kept = core_of(steps[-1], before)
    return Member(core, tuple(kept))


def decider_of(estimator: BaseEstimator) -> Member:
    """A part of another estimator that is asked for its `decision_function`."""
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if not isinstance(last, DECIDING):
        raise CannotLift(f"{type(last).__name__} asked for its decision function has no lift")
    return member_of(estimator)


def _of_others(estimator: BaseEstimator) -> Core | None:
    """An estimator that puts others' answers together; None for any other."""
    if isinstance(estimator, BaggingClassifier | AdaBoostClassifier):
        return _weighed(estimator)
    if isinstance(estimator, StackingClassifier):
        said = estimator.stack_method_
        if not set(said) <= {"predict_proba", "decision_function"}:
            raise CannotLift("StackingClassifier on predictions has no lift")
        pairs = zip(estimator.estimators_, said, strict=True)
        members = tuple(member_of(one) if how == "predict_proba" else decider_of(one) for one, how in pairs)
        last = member_of(estimator.final_estimator_)
        return StackCore(members, tuple(estimator.stack_method_), last, estimator.passthrough)
    if isinstance(estimator, CalibratedClassifierCV):
        return _calibrated(estimator)
    if isinstance(estimator, GaussianProcessClassifier):
        return _process(estimator)
    if isinstance(estimator, OneVsOneClassifier | OutputCodeClassifier):
        asked = estimator.estimators_
        if isinstance(estimator, OutputCodeClassifier):  # what is the same of every class decides nothing
            apart = np.ptp(estimator.code_book_, axis=0) > 0
            asked = [one for one, tells in zip(asked, apart, strict=True) if tells]
        members = tuple(decider_of(one) for one in asked)
        if isinstance(estimator, OutputCodeClassifier):
            return CodeCore(members, vector(estimator.code_book_[:, apart]))
        if len(estimator.classes_) == 2 or estimator.pairwise_indices_ is not None:
            raise CannotLift("OneVsOneClassifier of two classes, or on distances, has no lift")
        return DuelCore(members, len(estimator.classes_))
    return None


def _weighed(estimator: BaggingClassifier | AdaBoostClassifier) -> VoteCore:
    """Members by their probabilities where they have some, else by their votes."""
    number, d = len(estimator.classes_), estimator.n_features_in_
    if any(len(one.classes_) != number for one in estimator.estimators_):
        raise CannotLift(f"{type(estimator).__name__} with members that do not know all classes has no lift")
    if isinstance(estimator, AdaBoostClassifier):
        weights = estimator.estimator_weights_[: len(estimator.estimators_)]
        return VoteCore(tuple(member_of(one) for one in estimator.estimators_), vector(weights), soft=False)
    members = []
    for one, chosen in zip(estimator.estimators_, estimator.estimators_features_, strict=True):
        member = member_of(one)
        if not np.array_equal(chosen, np.arange(d)):
            member = Member(member.core, (Affine(matrix=vector(np.eye(d)[chosen])), *member.transforms))
        members.append(member)
    soft = all(hasattr(one, "predict_proba") for one in estimator.estimators_)
    return VoteCore(tuple(members), vector(np.ones(len(members))), soft)


def _calibrated(estimator: CalibratedClassifierCV) -> CalibratedCore:
    parts = estimator.calibrated_classifiers_
    known = all(np.array_equal(part.estimator.classes_, estimator.classes_) for part in parts)
    if estimator.method not in ("sigmoid", "isotonic") or not known:
        raise CannotLift("CalibratedClassifierCV with classes missing, or in another way, has no lift")
    decides = tuple(hasattr(part.estimator, "decision_function") for part in parts)
    pairs = zip(parts, decides, strict=True)
    members = tuple(decider_of(part.estimator) if how else member_of(part.estimator) for part, how in pairs)
    curves = tuple(_curve(part.calibrators) for part in parts)
    return CalibratedCore(members, decides, curves)


def _curve(calibrators: Sequence[BaseEstimator]) -> Curve:
    """Of each class the probability that what is said of it stands for."""
    if not isinstance(calibrators[0], IsotonicRegression):
        return Sigmoids(vector([one.a_ for one in calibrators]), vector([one.b_ for one in calibrators]))
    longest = max(len(one.X_thresholds_) for one in calibrators)
    at, value = (
        vector([np.pad(ends, (0, longest - len(ends)), mode="edge") for ends in knots])
        for knots in zip(*((one.X_thresholds_, one.y_thresholds_) for one in calibrators), strict=True)
    )
    return Isotonic(at, value)


def _process(estimator: GaussianProcessClassifier) -> Core:
    """Of two classes one process, of more one a class against the rest."""
    base = estimator.base_estimator_
    if isinstance(base, OneVsOneClassifier):
        raise CannotLift("GaussianProcessClassifier one against one has no lift")
    if not isinstance(base, OneVsRestClassifier):
        return ProcessCore.of(base)
    members = tuple(Member(ProcessCore.of(one), ()) for one in base.estimators_)
    return RestCore(members, (False,) * len(members))


def _bernoulli(estimator: BernoulliNB, transforms: list[Transform]) -> tuple[Core, list[Transform]]:
    """Log-probabilities of features that are there or not: linear in them."""
    there = np.asarray(estimator.feature_log_prob_)
    missing = np.log(1 - np.exp(there))
    core = LinearCore(vector(there - missing), vector(estimator.class_log_prior_ + missing.sum(1)), True)
    if estimator.binarize is None:
        return core, transforms
    return core, [*transforms, _binary(estimator.binarize, there.shape[1])]


def _binary(threshold: float, features: int) -> Binned:
    """0 up to a threshold and 1 above it."""
    edges = np.full((features, 1), float(threshold))
    return Binned(vector(edges), vector(edges + np.array([-0.25, 0.25])), right=False)


def _against_the_rest(estimator: OneVsRestClassifier) -> RestCore:
    """Members by their decision functions, or where they have none by their probabilities."""
    if estimator.multilabel_:
        raise CannotLift("OneVsRestClassifier of several labels has no lift")
    decides = tuple(hasattr(one, "decision_function") for one in estimator.estimators_)
    pairs = zip(estimator.estimators_, decides, strict=True)
    return RestCore(tuple(decider_of(one) if how else member_of(one) for one, how in pairs), decides)


def _linear(estimator: BaseEstimator) -> LinearCore:
    weight, bias = np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)
    bias = np.broadcast_to(bias, (len(weight),))
    softmax = isinstance(estimator, LogisticRegression | LinearDiscriminantAnalysis)
    one_against_rest = getattr(estimator, "solver", "") == "liblinear" and len(weight) > 1
    if len(weight) == 1:  # one decision: the second class wins above 0
        weight, bias = np.vstack([0 * weight, weight]), np.concatenate([[0.0], bias])
    return LinearCore(vector(weight), vector(bias), softmax and not one_against_rest)


def _naive_bayes(estimator: MultinomialNB | ComplementNB) -> LinearCore:
    """Log-probabilities of counts: linear in them."""
    weight = np.asarray(estimator.feature_log_prob_)
    prior = np.zeros(len(weight)) if isinstance(estimator, ComplementNB) else estimator.class_log_prior_
    return LinearCore(vector(weight), vector(prior), True)


def _centroids(estimator: NearestCentroid) -> LinearCore:
    """Of equal priors and squared distances, the nearest is the largest of 2 c·z - |c|²."""
    prior = np.asarray(getattr(estimator, "class_prior_", [1.0]))  # which older ones do not have
    if estimator.metric != "euclidean" or np.ptp(prior) > 1e-12:
        raise CannotLift("NearestCentroid but of Euclidean distances and equal priors has no lift")
    centre = np.asarray(estimator.centroids_, dtype=np.float64)
    return LinearCore(vector(2 * centre), vector(-np.square(centre).sum(1)))


def _kernel(estimator: SVC | NuSVC) -> KernelCore:
    if estimator.kernel not in ("linear", "rbf", "poly", "sigmoid"):
        raise CannotLift(f"an SVC with kernel {estimator.kernel!r} has no lift")
    if estimator.break_ties:
        raise CannotLift("an SVC with break_ties=True has no lift")
    classes = len(estimator.classes_)
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    ends = np.concatenate([[0], np.cumsum(estimator.n_support_)])
    dual = estimator._dual_coef_
    coefficients = np.zeros((len(estimator.support_vectors_), len(pairs)))
    for p, (i, j) in enumerate(pairs):
        of_i, of_j = (slice(ends[c], ends[c + 1]) for c in (i, j))
        coefficients[of_i, p] = dual[j - 1, of_i]
        coefficients[of_j, p] = dual[i, of_j]
    first, second = (torch.tensor([pair[side] for pair in pairs]) for side in (0, 1))
    return KernelCore(
        vector(estimator.support_vectors_),
        vector(coefficients),
        vector(estimator._intercept_),
        first,
        second,
        classes,
        estimator.kernel,
        float(estimator._gamma),
        float(estimator.coef0),
        float(estimator.degree),
    )


def _neighbours(estimator: KNeighborsClassifier) -> NeighbourCore:
    k = estimator.n_neighbors
    core = NeighbourCore(*_stored(estimator), 1.0, k)
    return replace(core, width=_width(core, k))


def _radius(estimator: RadiusNeighborsClassifier) -> RadiusCore:
    """Neighbours within a radius; the class where there are none has to be one of its own."""
    alone = np.flatnonzero(np.isin(estimator.classes_, np.atleast_1d(estimator.outlier_label_)))
    if estimator.outlier_label_ is None or not len(alone):
        raise CannotLift("RadiusNeighborsClassifier whose outlier_label is none of its classes has no lift")
    core = RadiusCore(*_stored(estimator), 1.0, float(estimator.radius), int(alone[0]))
    return replace(core, width=_width(core, 5))


def _stored(
    estimator: KNeighborsClassifier | RadiusNeighborsClassifier,
) -> tuple[Tensor, Tensor, int, float, bool, bool]:
    """What its neighbours are and how far they are, as `StoredCore` takes it."""
    metric, title = estimator.effective_metric_, type(estimator).__name__
    power = {"euclidean": 2.0, "manhattan": 1.0, "chebyshev": np.inf}.get(metric)
    if metric == "minkowski":
        power = float(estimator.effective_metric_params_.get("p", 2))
    if power is None or estimator.weights not in ("uniform", "distance"):
        raise CannotLift(f"{title} with metric {metric!r} and weights {estimator.weights!r} has no lift")
    if isinstance(estimator.classes_, list):
        raise CannotLift(f"{title} of several labels has no lift")
    labels = torch.as_tensor(np.asarray(estimator._y)).long()
    expanded = power == 2 and estimator._fit_method == "brute"
    weighed = estimator.weights == "distance"
    return vector(estimator._fit_X), labels, len(estimator.classes_), float(power), weighed, expanded


def _width(core: StoredCore, k: int) -> float:
    """A quarter of a typical distance to the k-th neighbour."""
    some = core.stored[:: max(1, len(core.stored) // 500)]
    near = core.distances(some).topk(min(k + 1, len(core.stored)), dim=1, largest=False).values
    return float(near[:, -1].median()) / 4 or 1.0
