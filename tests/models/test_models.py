"""Models: the zoo reaches its accuracies, and anything of the user's is a model, left unchanged."""

import threading
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidModel, InvalidParameter, RobustError, UnknownName, Unsupported
from robustbench_lite.core.model import Access
from robustbench_lite.core.problem import MEASURED
from robustbench_lite.core.random import Stream
from robustbench_lite.core.structure import Linear
from robustbench_lite.models import MODELS
from robustbench_lite.models.cache import Trained, remember
from robustbench_lite.models.load import is_reference
from robustbench_lite.models.torch.module import TorchModel
from robustbench_lite.models.zoo.training import shifted_and_flipped
from tests.conftest import attack_with, cifar10_resnet18, run_with

LEAST = {
    "linear": 0.93,
    "logistic": 0.96,
    "svm": 0.98,
    "linear_svm": 0.95,
    "knn": 0.975,
    "tree": 0.82,
    "forest": 0.97,
    "boosting": 0.95,
    "mlp": 0.97,
    "cnn": 0.98,
    "conv_small": 0.95,
    "lenet": 0.97,
    "vgg": 0.98,
}


def accuracy(model: rb.Model, data: rb.Data) -> float:
    return float((model.scores(data.x).argmax(1) == data.y).float().mean())


def test_every_model_is_held_to_an_accuracy() -> None:
    assert set(LEAST) == set(MODELS) - {
        "ensemble",
        "transformed",
        "resnet18",
        "torchvision",
        "timm",
        "hf",
        "weights",
        "unet",
        "reader",
        "tagger",
        "features",
    }  # for larger images, for what people have, for masks, strings and labels; of two others


@pytest.mark.parametrize("name", list(LEAST))
def test_accuracy_on_digits(name: str) -> None:
    data = rb.load_data("digits")
    model = rb.load_model(name, data)
    assert accuracy(model, data) >= LEAST[name]
    assert model.fingerprint() == rb.load_model(name, data).fingerprint()
    assert model.access.name.lower() == MODELS[name].access
    confidence = model.confidence(model.scores(data.x))
    assert (confidence is None) == (name in ("linear", "svm", "linear_svm"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("logistic", 0.92), ("cnn", 0.99)])
def test_accuracy_on_mnist(real_data: Path, name: str, least: float) -> None:
    data = rb.load_data("mnist", data_dir=real_data)
    model = rb.load_model(name, data)
    right = torch.cat([model.scores(x) for x in data.x.split(1000)]).argmax(1) == data.y
    assert float(right.float().mean()) >= least


def test_weights_are_trained_once_and_broken_files_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ROBUST_CACHE", str(tmp_path))
    told: list[str] = []
    one = rb.load_model("logistic", "digits", report=lambda what, fraction: told.append(what))
    assert told
    told.clear()
    (file,) = (tmp_path / "models").iterdir()
    assert file.suffix == ".safetensors"
    two = rb.load_model("logistic", "digits", report=lambda what, fraction: told.append(what))
    assert not told
    file.write_bytes(b"<html>")
    three = rb.load_model("logistic", "digits", report=lambda what, fraction: told.append(what))
    assert told
    assert one.fingerprint() == two.fingerprint() == three.fingerprint()
    other = rb.load_model("logistic", rb.load_data("digits", seed=1))
    assert other.fingerprint() != one.fingerprint()
    assert len(list((tmp_path / "models").iterdir())) == 2


def test_two_that_want_the_same_model_train_it_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROBUST_CACHE", str(tmp_path))
    data, trained = rb.load_data("digits", samples=10), []

    def fit() -> dict[str, Tensor]:
        trained.append(1)
        time.sleep(0.3)
        return {"weight": torch.full((1,), float(len(trained)))}

    found: list[float] = []

    def want() -> None:
        found.append(float(remember("slow", 1, data, Trained(), fit)["weight"]))

    both = [threading.Thread(target=want) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert found == [1.0, 1.0]
    assert len(trained) == 1


class Net(nn.Module):
    """Dropout and batch norm: what eval mode is for."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.body(x)
        return scores


def test_the_users_module_is_left_as_it_was() -> None:
    module = Net().train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    x, y = torch.rand(6, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    attack_with(module, x, y, "iterative", "linf:0.1")
    assert module.training
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    model = TorchModel(module, (3, 2, 2))
    assert torch.equal(model.scores(x), model.scores(x))
    with torch.no_grad():
        module.body[1].weight.zero_()  # type: ignore[operator]
    assert not torch.equal(model.module.body[1].weight, module.body[1].weight)  # type: ignore[union-attr,index]


def test_normalisation_and_input_range() -> None:
    torch.manual_seed(0)  # a score near 0 would be compared with a share of itself
    module = Net()
    x = torch.rand(5, 3, 2, 2)
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.1])
    eight = TorchModel(module, (3, 2, 2), mean=(mean / 255).tolist(), std=(std / 255).tolist())
    plain = TorchModel(module, (3, 2, 2))
    by_hand = (x * 255 - mean[:, None, None]) / std[:, None, None]
    assert torch.allclose(eight.scores(x), plain.scores(by_hand), rtol=1e-4)
    assert eight.fingerprint() != plain.fingerprint()
    with pytest.raises(InvalidParameter, match="std"):
        TorchModel(module, (3, 2, 2), mean=[0.5])


class Shaped(nn.Module):
    """Scores in whatever wrapping is asked for."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.inner = kind, nn.Linear(4, 1 if kind in ("column", "flat") else 3)

    def forward(self, x: Tensor) -> object:
        scores = self.inner(x)
        match self.kind:
            case "flat":
                return scores[:, 0]
            case "tuple":
                return scores, torch.zeros(1)
            case "mapping":
                return {"features": torch.zeros(1), "logits": scores}
            case "logits":
                return types.SimpleNamespace(logits=scores)
            case "image":
                return scores[:, :, None, None]
            case "text":
                return "cat"
            case "one row":
                return scores.mean(0, keepdim=True)
            case "nan":
                return scores * torch.nan
        return scores


@pytest.mark.parametrize("kind", ["plain", "column", "flat", "tuple", "mapping", "logits"])
def test_outputs_people_have(kind: str) -> None:
    module = Shaped(kind)
    model = TorchModel(module, (4,))
    x = torch.rand(7, 4)
    scores = model.scores(x)
    raw = module.inner(x)
    if kind in ("column", "flat"):
        assert torch.equal(scores.argmax(1), (raw[:, 0] > 0).long())
        assert torch.allclose(scores.softmax(1)[:, 1], raw[:, 0].sigmoid())
    else:
        assert torch.equal(scores, raw.detach())
    result = attack_with(model, x, scores.argmax(1), "fgsm", "linf:0.5")
    assert result.records["valid"].all()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("image", "must be scores"),
        ("text", "returns str"),
        ("one row", "for 4 inputs"),
        ("nan", "NaN or infinite"),
    ],
)
def test_outputs_that_are_no_scores_are_refused(kind: str, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        TorchModel(Shaped(kind), (4,))


class Faulty(nn.Module):
    """A linear classifier with something wrong about its gradient, its memory or its batch."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.inner = nn.Linear(4, 3)
            self.inner.weight.data *= 5
        self.norm = nn.BatchNorm1d(3, track_running_stats=False)  # statistics of the batch, also in eval mode

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x)
        match self.kind:
            case "batch":
                scores = self.norm(scores)
            case "random":
                scores = scores + torch.randn_like(scores) * 0.1
            case "detached":
                scores = scores.detach()
            case "rounded":
                scores = (scores * 3).round()
        return scores


@pytest.mark.parametrize("kind", ["detached", "rounded"])
def test_a_model_without_gradients_is_marked_and_attacked_without(kind: str) -> None:
    model = TorchModel(Faulty(kind), (4,))
    assert model.access is Access.SCORE
    what = "have no gradient" if kind == "detached" else "gradient is zero everywhere it was tried"
    assert any(what in note and "only attacks that need none" in note for note in model.notes)
    x = torch.rand(20, 4)
    y = model.scores(x).argmax(1)
    assert attack_with(model, x, y, "noise", "linf:0.9").records["success"].any()
    with pytest.raises(RobustError, match="fgsm needs gradient access"):
        attack_with(model, x, y, "fgsm", "linf:0.1")


def test_a_model_that_scores_a_batch_as_a_whole_is_refused() -> None:
    with pytest.raises(InvalidModel, match="differently alone and in a batch; switch its batch statistics"):
        TorchModel(Faulty("batch"), (4,))
    with pytest.raises(InvalidModel, match="differently for a sample alone"):
        rb.load_model(lambda x: x.reshape(len(x), -1)[:, :10] - x.mean(), "digits")


def test_a_model_that_answers_differently_is_stochastic_and_still_repeatable() -> None:
    model = TorchModel(Faulty("random"), (4,))
    assert model.stochastic
    assert any("--eot" in note for note in model.notes)
    x = torch.rand(30, 4)
    y = model.scores(x).argmax(1)
    one, two = (attack_with(model, x, y, "iterative:steps=5", "linf:0.1", eot=4) for _ in range(2))
    assert torch.equal(one.adversarial, two.adversarial)
    # Five steps of four draws, four for the last look, and MEASURED fresh ones of one or two points.
    asked = set((one.records["forwards"][one.records["forwards"] > 0] - 24).tolist())
    assert asked <= {MEASURED, 2 * MEASURED}


def test_augmentation_moves_and_mirrors_nothing_else() -> None:
    """Every augmented image is one of the 2 × 9 × 9 that moving and mirroring make."""
    x = torch.rand(40, 2, 6, 5)
    moved = shifted_and_flipped(x, Stream.of(0, torch.arange(40)))
    padded = nn.functional.pad(x, (4, 4, 4, 4))
    choices = [padded[:, :, i : i + 6, j : j + 5] for i in range(9) for j in range(9)]
    choices += [c.flip(3) for c in choices]
    same = torch.stack([(c == moved).flatten(1).all(1) for c in choices])
    assert bool(same.any(0).all())
    assert len(same.long().argmax(0).unique()) > 20


def test_resnet18_trains_and_is_for_larger_images(tmp_path: Path) -> None:
    """One colour a class: 64 images are enough."""
    y = torch.arange(64) % 2
    noise = torch.rand(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = (0.3 * noise + 0.7 * y[:, None, None, None]).numpy()
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=x, y=y.numpy())
    with pytest.raises(Unsupported, match="16 pixels"):
        rb.load_model("resnet18", "digits")
    data = rb.load_data(f"npz:{tmp_path / 'test.npz'}")
    held = replace(data, source=lambda: data)
    model = rb.load_model("resnet18:epochs=4", held)
    assert accuracy(model, data) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("clean", 0.86), ("robust", 0.69)])
def test_resnet18_takes_the_weights_of_cifar10(
    real_data: Path, cifar10: rb.Data, name: str, least: float
) -> None:
    model, data = cifar10_resnet18(real_data, name), cifar10[::4]
    right = torch.cat([model.scores(x) for x in data.x.split(100)]).argmax(1) == data.y
    assert float(right.float().mean()) >= least


def test_a_wrong_input_shape_is_said() -> None:
    with pytest.raises(InvalidModel, match=r"a forward pass of float32 \(4, 5\) fails"):
        TorchModel(Shaped("plain"), (5,))
    with pytest.raises(InvalidModel, match="gives 3 scores; the data has 10 classes"):
        rb.load_model(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "digits")


def test_probabilities_are_found_and_their_logarithms_used() -> None:
    inner = nn.Linear(4, 3)
    inner.weight.data *= 30  # so sure that probabilities hardly move
    logits, probabilities = (TorchModel(m, (4,)) for m in (inner, nn.Sequential(inner, nn.Softmax(1))))
    assert (logits.outputs, probabilities.outputs) == ("logits", "probabilities")
    assert "logarithms" in probabilities.notes[0]
    x = torch.rand(200, 4)
    y = logits.scores(x).argmax(1)
    one, other = (attack_with(m, x, y, "iterative", "linf:0.1").records for m in (logits, probabilities))
    assert abs(one["success"].sum() - other["success"].sum()) <= 4
    assert np.allclose(
        one["clean_confidence"].astype(float), other["clean_confidence"].astype(float), atol=1e-5
    )


def test_a_numpy_function_is_a_score_model() -> None:
    data = rb.load_data("digits")
    training = data.training()
    estimator = LogisticRegression(max_iter=200).fit(training.x.flatten(1).numpy(), training.y.numpy())
    model = rb.load_model(estimator.predict_proba, data)
    assert model.access is Access.SCORE
    assert accuracy(model, data) == pytest.approx(estimator.score(data.x.flatten(1).numpy(), data.y.numpy()))
    result = run_with(data, [estimator.predict_proba], ["noise", "fgsm"], ["linf:0.2"], samples=50)
    assert result.records["attack"].unique().tolist() == ["noise"]
    assert "fgsm needs gradient access" in next(iter(result.refused.values()))
    with pytest.raises(InvalidModel, match=r"must be scores \(n, K\)"):
        rb.load_model(lambda x: x[:, 0, 0, 0], data)


def test_a_model_from_a_module_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(
        "import torch\n"
        "def build():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))\n"
        "def fitted(data):\n    return torch.nn.Sequential(torch.nn.Flatten(),\n"
        "        torch.nn.Linear(data.x[0].numel(), data.num_classes))\n"
        "number = 3\n"
        "def text():\n    return 'cnn'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("build", "fitted"):
        model = rb.load_model(f"my_models:{name}", "digits")
        assert (model.name, model.num_classes) == (name, 10)
    for name, message in (("number", "number"), ("text", "str is no model"), ("gone", "cannot be imported")):
        with pytest.raises(RobustError, match=message):
            rb.load_model(f"my_models:{name}", "digits")


def test_names_and_references_are_told_apart() -> None:
    assert is_reference("my.module:build")
    assert not is_reference("cnn:width=3")
    assert not is_reference("cnn")
    with pytest.raises(UnknownName, match="did you mean linear"):
        rb.load_model("linaer")
    with pytest.raises(Unsupported, match="cnn needs images"):
        rb.load_model("cnn", "wine")


def test_linear_models_show_their_structure() -> None:
    data = rb.load_data("digits")
    for name in ("linear", "logistic"):
        model = rb.load_model(name, data)
        structure = model.structure
        assert isinstance(structure, Linear)
        by_hand = data.x.flatten(1).double() @ structure.weight.T + structure.bias
        assert torch.allclose(model.scores(data.x).double(), by_hand, atol=1e-4)
    two = rb.load_model("logistic", "digits:classes=3|7")
    assert two.num_classes == 2


@pytest.mark.gpu
@pytest.mark.parametrize("name", list(LEAST))
def test_models_answer_alike_on_cuda(name: str) -> None:
    data = rb.load_data("digits")
    here, there = (rb.load_model(name, data, device=device) for device in ("cpu", "cuda"))
    assert torch.allclose(here.scores(data.x), there.scores(data.x.cuda()).cpu(), atol=1e-4)
