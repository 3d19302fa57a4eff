"""Tables as they are: own units, text, choices of several columns, steps, empty cells."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import robustbench_lite as rb
from robustbench_lite.attacks.named import get_attack
from robustbench_lite.core.domain import Domain
from robustbench_lite.core.errors import InvalidModel, InvalidParameter
from robustbench_lite.core.threat import Norm, norms
from robustbench_lite.jobs.job import Work, carry_out
from robustbench_lite.judging.judge import look_clean
from robustbench_lite.models.own import Reading


def people(n: int = 300) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": random.integers(18, 90, n),
            "income": random.normal(50_000, 15_000, n).round(2),
            "city": random.choice(["A", "B", "C"], n),
            "job": random.choice(["x", "y"], n),
        }
    )
    drift = (frame["age"] - 50) / 20 + (frame["income"] - 50_000) / 15_000
    drift += 1.0 * (frame["city"] == "A") - 1.0 * (frame["city"] == "C")
    frame["label"] = np.where(drift + random.normal(0, 0.3, n) > 0, "good", "bad")
    return frame


def encoder() -> ColumnTransformer:
    return ColumnTransformer(
        [("n", StandardScaler(), ["age", "income"]), ("c", OneHotEncoder(), ["city", "job"])]
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    people().to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"


def fitted(last: object = None) -> Pipeline:
    frame = people()
    return make_pipeline(encoder(), LogisticRegression() if last is None else last).fit(
        frame.drop(columns="label"), frame["label"]
    )


def test_the_columns_come_back_as_they_were(table: Path) -> None:
    data = rb.load_data(f"csv:{table},label=label,integer=age,split=0.5")
    assert data.columns is not None
    frame = people()
    own = data.columns.own(torch.cat([data.x, data.training().x]))
    key = ["income", "age"]
    expected = frame.drop(columns="label").sort_values(key).reset_index(drop=True)
    own = own.sort_values(key).reset_index(drop=True)
    assert np.allclose(own["income"], expected["income"], rtol=1e-6)
    assert (own["age"] == expected["age"]).all()
    assert (own["city"] == expected["city"]).all()
    assert data.columns.features == ["age", "income", "city=A", "city=B", "city=C", "job=x", "job=y"]


def test_a_pipeline_with_text_has_an_exact_answer_and_no_attack_leaves_the_table(table: Path) -> None:
    model = fitted()
    attacks = ["exact", "pgd:steps=10", "square:steps=60", "noise", "hopskipjump:steps=2"]
    data = rb.load_data(f"csv:{table},label=label,integer=age")
    result = rb.run(data, [model], attacks, ["linf:0.2", "linf:1"])
    assert not result.failures
    summary = result.table()
    exact = dict(summary.loc[summary["attack"] == "exact", ["threat", "success"]].to_numpy())
    for row in summary.to_dict("records"):
        assert row["success"] <= exact[row["threat"]] + 1e-9
    assert any("own units" in note for note in result.notes)
    assert data.columns is not None
    found = rb.load_model(model, data)
    threat = rb.parse_threat("linf:1", data.domain)
    clean = look_clean(found, data.x, data.y, data.ids)
    moved = carry_out(Work(data, found, clean, get_attack("pgd:steps=10"), threat, rb.Goal()))
    own = data.columns.own(moved.adversarial)
    broken = moved.records["success"].to_numpy(bool)
    assert set(own["city"]) <= {"A", "B", "C"}
    assert (own["age"] == own["age"].round()).all()
    assert bool(((moved.adversarial[:, 2:5] == 1).sum(1) == 1).all())
    said = model.predict(own)
    assert (said[broken] != np.array(data.class_names)[data.y.numpy()][broken]).all()


def test_exact_on_a_table_equals_brute_force() -> None:
    random = np.random.default_rng(1)
    n = 200
    frame = pd.DataFrame({"age": random.integers(0, 11, n), "city": random.choice(list("ABC"), n)})
    y = (frame["age"] / 10 + 0.5 * (frame["city"] == "A") + random.normal(0, 0.05, n) > 0.7).astype(int)
    codes = ColumnTransformer([("n", StandardScaler(), ["age"]), ("c", OneHotEncoder(), ["city"])])
    pipeline = make_pipeline(codes, LogisticRegression(C=100)).fit(frame, y)
    from robustbench_lite.data.data import Options, finish
    from robustbench_lite.data.tabular import Kinds, labelled, scaled

    raw = scaled(labelled(frame, y, "t", "y"), Options(), Kinds(integer=["age"]))
    data = finish("t", raw)
    assert data.columns is not None
    every = pd.DataFrame(list(itertools.product(range(11), "ABC")), columns=["age", "city"])
    points, answers = data.columns.scaled(every).float(), torch.from_numpy(pipeline.predict(every))
    for norm in Norm:
        records = rb.run(data, [pipeline], ["exact"], [f"{norm}:min"]).records
        for place, distance in enumerate(records["distance"]):
            if records["clean_prediction"][place] != records["label"][place]:
                continue
            sizes = norms(points - data.x[place], data.domain, norm)
            other = answers != int(data.y[place])
            assert distance == pytest.approx(float(sizes[other].min()), abs=1e-5), (norm, place)


def test_units_that_nobody_told_are_found_or_asked_for(table: Path) -> None:
    frame = people()
    columns = ["age", "income"]
    plain = frame[[*columns, "label"]]
    plain.to_csv(table, index=False)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(
        frame[columns].to_numpy(), frame["label"]
    )
    data = rb.load_data(f"csv:{table},label=label")
    result = rb.run(data, [model], ["exact"], ["linf:0.05"])
    row = result.table().iloc[0]
    assert row["clean"] > 0.7
    assert row["success"] > 0
    assert any("own units" in note and "units=scaled" in note for note in result.notes)
    assert result.records["linf_units"].notna().all()
    training = data.training()
    scaled = LogisticRegression(C=100).fit(training.x.numpy(), np.array(data.class_names)[training.y.numpy()])
    assert any("scaled to [0, 1]" in note for note in rb.load_model(scaled, data).notes)
    constant = LogisticRegression().fit(np.zeros((4, 2)), ["bad", "bad", "good", "bad"])
    with pytest.raises(InvalidModel, match="units=own or units=scaled"):
        rb.load_model(constant, data)
    assert rb.load_model(constant, data, reading=rb.Reading(units="own")).num_classes == 2


# Seed 45 sets a threshold at a whole age; float32 writes that age a little above it.
@pytest.mark.parametrize(
    "last",
    [
        *(RandomForestClassifier(10, random_state=seed) for seed in (0, 27, 45, 48)),
        HistGradientBoostingClassifier(max_iter=10, random_state=0),
    ],
)
def test_pipelines_of_trees_on_text_decide_as_they_do(table: Path, last: object) -> None:
    model = fitted(last)
    data = rb.load_data(f"csv:{table},label=label,integer=age")
    made = rb.load_model(model, data)
    assert made.access.name == "GRADIENT"
    assert data.columns is not None
    theirs = model.predict(data.columns.own(data.x))
    ours = np.array(data.class_names)[made.prediction(made.scores(data.x)).numpy()]
    assert (ours == theirs).all()


def test_searches_ordinals_and_other_orders_of_columns_are_lifted_too(table: Path) -> None:
    frame = people()
    ordinal = ColumnTransformer(
        [("c", OrdinalEncoder(), ["job", "city"]), ("n", "passthrough", ["income", "age"])]
    )
    data = rb.load_data(f"csv:{table},label=label")
    inner = make_pipeline(ordinal, StandardScaler(), LogisticRegression())
    searched = GridSearchCV(inner, {"logisticregression__C": [1.0, 10.0]}, cv=2)
    searched.fit(frame.drop(columns="label"), frame["label"])
    assert rb.load_model(searched, data).access.name == "STRUCTURE"
    numbers = frame[["income", "age"]]
    plain = frame[["age", "income", "label"]]
    plain.to_csv(table, index=False)
    turned = make_pipeline(StandardScaler(), LogisticRegression()).fit(numbers, frame["label"])
    made = rb.load_model(turned, rb.load_data(f"csv:{table},label=label"))
    assert made.access.name == "STRUCTURE"


def test_one_hot_columns_are_found_and_stay_one_choice(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"income": random.random(300)})
    city = pd.get_dummies(pd.Series(random.choice(list("ABC"), 300)), prefix="city").astype(int)
    frame = pd.concat([frame, city], axis=1)
    frame["label"] = (frame["income"] + frame["city_A"] - frame["city_C"] > 0.5).astype(int)
    frame.to_csv(tmp_path / "t.csv", index=False)
    data = rb.load_data(f"csv:{tmp_path / 't.csv'},label=label")
    assert any("taken as one choice" in note for note in data.notes)
    training = data.training()
    model = LogisticRegression().fit(training.x.numpy(), training.y.numpy())
    threat = rb.parse_threat("linf:1", data.domain)
    for attack in ("pgd", "square:steps=50", "noise", "fab", "exact"):
        found = rb.attack(model, data.x, data.y, attack, threat)
        rows = found.adversarial[:, 1:4]
        assert bool(((rows == 1).sum(1) == 1).all()), attack
        assert bool((rows.sum(1) == 1).all()), attack
        assert (found.records["valid"]).all(), attack


def test_choices_count_as_one_pixel_and_spread_back() -> None:
    groups = torch.tensor([0, -1, 0, 1, 1])
    domain = Domain(spacing=torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0]), groups=groups)
    x0 = torch.tensor([[1.0, 0.3, 0.0, 0.0, 1.0]])
    moved = torch.tensor([[0.0, 0.3, 1.0, 0.0, 1.0]])
    assert norms(moved - x0, domain, Norm.L0).tolist() == [1.0]
    per_pixel = torch.tensor([[5.0, 7.0, 9.0]])
    assert domain.spread(per_pixel, x0).tolist() == [[7.0, 5.0, 7.0, 9.0, 9.0]]
    snapped = domain.snap(torch.tensor([[0.4, 0.5, 0.7, 0.5, 0.5]]), x0, inward=False)
    assert snapped.tolist() == [[0.0, 0.5, 1.0, 0.0, 1.0]]
    assert domain.admits(snapped, x0).tolist() == [True]
    assert domain.admits(torch.tensor([[1.0, 0.3, 1.0, 0.0, 1.0]]), x0).tolist() == [False]


def test_empty_cells_stay_empty() -> None:
    random = np.random.default_rng(0)
    x = random.random((200, 4))
    y = (x[:, 0] + x[:, 1] > 1).astype(int)
    x[::5, 3] = np.nan
    model = HistGradientBoostingClassifier(max_iter=20).fit(x, y)
    found = rb.attack(model, x[:40], y[:40], "hopskipjump:steps=3", "l2:min")
    assert found.success.any()
    assert torch.equal(found.adversarial.isnan(), torch.from_numpy(x[:40]).isnan())
    said = model.predict(found.adversarial.numpy()) != y[:40]
    assert said[found.success.numpy()].all()


def test_a_frame_in_its_own_units_is_a_table() -> None:
    frame = people(80)
    result = rb.run((frame.drop(columns="label"), frame["label"]), [fitted()], ["exact"], ["linf:0.1"])
    assert len(result.records) == 80
    assert not result.failures


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_as_many_steps_as_the_ball_allows_are_in_it(dtype: torch.dtype) -> None:
    """Six steps of 1/60 are 0.1, however float32 writes them, for every row and every attack."""
    spacing = torch.tensor([1 / 60, 0.0], dtype=dtype)
    domain = Domain(spacing=spacing)
    threat = rb.parse_threat("linf:0.1", domain)
    start = torch.arange(55, dtype=torch.float64) / 60
    x0 = torch.stack([start, 0.5 + 0 * start], 1).float()
    moved = torch.stack([start + 6 / 60, 0.6 + 0 * start], 1).float()
    moved = threat.project(moved, x0, torch.full((55,), 0.1, dtype=torch.float64))
    moved[:, 0] = (start + 6 / 60).float()
    eps = torch.full((55,), 0.1, dtype=torch.float64)
    assert threat.contains(moved, x0, eps).all()
    moved[:, 0] = (start + 7 / 60).float()
    assert not threat.contains(moved, x0, eps).any()
    weights = torch.tensor([[0.0, 0.0], [1.0, 0.0]])

    class Above(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ weights.T - torch.tensor([0.0, 5.5 / 60])

    y = (x0[:, 0] > 5.5 / 60).long()
    near = (y == 0) & (x0[:, 0] > -0.4 / 60)
    for attack in ("fgsm", "pgd:steps=5"):
        found = rb.attack(Above(), x0[near], y[near], attack, threat)
        assert found.success.all(), attack


def test_columns_that_do_not_fit_are_told(tmp_path: Path, table: Path) -> None:
    model = fitted()
    frame = people()
    frame.rename(columns={"income": "inc"}).to_csv(table, index=False)
    with pytest.raises(InvalidModel, match="income"):
        rb.load_model(model, f"csv:{table},label=label")
    frame["label"] = (frame["label"] == "good").astype(int)
    frame.to_csv(table, index=False)
    with pytest.raises(InvalidModel, match="classes are bad, good; the data's 0, 1"):
        rb.load_model(model, f"csv:{table},label=label")
    from robustbench_lite.core.errors import InvalidParameter

    for column in ("income", "city"):
        with pytest.raises(InvalidParameter, match="a column of whole numbers"):
            rb.load_data(f"csv:{table},label=label,integer={column}")


def loans(n: int = 240) -> pd.DataFrame:
    random = np.random.default_rng(0)
    born = pd.Timestamp("1950-01-01") + pd.to_timedelta(random.integers(0, 18_000, n), unit="D")
    asked = random.uniform(1_000, 50_000, n).round()
    frame = pd.DataFrame(
        {
            "born": born,
            "seen": (born + pd.to_timedelta(random.integers(0, 9_000 * 86_400, n), unit="s")).strftime(
                "%Y-%m-%d %H:%M:%S"
            ),
            "granted": (asked * random.uniform(0.3, 1, n)).round(),
            "asked": asked,
        }
    )
    frame["born"] = frame["born"].dt.strftime("%Y-%m-%d")
    share = frame["granted"] / frame["asked"] + (born.year - 1975) / 80
    frame["label"] = np.where(share + random.normal(0, 0.05, n) > 0.65, "good", "bad")
    return frame


def test_dates_are_days_and_come_back_as_they_were_written(tmp_path: Path) -> None:
    frame = loans()
    frame.loc[3, "seen"] = None
    frame.to_csv(tmp_path / "loans.csv", index=False)
    data = rb.load_data(f"csv:{tmp_path / 'loans.csv'},label=label,split=1")
    columns = data.columns
    assert columns is not None
    back = columns.own(data.x)
    written = frame.drop(columns="label")
    assert back["born"].tolist() == written["born"].tolist()
    assert back["seen"].isna().tolist() == written["seen"].isna().tolist()
    apart = (pd.to_datetime(back["seen"]) - pd.to_datetime(written["seen"])).abs().max()
    assert apart <= pd.Timedelta(seconds=150)  # sixty years in float32
    assert any("born, seen are dates" in note and "float32" in note for note in data.notes)
    native = frame.assign(born=pd.to_datetime(frame["born"]))
    held = rb.load_data((native.drop(columns="label"), native["label"]))
    assert held.columns is not None
    assert held.columns.own(held.x)["born"].tolist() == native["born"].tolist()
    for odd in (["2020-13-01", "2020-01-02"], ["2020-01-02T00:00:00", "2020-01-02 00:00:00"], ["x", "y"]):
        other = frame.assign(born=(odd * len(frame))[: len(frame)])
        found = rb.load_data((other.drop(columns="label"), other["label"])).columns
        assert found is not None
        assert found.columns[0].values == tuple(sorted(odd))  # a category of two

    class Rule(ClassifierMixin, BaseEstimator):
        """Takes the table as it is; decides by the year."""

        classes_ = np.array(["bad", "good"])

        def fit(self, x: pd.DataFrame, y: object) -> "Rule":
            return self

        def predict_proba(self, x: pd.DataFrame) -> np.ndarray:
            year = x["born"].str[:4].astype(int) + x["born"].str[5:7].astype(int) / 12
            share = 1 / (1 + np.exp(-(year - 1975) / 5))
            return np.column_stack([1 - share, share])

        def predict(self, x: pd.DataFrame) -> np.ndarray:
            return self.classes_[self.predict_proba(x).argmax(1)]

    run = rb.run(
        f"csv:{tmp_path / 'loans.csv'},label=label,split=1", [Rule()], ["square:steps=60"], ["linf:0.1"],
        config=rb.Config(samples=40),
    )  # fmt: skip
    assert run.records["valid"].all()
    assert run.records["success"].any()


def test_one_column_does_not_pass_another(tmp_path: Path) -> None:
    frame = loans()
    frame["born"] = frame["born"] + " 00:00:00"
    frame.to_csv(tmp_path / "loans.csv", index=False)
    order = "order=granted<=asked|born<=seen"
    named = f"csv:{tmp_path / 'loans.csv'},label=label,split=1,integer=granted,{order}"
    run = rb.run(named, ["logistic"], ["pgd"], ["linf:0.3"], config=rb.Config(samples=80))
    assert run.records["valid"].all()
    assert run.records["success"].any()
    data = rb.load_data(named, samples=80)
    assert data.columns is not None
    model = rb.load_model("logistic", data)
    for attack in ("pgd", "square:steps=100", "hopskipjump:steps=3"):
        found = rb.attack(model, data.x, data.y, attack, rb.parse_threat("linf:0.3", data.domain))
        table = data.columns.own(found.adversarial)
        assert (table["granted"] <= table["asked"] + 0.01).all()
        late = pd.to_datetime(table["born"]) - pd.to_datetime(table["seen"])
        assert (late <= pd.Timedelta(minutes=5)).all()
        assert found.success.any()
    frame.loc[:4, "granted"] = frame.loc[:4, "asked"] + 10
    frame["empty"] = frame["asked"].where(frame.index % 5 > 0)
    frame.to_csv(tmp_path / "loans.csv", index=False)
    assert any("granted<=asked does not hold in 5 rows" in note for note in rb.load_data(named).notes)
    for order, why in (
        ("granted<asked", "COLUMN<=COLUMN"),
        ("granted<=gone", "columns of"),
        ("granted<=granted", "both of numbers"),
        ("granted<=seen", "both of numbers or both of dates"),
        ("granted<=empty", "without empty cells"),
    ):
        with pytest.raises(InvalidParameter, match=why):
            rb.load_data(f"csv:{tmp_path / 'loans.csv'},label=label,order={order}")


def test_the_rows_that_are_tested_are_told_and_may_be_all(table: Path) -> None:
    some = rb.load_data(f"csv:{table},label=label")
    assert any("90 of 300 rows are tested" in note for note in some.notes)
    whole = rb.load_data(f"csv:{table},label=label,split=1")
    assert whole.ids.tolist() == list(range(300))
    assert torch.equal(whole.y[some.ids], some.y)  # ids are rows of the file
    few = rb.load_data(f"csv:{table},label=label", samples=20)
    assert set(few.ids.tolist()) < set(some.ids.tolist())
    assert torch.equal(whole.y[few.ids], few.y)


def test_a_ball_as_wide_as_the_box_is_noted() -> None:
    result = rb.run("digits", ["linear"], ["noise"], ["linf:8"], config=rb.Config(samples=5))
    assert any("anything goes" in note for note in result.notes)


def test_a_cost_a_column_is_a_weighted_norm_in_the_units_of_cost(tmp_path: Path) -> None:
    """A linear model in own units: exact distances are those of weighted norms, choices keep to theirs."""
    random = np.random.default_rng(0)
    n = 200
    frame = pd.DataFrame(
        {
            "income": random.uniform(0, 1000, n),
            "age": random.integers(20, 60, n),
            "town": random.choice(["A", "B", "C"], n),
            "born": random.uniform(0, 1, n),
        }
    )
    frame["label"] = np.where(
        frame["income"] / 1000 + (frame["town"] == "A") + frame["born"] > 1.1, "yes", "no"
    )
    frame.to_csv(tmp_path / "loans.csv", index=False)
    numbers = ["income", "born", "label"]
    frame[numbers].to_csv(tmp_path / "numbers.csv", index=False)
    plain = LogisticRegression(C=100, max_iter=5000).fit(frame[["income", "born"]], frame["label"])
    named = f"csv:{tmp_path / 'numbers.csv'},label=label,split=1,cost=income:4|born:0.5"
    data = rb.load_data(named)
    ranges = frame["income"].max() - frame["income"].min(), frame["born"].max() - frame["born"].min()
    priced = np.abs(plain.coef_[0]) * ranges / [4, 0.5]  # what a unit of cost buys of the score
    for norm, dual in (("linf", 1), ("l2", 2), ("l1", np.inf)):
        run = rb.run(named, [plain], ["exact"], [f"{norm}:min"], config=rb.Config(samples=None))
        found = run.records.loc[run.records["success"]]
        score = np.abs(plain.decision_function(frame[["income", "born"]]))
        free = score / np.linalg.norm(priced, ord=dual)  # but for the box
        assert (found["distance"].to_numpy() >= free[found["sample_id"]] * (1 - 1e-4)).all()
        near = found["distance"].to_numpy() <= free[found["sample_id"]] * (1 + 1e-3)
        assert near.mean() > 0.3
        assert any("in units of cost" in note for note in run.notes)
    assert data.domain.high.tolist() == pytest.approx([4.0, 0.5])  # type: ignore[union-attr]
    whole = rb.load_data(f"csv:{tmp_path / 'loans.csv'},label=label,integer=age,cost=town:0.25|age:2,split=1")
    columns = whole.columns
    assert columns is not None
    own = columns.own(whole.x)
    assert own["town"].tolist() == frame["town"].tolist()
    assert np.allclose(own["age"].astype(float), frame["age"])
    span = float(frame["age"].max() - frame["age"].min())
    model = rb.load_model("logistic", whole)
    clean = look_clean(model, whole.x, whole.y, whole.ids)
    for named, eps, other_town in (("linf:0.2", 0.2, False), ("linf:0.3", 0.3, True), ("l1:0.6", 0.6, True)):
        turned = 0
        for attack in ("exact", "pgd"):
            threat = rb.parse_threat(named, whole.domain)
            found = carry_out(Work(whole, model, clean, get_attack(attack), threat, rb.Goal()))
            won = torch.from_numpy(found.records["success"].to_numpy(bool))
            before, after = (columns.own(part[won]) for part in (whole.x, found.adversarial))
            years = (after["age"].astype(float) - before["age"].astype(float)).abs()
            assert (2 * years / span <= eps + 1e-6).all()  # twice as dear as its range
            assert set(after["town"]) <= {"A", "B", "C"}
            turned += int((after["town"] != before["town"]).sum())
        assert bool(turned) == other_town
    for text, said in (("age", "COLUMN:NUMBER"), ("age:0", "above 0"), ("agee:2", "must be columns")):
        with pytest.raises(InvalidParameter, match=said):
            rb.load_data(f"csv:{tmp_path / 'loans.csv'},label=label,cost={text}")
    with pytest.raises(InvalidParameter, match="in units of cost"):
        rb.load_model(plain, data, reading=Reading(units="scaled"))
