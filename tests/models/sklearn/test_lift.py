"""Lifted estimators decide exactly as scikit-learn does, on data, on thresholds and on ties."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skops.io
import torch
from sklearn import datasets
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_selection import SelectKBest
from sklearn.gaussian_process import GaussianProcessClassifier, kernels
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    LogisticRegression,
    Perceptron,
    Ridge,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier
from sklearn.naive_bayes import BernoulliNB, ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid, RadiusNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
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
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.model import Access
from robustbench_lite.core.structure import Boxes, Linear
from robustbench_lite.models.sklearn.estimators import transform_of
from robustbench_lite.models.sklearn.forests import CannotLift, largest_below
from robustbench_lite.models.sklearn.lift import prove
from robustbench_lite.models.sklearn.lifted import Affine, Lifted
from robustbench_lite.models.sklearn.neighbours import NeighbourCore
from robustbench_lite.models.sklearn.trees import TreeCore
from tests.conftest import attack_with, run_with

ESTIMATORS: dict[str, Callable[[], BaseEstimator]] = {
    "ridge": RidgeClassifier,
    "ridge_cv": RidgeClassifierCV,
    "logistic": lambda: LogisticRegression(max_iter=200),
    "perceptron": Perceptron,
    "sgd": SGDClassifier,
    "linear_svc": LinearSVC,
    "lda": LinearDiscriminantAnalysis,
    "svc_rbf": SVC,
    "svc_linear": lambda: SVC(kernel="linear"),
    "svc_poly": lambda: SVC(kernel="poly", degree=3, coef0=0.5),
    "svc_sigmoid": lambda: SVC(kernel="sigmoid"),
    "svc_ovo": lambda: SVC(decision_function_shape="ovo"),
    "nu_svc": lambda: NuSVC(nu=0.1),
    "knn": KNeighborsClassifier,
    "knn_even": lambda: KNeighborsClassifier(4),
    "knn_distance": lambda: KNeighborsClassifier(3, weights="distance"),
    "knn_l1": lambda: KNeighborsClassifier(3, p=1),
    "knn_p3": lambda: KNeighborsClassifier(3, p=3),
    "knn_chebyshev": lambda: KNeighborsClassifier(2, metric="chebyshev"),
    "centroid": NearestCentroid,
    "tree": lambda: DecisionTreeClassifier(random_state=0),
    "extra_tree": lambda: ExtraTreeClassifier(random_state=0),
    "forest": lambda: RandomForestClassifier(20, random_state=0),
    "forest_leaves": lambda: RandomForestClassifier(20, min_samples_leaf=5, random_state=0),
    "extra_trees": lambda: ExtraTreesClassifier(20, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=10, random_state=0),
    "histogram_boosting": lambda: HistGradientBoostingClassifier(max_iter=10, random_state=0),
    "naive_bayes": lambda: GaussianNB(var_smoothing=1e-2),
    "quadratic": lambda: QuadraticDiscriminantAnalysis(reg_param=0.1),
    "adaboost": lambda: AdaBoostClassifier(n_estimators=15, random_state=0),
    "adaboost_deep": lambda: AdaBoostClassifier(
        DecisionTreeClassifier(max_depth=3), n_estimators=10, random_state=0
    ),
    "bagging": lambda: BaggingClassifier(n_estimators=12, max_features=0.5, random_state=0),
    "scaled_bagging": lambda: make_pipeline(StandardScaler(), BaggingClassifier(random_state=0)),
    "mlp": lambda: MLPClassifier((20,), max_iter=30, random_state=0),
    "mlp_deep": lambda: MLPClassifier((9, 9), activation="tanh", max_iter=30, random_state=0),
    "scaled_logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)),
    "scaled_svc": lambda: make_pipeline(MinMaxScaler((-1, 1)), SVC()),
    "scaled_tree": lambda: make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)),
    "maxabs_forest": lambda: make_pipeline(MaxAbsScaler(), RandomForestClassifier(10, random_state=0)),
    "scaled_histogram": lambda: make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=5)),
    "pca_tree": lambda: make_pipeline(PCA(5), DecisionTreeClassifier(random_state=0)),
    "pca_white_logistic": lambda: make_pipeline(StandardScaler(), PCA(5, whiten=True), LogisticRegression()),
    "pca_knn": lambda: make_pipeline(PCA(5), KNeighborsClassifier()),
    "multinomial": MultinomialNB,
    "complement": ComplementNB,
    "selected": lambda: make_pipeline(SelectKBest(k=3), LogisticRegression()),
    "selected_tree": lambda: make_pipeline(
        SimpleImputer(), SelectKBest(k=3), DecisionTreeClassifier(random_state=0)
    ),
    "searched": lambda: GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    "vote_soft": lambda: VotingClassifier(
        [
            ("l", LogisticRegression()),
            ("f", RandomForestClassifier(5, random_state=0)),
            ("n", make_pipeline(StandardScaler(), GaussianNB(var_smoothing=1e-2))),
        ],
        voting="soft",
        weights=[1, 2, 0.5],
    ),
    "vote_hard": lambda: VotingClassifier(
        [("l", LogisticRegression()), ("s", SVC()), ("t", DecisionTreeClassifier(random_state=0))]
    ),
    "rest_logistic": lambda: OneVsRestClassifier(make_pipeline(StandardScaler(), LogisticRegression())),
    "rest_svc": lambda: OneVsRestClassifier(SVC()),
}


def _behind(*steps: BaseEstimator) -> BaseEstimator:
    return make_pipeline(*steps, LogisticRegression(max_iter=300))


CURVED: dict[str, Callable[[], BaseEstimator]] = {
    "robust_scaler": lambda: _behind(RobustScaler()),
    "normalised_l2": lambda: _behind(Normalizer()),
    "normalised_l1": lambda: _behind(StandardScaler(), Normalizer("l1")),
    "normalised_max": lambda: make_pipeline(Normalizer("max"), DecisionTreeClassifier(random_state=0)),
    "polynomial": lambda: _behind(PCA(4), PolynomialFeatures(3)),
    "interactions": lambda: _behind(PCA(4), PolynomialFeatures(2, interaction_only=True, include_bias=False)),
    "power": lambda: _behind(PowerTransformer()),
    "power_plain": lambda: make_pipeline(PowerTransformer(standardize=False), SVC()),
    "box_cox": lambda: _behind(MinMaxScaler((0.1, 1.1)), PowerTransformer("box-cox")),
    "quantiles": lambda: _behind(QuantileTransformer(n_quantiles=50)),
    "quantiles_normal": lambda: _behind(
        QuantileTransformer(n_quantiles=20, output_distribution="normal"), MinMaxScaler()
    ),
    "binarised": lambda: _behind(Binarizer(threshold=0.4)),
    "bins": lambda: _behind(KBinsDiscretizer(5, encode="ordinal", quantile_method="averaged_inverted_cdf")),
    "bins_one_hot": lambda: make_pipeline(
        KBinsDiscretizer(4, strategy="uniform"), RandomForestClassifier(10, random_state=0)
    ),
    "bernoulli": lambda: BernoulliNB(binarize=0.4),
    "bagged_logistic": lambda: BaggingClassifier(LogisticRegression(), max_features=0.6, random_state=0),
    "bagged_knn": lambda: BaggingClassifier(KNeighborsClassifier(), n_estimators=5, random_state=0),
    "bagged_svc": lambda: BaggingClassifier(LinearSVC(), n_estimators=5, random_state=0),
    "boosted_logistic": lambda: AdaBoostClassifier(LogisticRegression(), n_estimators=6, random_state=0),
    "stack": lambda: StackingClassifier(
        [
            ("l", make_pipeline(StandardScaler(), LinearSVC())),
            ("t", RandomForestClassifier(5, random_state=0)),
            ("k", KNeighborsClassifier()),
        ],
        LogisticRegression(),
        cv=3,
    ),
    "stack_passed": lambda: StackingClassifier(
        [("n", GaussianNB(var_smoothing=1e-2))],
        DecisionTreeClassifier(random_state=0),
        passthrough=True,
        cv=3,
    ),
    "radius": lambda: RadiusNeighborsClassifier(0.6, outlier_label="most_frequent"),
    "radius_distance": lambda: RadiusNeighborsClassifier(1.1, weights="distance", outlier_label=1, p=1),
    "radius_brute": lambda: RadiusNeighborsClassifier(0.5, outlier_label=0, algorithm="brute"),
    "process": lambda: GaussianProcessClassifier(1.0 * kernels.RBF(1.5), optimizer=None),
    "process_matern": lambda: make_pipeline(
        PCA(4),
        GaussianProcessClassifier(
            kernels.ConstantKernel(2.0) * kernels.Matern([0.5, 1.0, 1.5, 2.0], nu=1.5)
            + kernels.WhiteKernel(0.1),
            optimizer=None,
        ),
    ),
    "process_others": lambda: GaussianProcessClassifier(
        kernels.RationalQuadratic(1.0, 0.7) * kernels.DotProduct(0.5) ** 2
        + kernels.ExpSineSquared(2.0, 3.0)
        + kernels.Matern(1.0, nu=0.5)
        + kernels.Matern(1.0, nu=2.5)
        + kernels.Matern(1.0, nu=np.inf),
        optimizer=None,
    ),
    "rest_forest": lambda: OneVsRestClassifier(RandomForestClassifier(5, random_state=0)),
    "isotonic_svc": lambda: CalibratedClassifierCV(LinearSVC(), method="isotonic", cv=3),
    "isotonic_forest": lambda: CalibratedClassifierCV(
        RandomForestClassifier(8, random_state=0), method="isotonic", cv=2
    ),
    "calibrated_svc": lambda: CalibratedClassifierCV(LinearSVC(), cv=3),
    "calibrated_forest": lambda: CalibratedClassifierCV(RandomForestClassifier(8, random_state=0), cv=2),
    "calibrated_kernel": lambda: CalibratedClassifierCV(SVC(), cv=2),
    "stacked_kernel": lambda: StackingClassifier([("s", SVC())], LogisticRegression(), cv=2),
    "codes_of_kernels": lambda: OutputCodeClassifier(SVC(), random_state=0),
    "codes": lambda: OutputCodeClassifier(LogisticRegression(), code_size=3, random_state=0),
    "calibrated_code": lambda: OutputCodeClassifier(LinearSVC(), random_state=0),
}


def table(name: str) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Features in [0, 1], exactly representable as float32; classes; the shape of one sample."""
    if name == "random":
        rng = np.random.default_rng(0)
        x = rng.integers(0, 5, (200, 6)) / 4  # coarse, so that distances and votes tie
        return x, rng.integers(0, 3, 200), (6,)
    found = getattr(datasets, f"load_{name}")()
    span = np.ptp(found.data, axis=0)
    x = (found.data - found.data.min(0)) / np.where(span > 0, span, 1)
    x = x.astype(np.float32).astype(np.float64)
    return (x[:700], found.target[:700], (1, 8, 8)) if name == "digits" else (x, found.target, (x.shape[1],))


def differ(model: Lifted, estimator: BaseEstimator, x: np.ndarray) -> int:
    """Samples decided otherwise, without those whose neighbours tie."""
    held = torch.from_numpy(x).float().reshape(-1, *model.input_shape)
    tied = model.core.undecided(model.features(held)).numpy()
    return int(((decisions(model, x) != estimator.predict(x)) & ~tied).sum())


def decisions(model: rb.Model, x: np.ndarray) -> np.ndarray:
    held = torch.from_numpy(x).float().reshape(-1, *model.input_shape)
    return model.scores(held).argmax(1).numpy()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", ["digits", "breast_cancer", "wine", "random"])
@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_decisions_are_the_estimators(name: str, data: str) -> None:
    x, y, shape = table(data)
    estimator = ESTIMATORS[name]().fit(x, y)
    model = rb.lift(estimator, shape, x)
    assert differ(model, estimator, x) == 0
    rng = np.random.default_rng(1)
    other = rng.random(x.shape).astype(np.float32).astype(np.float64)
    mixed = (x + x[rng.permutation(len(x))]) / 2  # halfway between samples: where neighbours tie
    mixed = mixed.astype(np.float32).astype(np.float64)
    for points in (other, mixed):
        assert differ(model, estimator, points) == 0
    held = torch.from_numpy(other).float().reshape(-1, *shape)
    if data != "random" and name != "knn_chebyshev":  # away from the data nothing ties
        assert not model.core.undecided(model.features(held)).any()
    assert model.fingerprint() == rb.lift(estimator, shape, x).fingerprint()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", ["breast_cancer", "wine"])
@pytest.mark.parametrize("name", list(CURVED))
def test_steps_that_are_not_affine_and_estimators_of_estimators_decide_as_theirs(
    name: str, data: str
) -> None:
    x, y, shape = table(data)
    estimator = CURVED[name]().fit(x, y)
    model = rb.lift(estimator, shape, x)
    rng = np.random.default_rng(1)
    for points in (x, rng.random(x.shape), (x + x[rng.permutation(len(x))]) / 2):
        assert differ(model, estimator, points.astype(np.float32).astype(np.float64)) == 0
    assert model.fingerprint() == rb.lift(estimator, shape, x).fingerprint()
    held = torch.from_numpy(x[:20]).float().requires_grad_()
    (slope,) = torch.autograd.grad(model.gradient_scores(held).diff(dim=1).sum(), held)
    assert slope.isfinite().all()
    assert (slope != 0).any()


def test_one_against_one_counts_duels_and_says_when_there_is_no_lift() -> None:
    x, y, shape = table("wine")
    estimator = OneVsOneClassifier(LinearSVC()).fit(x, y)
    assert differ(rb.lift(estimator, shape, x), estimator, x) == 0
    x, y, shape = table("breast_cancer")
    with pytest.raises(CannotLift, match="of two classes"):
        rb.lift(OneVsOneClassifier(LinearSVC()).fit(x, y), shape, x)
    for member in (AdaBoostClassifier(n_estimators=3), BaggingClassifier(LinearSVC(), 2)):
        with pytest.raises(CannotLift, match="asked for its decision function"):
            rb.lift(CalibratedClassifierCV(member, cv=2).fit(x, y), shape, x)
    predicting = StackingClassifier([("t", LinearSVC())], LogisticRegression(), stack_method="predict", cv=2)
    with pytest.raises(CannotLift, match="on predictions"):
        rb.lift(predicting.fit(x, y), shape, x)
    with pytest.raises(CannotLift, match="equal priors"):
        rb.lift(NearestCentroid(priors="empirical").fit(x, y), shape, x)
    nobody = RadiusNeighborsClassifier(0.3).fit(x, y)
    with pytest.raises(CannotLift, match="outlier_label is none of its classes"):
        rb.lift(nobody, shape, x)
    for odd, why in ((kernels.Matern(nu=0.7), "the kernel"), (kernels.PairwiseKernel(), "the kernel")):
        process = GaussianProcessClassifier(odd, optimizer=None).fit(x[:40], y[:40])
        with pytest.raises(CannotLift, match=why):
            rb.lift(process, shape, x)


def test_shares_too_small_to_add_to_a_half_decide_all_the_same() -> None:
    x, y = datasets.load_iris(return_X_y=True)
    x = ((x - x.min(0)) / np.ptp(x, axis=0)).astype(np.float32).astype(np.float64)
    estimator = OneVsRestClassifier(GaussianNB()).fit(x, y)
    model = rb.lift(estimator, (4,), x)
    rng = np.random.default_rng(0)
    points = rng.random((4000, 4)).astype(np.float32).astype(np.float64)
    assert differ(model, estimator, points) == 0


def test_estimators_of_several_labels_are_refused_for_one() -> None:
    x, y, shape = table("wine")
    sets = np.stack([y == 0, y > 0, x[:, 0] > 0.5], 1).astype(int)
    for made in (OneVsRestClassifier(LogisticRegression()), RidgeClassifier(), MLPClassifier(max_iter=20)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = made.fit(x, sets)
        with pytest.raises(InvalidModel, match="several labels of a sample"):
            rb.lift(fitted, shape, x)


def test_the_gradient_of_smooth_steps_is_the_true_one_and_nothing_is_called_linear_behind_them() -> None:
    x, y, shape = table("wine")
    smooth = rb.lift(_behind(PCA(3), PolynomialFeatures(2)).fit(x, y), shape, x)
    assert smooth.gradient_is_truth
    assert smooth.structure is None
    held = torch.from_numpy(x[:5]).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: smooth.core.scores(smooth.features(z)), held)
    binned = rb.lift(_behind(Binarizer(threshold=0.5)).fit(x, y), shape, x)
    assert not binned.gradient_is_truth
    assert binned.structure is None


@pytest.mark.parametrize(
    "name", ["tree", "extra_tree", "forest", "boosting", "scaled_tree", "histogram_boosting"]
)
@pytest.mark.parametrize("data", ["digits", "breast_cancer", "random"])
def test_on_every_threshold_and_one_float_beside_it(name: str, data: str) -> None:
    x, y, shape = table(data)
    x = x * 0.9999 + 1e-5 if data != "random" else x  # thresholds that are no float32
    x = x.astype(np.float32).astype(np.float64)
    estimator = ESTIMATORS[name]().fit(x, y)
    model = rb.lift(estimator, shape, x)
    core = model.core
    assert isinstance(core, TreeCore)
    inner = (core.left != torch.arange(len(core.left))).nonzero()[:, 0]
    for shift in (-np.inf, None, np.inf):
        points = x[np.arange(len(inner)) % len(x)].astype(np.float32)
        at = core.threshold[inner].numpy()
        at = at if shift is None else np.nextafter(at, np.float32(shift))
        points[np.arange(len(inner)), core.feature[inner].numpy()] = at
        assert (decisions(model, points) == estimator.predict(points.astype(np.float64))).all()


def test_a_threshold_becomes_the_largest_float32_that_goes_left() -> None:
    threshold = np.array([0.1, 0.5, 1 / 3, -0.7, 0.0])
    feature = np.arange(5)
    plain = largest_below([], feature, threshold, np.float32)
    assert (plain.astype(np.float64) <= threshold).all()
    assert (np.nextafter(plain, np.float32(np.inf)).astype(np.float64) > threshold).all()
    scaled = Affine(shift=torch.full((5,), 0.3).double(), divisor=torch.full((5,), 0.7).double())
    found = largest_below([scaled], feature, threshold, np.float32)
    for value, beyond in ((found, False), (np.nextafter(found, np.float32(np.inf)), True)):
        moved = scaled(torch.from_numpy(value.astype(np.float64))).numpy().astype(np.float32)
        assert ((moved > threshold) == beyond).all()


def test_equal_neighbours_and_equal_votes_are_settled_as_scikit_learn_does() -> None:
    x = np.repeat(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 3, axis=0)
    y = np.array([2, 1, 0, 1, 0, 2, 0, 2, 1, 1, 1, 0])
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 9)] * 2), -1).reshape(-1, 2)
    tied = 0
    for weights in ("uniform", "distance"):
        for k in range(1, 13):
            estimator = KNeighborsClassifier(k, weights=weights, algorithm="brute").fit(x, y)
            model = rb.lift(estimator, (2,), x)
            assert differ(model, estimator, grid) == 0
            held = torch.from_numpy(grid).float()
            squared = ((held.double()[:, None] - torch.from_numpy(x)) ** 2).sum(2)
            nearest = squared.sort(dim=1, stable=True).indices[:, :k]  # of equals, those stored first
            assert weights == "distance" or torch.equal(
                model.scores(held), torch.eye(3).double()[torch.from_numpy(y)[nearest]].mean(1)
            )
            tied += int(model.core.undecided(model.features(held)).sum())
    assert tied > 100
    votes = SVC(kernel="linear").fit(x[::3] + 0.01, [0, 1, 2, 0])
    model = rb.lift(votes, (2,), x)
    assert (decisions(model, grid) == votes.predict(grid)).all()


def test_features_may_have_their_own_range_and_labels_their_own_names() -> None:
    found = datasets.load_wine()
    names = np.array(["red", "white", "rosé"])
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(found.data, names[found.target])
    low, high = found.data.min(0), found.data.max(0)
    x = (found.data - low) / (high - low)
    model = rb.lift(estimator, (13,), low=low, high=high, class_names=("white", "rosé", "red"))
    assert isinstance(model.structure, Linear)
    says = np.array(["white", "rosé", "red"])[decisions(model, x)]
    assert (says == estimator.predict(found.data)).mean() > 0.99  # x is rounded to float32
    assert "0 = red, 1 = rosé, 2 = white" in model.notes[0]
    with pytest.raises(InvalidModel, match="the data's"):
        rb.lift(estimator, (13,), class_names=("a", "b", "c"))


def test_transforms_are_folded_into_the_structure() -> None:
    x, y, shape = table("wine")
    for estimator in (
        make_pipeline(StandardScaler(), PCA(4, whiten=True), LogisticRegression()),
        make_pipeline(MinMaxScaler(), NearestCentroid()),
    ):
        model = rb.lift(estimator.fit(x, y), shape, x)
        structure = model.structure
        assert isinstance(structure, Linear)
        held = torch.from_numpy(x).float()
        by_hand = held.double() @ structure.weight.T + structure.bias
        assert torch.allclose(by_hand, model.scores(held), atol=1e-9)
    tree = rb.lift(
        make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)).fit(x, y), shape, x
    )
    boxes = tree.structure
    assert isinstance(boxes, Boxes)
    held = torch.from_numpy(x).float()
    inside = ((held[:, None] > boxes.low) & (held[:, None] <= boxes.high)).all(2)
    assert (inside.sum(1) == 1).all()
    assert torch.equal(boxes.label[inside.long().argmax(1)], tree.scores(held).argmax(1))
    pca = rb.lift(make_pipeline(PCA(4), DecisionTreeClassifier()).fit(x, y), shape, x)
    assert pca.structure is None
    assert pca.access is Access.GRADIENT


@pytest.mark.parametrize(
    "name", ["svc_rbf", "knn", "knn_l1", "tree", "forest", "boosting", "mlp", "pca_tree"]
)
def test_the_gradient_face_leads_to_the_other_class(name: str) -> None:
    """The surrogate agrees with the truth on most samples; its gradient is what finite differences say."""
    x, y, shape = table("digits")
    model = rb.lift(ESTIMATORS[name]().fit(x, y), shape, x)
    held = torch.from_numpy(x[:200]).float().reshape(-1, *shape)
    soft = model.gradient_scores(held)
    assert (soft.argmax(1) == model.scores(held).argmax(1)).float().mean() >= 0.9
    point = (held[:5] * 0.98 + 0.0123).double().requires_grad_()
    core, features = model.core, model.features
    value = core.surrogate(features(point))[:, 3].sum()
    (gradient,) = torch.autograd.grad(value, point)
    assert gradient.abs().sum() > 0
    direction = torch.randn(point.shape, generator=torch.Generator().manual_seed(0)).double()
    h = 1e-6
    ahead, behind = (
        core.surrogate(features((point + s * h * direction).detach()))[:, 3].sum() for s in (1, -1)
    )
    slope = float((ahead - behind) / (2 * h))
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=1e-4, abs=1e-6)


def test_a_lift_that_decides_otherwise_is_refused() -> None:
    x, y, shape = table("wine")
    estimator = LogisticRegression().fit(x, y)
    model = rb.lift(estimator, shape, x)
    estimator.coef_ = estimator.coef_[::-1].copy()
    with pytest.raises(CannotLift, match="first at point"):
        prove(model, estimator, [], x)


def test_what_cannot_be_used_is_said_in_a_line() -> None:
    x, y, shape = table("wine")
    cases: list[tuple[BaseEstimator, tuple[int, ...], str]] = [
        (SVC(), shape, "SVC is not fitted"),
        (Ridge().fit(x, y), shape, "Ridge is no classifier"),
        (IsolationForest(n_estimators=2).fit(x), shape, "IsolationForest is no classifier"),
        (DecisionTreeClassifier().fit(x, 0 * y), shape, "knows one class only"),
        (DecisionTreeClassifier().fit(x, np.stack([y, y], 1)), shape, "several outputs"),
        (SVC().fit(x, y), (1, 8, 8), r"fitted on 13 features; \(1, 8, 8\) has 64"),
        (KNeighborsClassifier(metric=lambda a, b: abs(a - b).sum()).fit(x, y), shape, "no lift"),
        (SVC(kernel=lambda a, b: a @ b.T).fit(x, y), shape, "no lift"),
        (make_pipeline(FunctionTransformer(np.sqrt), SVC()).fit(x, y), shape, "FunctionTransformer has no"),
        (RadiusNeighborsClassifier(9.0).fit(x, y), shape, "outlier_label is none of its classes"),
    ]
    for estimator, shape_given, message in cases:
        with pytest.raises(InvalidModel, match=message):
            rb.lift(estimator, shape_given, x if shape_given == shape else None)
    with pytest.raises(InvalidModel, match="low"):
        rb.lift(SVC().fit(x, y), shape, low=1.0, high=0.0)


def test_estimators_without_a_lift_are_asked_as_they_are() -> None:
    x, y, _ = table("wine")
    held = torch.from_numpy(x).float()
    scored = attack_with(
        GaussianProcessClassifier().fit(x, y), held, torch.from_numpy(y), "noise", "linf:0.3"
    )
    assert scored.records["valid"].all()

    class Decides(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        n_features_in_ = 13

        def __init__(self) -> None:
            self.classes_ = np.array([0, 1, 2])

        def fit(self, x: np.ndarray, y: np.ndarray) -> BaseEstimator:
            return self

        def predict(self, x: np.ndarray) -> np.ndarray:
            return (x[:, 0] > 0.5).astype(int)

    data = rb.load_data("wine")
    model = rb.load_model(Decides(), data)
    assert model.access is Access.DECISION
    assert any("no lift" in note for note in model.notes)
    result = run_with(data, [Decides()], ["noise", "fgsm"], ["linf:0.3"], samples=20)
    assert result.records["attack"].unique().tolist() == ["noise"]
    assert any("fgsm needs gradient access" in why for why in result.refused.values())


def test_files_hold_estimators_and_no_code(tmp_path: Path) -> None:
    data = rb.load_data("digits")
    training = data.training()
    estimator = RandomForestClassifier(5, random_state=0)
    estimator.fit(training.x.flatten(1).numpy(), training.y.numpy())
    file = tmp_path / "mine.skops"
    skops.io.dump(estimator, file)
    model = rb.load_model(str(file), data)
    assert (model.name, model.family) == ("mine", "forest")
    flat = data.x.flatten(1).double().numpy()
    assert (decisions(model, flat) == estimator.predict(flat)).all()
    skops.io.dump(make_pipeline(FunctionTransformer(np.sqrt, inverse_func=_of_mine), SVC()), file)
    with pytest.raises(InvalidModel, match="not among the types allowed"):
        rb.load_model(str(file), data)
    file.write_bytes(b"PK nonsense")
    with pytest.raises(InvalidModel, match=r"mine\.skops"):
        rb.load_model(str(file), data)
    skops.io.dump({"a": np.zeros(3)}, file)
    with pytest.raises(InvalidModel, match="holds a dict"):
        rb.load_model(str(file), data)
    with pytest.raises(InvalidModel, match="no such file"):
        rb.load_model(str(tmp_path / "absent.skops"), data)


def _of_mine(x: np.ndarray) -> np.ndarray:
    return x


def test_many_stored_samples_need_no_more_memory_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Distances are held for a chunk of queries at a time."""
    x, y, shape = table("digits")
    model = rb.lift(KNeighborsClassifier(5, algorithm="brute").fit(x, y), shape, x)
    held = torch.from_numpy(x).float().reshape(-1, *shape)
    whole = model.scores(held)
    asked: list[int] = []
    plain = NeighbourCore.ranks

    def watched(self: NeighbourCore, z: torch.Tensor) -> torch.Tensor:
        asked.append(len(z))
        return plain(self, z)

    monkeypatch.setattr(NeighbourCore, "ranks", watched)
    monkeypatch.setattr("robustbench_lite.models.sklearn.neighbours.ROOM", 50 * len(x))
    assert torch.equal(model.scores(held), whole)
    assert max(asked) <= 50


def test_what_stands_in_for_bins_rises_from_the_middle_of_one_to_that_of_the_next() -> None:
    random = np.random.default_rng(0)
    x = random.random((300, 2)) ** 3  # bins of unlike widths
    step = KBinsDiscretizer(5, encode="ordinal", quantile_method="averaged_inverted_cdf").fit(x)
    made = transform_of(step)
    edges = step.bin_edges_[0]
    middle = (edges[1:] + edges[:-1]) / 2
    z = torch.from_numpy(np.stack([middle, middle], 1)).requires_grad_()
    (slope,) = torch.autograd.grad(made(z)[:, 0].sum(), z)
    # At the middle of a bin the way from the bin before ends: one over the distance of their middles.
    assert torch.allclose(slope[1:, 0], torch.from_numpy(1 / np.diff(middle)), rtol=1e-6)
    one_hot = transform_of(KBinsDiscretizer(2, strategy="uniform").fit(x))
    z = torch.tensor([[0.3, 0.7], [0.01, 0.99]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad((one_hot(z) * torch.tensor([0.0, 1.0, 0.0, 1.0])).sum(), z)
    assert (slope != 0).all()
    zeros = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(transform_of(Normalizer())(zeros).sum(), zeros)
    assert slope.isfinite().all()
