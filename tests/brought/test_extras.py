"""What wants an extra: with it for real, without it one line."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from torch import nn

import robustbench_lite as rb
from robustbench_lite.certify.certifier import Question, certify
from robustbench_lite.core.errors import InvalidModel
from robustbench_lite.core.goal import Goal

DATA = rb.load_data("digits", samples=60)
SETS = {"digits": load_digits, "breast_cancer": load_breast_cancer, "wine": load_wine}


def boosters() -> dict[str, Any]:
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    return {
        "xgboost": lambda: xgboost.XGBClassifier(n_estimators=20),
        "xgboost exact": lambda: xgboost.XGBClassifier(n_estimators=20, tree_method="exact", base_score=0.3),
        "xgboost forest": lambda: xgboost.XGBRFClassifier(n_estimators=10),
        "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=20, verbose=-1),
        "lightgbm deep": lambda: lightgbm.LGBMClassifier(
            n_estimators=10, num_leaves=127, min_child_samples=2, verbose=-1
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["xgboost", "xgboost exact", "xgboost forest", "lightgbm", "lightgbm deep"])
@pytest.mark.parametrize("data", list(SETS))
def test_boosted_trees_decide_as_their_library_does(name: str, data: str) -> None:
    x, y = SETS[data](return_X_y=True)
    low, high = x.min(0), x.max(0)
    high = np.where(high > low, high, low + 1)
    scaled = ((x - low) / (high - low)).astype(np.float32)
    model = boosters()[name]().fit(scaled, y)
    made = rb.lift(model, (x.shape[1],), scaled)
    random = np.random.default_rng(0).random((5000, x.shape[1]), dtype=np.float32)
    scores = torch.cat([made.scores(torch.from_numpy(part)) for part in np.array_split(random, 10)])
    assert (made.prediction(scores).numpy() == model.predict(random)).all()
    sure = made.confidence(scores)
    assert sure is not None
    assert np.abs(sure.numpy() - model.predict_proba(random).max(1)).max() < 1e-5
    own = boosters()[name]().fit(x, y)
    assert rb.lift(own, (x.shape[1],), scaled, low, high).family == "boosting"
    found = rb.attack(made, scaled[:30], y[:30], "pgd:steps=10", "linf:0.3")
    assert found.success.any()


@pytest.mark.parametrize("name", ["multiclass", "binary"])
def test_files_of_boosters_are_the_classifiers_they_were(tmp_path: Path, name: str) -> None:
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    x, y = DATA.x.flatten(1).numpy(), DATA.y.numpy()
    y = y if name == "multiclass" else (y > 4).astype(int)
    data = rb.load_data((DATA.x.flatten(1), torch.from_numpy(y)))
    light = lightgbm.LGBMClassifier(n_estimators=5, min_child_samples=2, verbose=-1).fit(x, y)
    light.booster_.save_model(str(tmp_path / "light.txt"))
    extreme = xgboost.XGBClassifier(n_estimators=5).fit(x, y)
    extreme.save_model(tmp_path / "extreme.json")
    for file, own in (("light.txt", light), ("extreme.json", extreme)):
        made = rb.load_model(str(tmp_path / file), data)
        assert made.family == "boosting"
        assert (made.prediction(made.scores(data.x)).numpy() == own.predict(x)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_no_step_is_nearer_than_what_is_proven_where_thresholds_are_values(
    norm: str, dtype: torch.dtype
) -> None:
    """XGBoost splits at values that are there, so that whole steps end exactly where answers change."""
    xgboost = pytest.importorskip("xgboost")
    random = np.random.default_rng(0)
    x = (random.integers(0, 21, (200, 2)) / 20).astype(np.float32)
    y = (x[:, 0] + x[:, 1] + random.normal(0, 0.1, 200) > 1).astype(int)
    model = rb.lift(xgboost.XGBClassifier(n_estimators=5, max_depth=3).fit(x, y), (2,), x)
    domain = rb.Domain(spacing=torch.full((2,), 0.05, dtype=dtype), pixel_dim=None)
    threat = rb.parse_threat(f"{norm}:min", domain)
    held = torch.from_numpy(x)
    steps = torch.arange(21).float() / 20
    grid = torch.cartesian_prod(steps, steps)
    says = model.prediction(model.scores(grid))
    own = model.prediction(model.scores(held))
    found = certify(Question(model, threat, Goal(), held, own))
    assert found is not None
    for i in range(0, 200, 5):
        others = grid[says != own[i]]
        origin = held[i : i + 1].expand_as(others)
        inside = domain.admits(others, origin)
        if bool(inside.any()):
            assert float(found.distance[i]) <= float(threat.distance(others, origin)[inside].min())


def test_files_that_are_no_boosters_are_one_line(tmp_path: Path) -> None:
    lightgbm = pytest.importorskip("lightgbm")
    (tmp_path / "words.txt").write_text("no model\n")
    (tmp_path / "torn.txt").write_text("tree\nversion=v4\n")
    random = np.random.default_rng(0)
    ranked = lightgbm.LGBMRegressor(n_estimators=2, verbose=-1).fit(
        random.random((60, 64)), random.random(60)
    )
    ranked.booster_.save_model(str(tmp_path / "numbers.txt"))
    for name, why in (("words", "LightGBM's Booster"), ("torn", "reading it"), ("numbers", "no classifier")):
        with pytest.raises(InvalidModel, match=why):
            rb.load_model(str(tmp_path / f"{name}.txt"), DATA)


def test_boosters_without_a_lift_say_why() -> None:
    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    x, y = DATA.x.flatten(1).numpy(), DATA.y.numpy()
    for model in (
        xgboost.XGBClassifier(booster="dart", n_estimators=3),
        xgboost.XGBClassifier(booster="gblinear", n_estimators=3),
        lightgbm.LGBMClassifier(
            boosting_type="rf", subsample=0.5, subsample_freq=1, n_estimators=3, verbose=-1
        ),
    ):  # fmt: skip
        made = rb.load_model(model.fit(x, y), DATA)
        assert any("not lifted" in note for note in made.notes)


def test_an_xgboost_file_is_read(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    model = xgboost.XGBClassifier(n_estimators=5).fit(DATA.x.flatten(1).numpy(), DATA.y.numpy())
    model.save_model(tmp_path / "m.ubj")
    made = rb.load_model(str(tmp_path / "m.ubj"), DATA)
    assert (made.prediction(made.scores(DATA.x)).numpy() == model.predict(DATA.x.flatten(1).numpy())).all()


@pytest.mark.parametrize("rows", ["n", "one"])
def test_an_onnx_file_has_scores_and_gradients(tmp_path: Path, rows: str) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx2torch")
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    axes = {"x": {0: "n"}} if rows == "n" else None
    pytest.importorskip("onnx")
    how: dict[str, Any] = {"dynamo": False, "input_names": ["x"], "dynamic_axes": axes}
    torch.onnx.export(net, (DATA.x[:1],), tmp_path / "n.onnx", **how)
    made = rb.load_model(str(tmp_path / "n.onnx"), DATA)
    assert torch.allclose(made.scores(DATA.x).float(), net(DATA.x), atol=1e-4)
    y = net(DATA.x).argmax(1)
    here, there = (rb.attack(m, DATA.x, y, "pgd:steps=5", "linf:0.1").success for m in (net, made))
    assert torch.equal(here, there)


def test_timm_and_transformers_are_models_with_their_normalisation(tmp_path: Path) -> None:
    transformers, timm = pytest.importorskip("transformers"), pytest.importorskip("timm")
    assert timm
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((8, 3, 32, 32), generator=generator)
    facts = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=32,
        patch_size=8,
        num_labels=10,
    )
    vit = transformers.ViTForImageClassification(facts).eval()
    vit.save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    processor = transformers.ViTImageProcessor(size=size, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    processor.save_pretrained(tmp_path)
    data = rb.load_data((x, torch.arange(8) + 2))
    made = rb.load_model(f"hf:{tmp_path}", data)
    expected = vit((x - 0.5) / 0.25).logits
    assert torch.allclose(made.scores(x), expected, atol=1e-4)
    assert rb.attack(made, x, expected.argmax(1), "pgd:steps=3", "linf:0.1").records["valid"].all()
    called = {1: "cat, Kind 3", 7: "tench, Tinca"}  # a whole label counts before a synonym
    vit.config.id2label = {n: called.get(n, f"kind_{n}") for n in range(10)}
    vit.save_pretrained(tmp_path)
    held = replace(data, y=torch.arange(8) % 2, class_names=("Kind 3", "Tinca"))
    ordered = rb.load_model(f"hf:{tmp_path}", held)
    assert torch.allclose(ordered.scores(x)[:, :2], expected[:, [3, 7]], atol=1e-4)
    assert "its classes by name: Kind 3 = 3, Tinca = 7" in ordered.notes
    partly = rb.load_model(f"hf:{tmp_path}", replace(held, class_names=("Kind 3", "dog")))
    assert torch.allclose(partly.scores(x), expected, atol=1e-4)
    assert any("not dog: all are taken by number" in note for note in partly.notes)
    plain = rb.load_model("timm:resnet18,weights=none", data)
    assert plain.num_classes == 10
    with pytest.raises(InvalidModel, match="timm:nothing_like_it"):
        rb.load_model("timm:nothing_like_it", data)
    with pytest.raises(InvalidModel, match="takes 3 channels"):
        rb.load_model(f"hf:{tmp_path}", DATA)


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [("timm", "timm:resnet18", "timm"), ("transformers", "hf:x/y", "hf"), ("onnxruntime", "net.onnx", "onnx"),
     ("xgboost", "m.ubj", "boost")],
)  # fmt: skip
def test_a_missing_extra_is_one_line_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str, extra: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("net.onnx", "m.ubj"):
        (tmp_path / file).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidModel, match=rf"pip install 'robustbench-lite\[{extra}\]'"):
        rb.load_model(name, DATA)
