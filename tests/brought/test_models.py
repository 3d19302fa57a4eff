"""Networks, functions and estimators as people have them: read right, or refused in a line."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidModel, RobustError
from robustbench_lite.models.torch.module import TorchModel

DATA = rb.load_data("digits", samples=60)
SHAPE = (1, 8, 8)


def trained(classes: int = 10) -> nn.Sequential:
    data = rb.load_data("digits").training()
    y = data.y if classes == 10 else (data.y >= 5).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes))
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(80):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(data.x), y).backward()
            optimiser.step()
    return net.eval()


NET = trained()


class Through(nn.Module):
    """A network behind a function of its scores and inputs."""

    def __init__(self, then: Callable[[Tensor, Tensor], object], net: nn.Module = NET) -> None:
        super().__init__()
        self.net, self.then = net, then

    def forward(self, x: Tensor) -> object:
        return self.then(self.net(x), x)


def success(model: Any, attack: str = "pgd:steps=10", threat: str = "linf:0.1", y: Tensor = DATA.y) -> float:
    return float(rb.attack(model, DATA.x, y, attack, threat).success.float().mean())


def test_what_a_model_does_to_its_input_stays_with_it() -> None:
    expected = success(NET, "square:steps=100", "linf:0.15")

    class Inside(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = NET(x.sub_(0.5).div_(0.5) * 0.5 + 0.5)
            return scores

    def function(x: np.ndarray) -> np.ndarray:
        x -= 0.5
        x /= 0.5
        return NET(torch.from_numpy(x) * 0.5 + 0.5).detach().numpy()

    before = DATA.x.clone()
    for model in (Inside(), function):
        assert success(model, "square:steps=100", "linf:0.15") == pytest.approx(expected, abs=0.02)
        assert torch.equal(DATA.x, before)
    assert success(Inside()) == pytest.approx(success(NET), abs=0.02)


def test_an_output_is_read_by_shape_maker_range_and_accuracy() -> None:
    features = NET[:3]
    one = success(NET)
    for then in (
        lambda s, x: (features(x), s),
        lambda s, x: {"features": features(x), "out": s},
        lambda s, x: {"embedding": features(x), "logits": s},
        lambda s, x: s.log_softmax(1),
        lambda s, x: (s.softmax(1), features(x)),
    ):
        model = TorchModel(Through(then), SHAPE, data=DATA)
        assert model.num_classes == 10
        assert success(Through(then)) == pytest.approx(one, abs=0.04)
    # The tensor named by a usual word has as many columns, and is wrong; the samples tell.
    turned = Through(lambda s, x: {"logits": s.flip(1), "final": s})
    assert (
        rb.attack(turned, DATA.x, DATA.y, "noise").records["clean_prediction"].eq(DATA.y.numpy()).mean() > 0.9
    )
    said = TorchModel(Through(lambda s, x: (features(x), s)), SHAPE, outputs="index:1")
    assert said.num_classes == 10


def test_one_number_is_a_sigmoid_or_a_logit() -> None:
    net = trained(2)
    y = (DATA.y >= 5).long()
    right = float((net(DATA.x).argmax(1) == y).float().mean())
    expected = success(net, y=y)
    for then in (
        lambda s, x: torch.sigmoid(s[:, 1:] - s[:, :1]),
        lambda s, x: torch.sigmoid(s[:, 1] - s[:, 0]),
        lambda s, x: s.softmax(1)[:, 1],
        lambda s, x: s[:, 1:] - s[:, :1],
    ):
        records = rb.attack(Through(then, net), DATA.x, y, "pgd:steps=10", "linf:0.1").records
        assert float((records["clean_prediction"] == records["label"]).mean()) == pytest.approx(right)
        assert float(records["success"].mean()) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "apgd", "mifgsm"])
def test_sure_logits_do_not_end_the_gradient(attack: str) -> None:
    """A hundredfold cross-entropy rises with the margin to the likeliest other class, and with no other."""
    sure = success(Through(lambda s, x: 100 * s), attack)
    usual = success(NET, attack)
    if attack in ("pgd", "apgd"):
        usual = min(usual, success(NET, f"{attack}:loss=margin"))
    assert sure >= usual - 0.05


def test_an_accuracy_at_chance_is_said() -> None:
    lost = rb.attack(Through(lambda s, x: s.roll(3, 1)), DATA.x, DATA.y, "noise")
    assert any("no more than if it always said" in note for note in lost.notes)
    assert not any("always said" in note for note in rb.attack(NET, DATA.x, DATA.y, "noise").notes)


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_networks_compute_in_their_own_numbers(kind: torch.dtype) -> None:
    model = TorchModel(trained().to(kind), SHAPE)
    assert model.precision == str(kind).removeprefix("torch.")
    assert any("computes in" in note for note in model.notes)
    assert success(trained().to(kind)) == pytest.approx(success(NET), abs=0.06)


def uncopyable() -> dict[str, Callable[[], nn.Module]]:
    def normed(how: Callable[..., nn.Module]) -> nn.Module:
        net = trained()
        how(net[3])
        net.train()(DATA.x)
        return net.eval()

    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.lock = trained(), threading.Lock()

        def forward(self, x: Tensor) -> Tensor:
            with self.lock:
                self.last = self.net[:3](x)
                scores: Tensor = self.net[3](self.last)
                return scores

    def keeps() -> nn.Module:
        made = Keeps()
        made(DATA.x)
        return made

    dimension = torch.export.Dim("n", min=1, max=4096)
    return {
        "weight_norm": lambda: normed(torch.nn.utils.weight_norm),
        "spectral_norm": lambda: normed(torch.nn.utils.spectral_norm),
        "parametrised": lambda: normed(torch.nn.utils.parametrizations.weight_norm),
        "lock": keeps,
        "script": lambda: torch.jit.script(trained()),
        "trace": lambda: torch.jit.trace(trained(), DATA.x[:2]),
        "export": lambda: torch.export.export(
            trained(), (DATA.x[:4],), dynamic_shapes=({0: dimension},)
        ).module(),
        "compiled": lambda: torch.compile(trained()),  # type: ignore[return-value]
    }


@pytest.mark.parametrize("name", list(uncopyable()))
def test_modules_that_cannot_be_copied_as_they_are(name: str) -> None:
    model = uncopyable()[name]()
    attack = "pgd:steps=10,step_size=0.025"
    slack = 0.15 if name == "spectral_norm" else 0.02
    assert success(model, attack) == pytest.approx(success(NET, attack), abs=slack)
    found = TorchModel(model, SHAPE)
    assert found.fingerprint() == TorchModel(model, SHAPE).fingerprint()


def test_lazy_modules_and_classes_are_refused_in_a_line() -> None:
    with pytest.raises(InvalidModel, match="lazy parameters"):
        success(nn.Sequential(nn.Flatten(), nn.LazyLinear(10)))
    for model in (nn.Linear, len, 3, None):
        with pytest.raises(InvalidModel, match="no model"):
            success(model)


@pytest.mark.parametrize(
    "error",
    [IndexError("mine"), ZeroDivisionError("mine"), SystemExit(3), KeyError("mine"), AssertionError()],
)
def test_what_a_model_raises_is_a_line_that_names_it(error: BaseException) -> None:
    calls = []

    def late(scores: Tensor, x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 40:
            raise error
        return scores

    def at_once(scores: Tensor, x: Tensor) -> Tensor:
        raise error

    for then in (late, at_once):
        with pytest.raises(RobustError, match=rf"Through: .*{type(error).__name__}") as told:
            success(Through(then), "pgd:steps=60", "linf:0.001")
        assert "\n" not in str(told.value)


def test_answers_of_another_width_are_refused() -> None:
    calls = []

    def shrinking(scores: Tensor, x: Tensor) -> Tensor:
        calls.append(1)
        return scores if len(calls) < 30 else scores[:, :2]

    with pytest.raises(InvalidModel, match="gave 10 scores, now 2"):
        success(Through(shrinking), "pgd:steps=60", "linf:0.001")


def test_models_that_take_one_size_of_batch_are_asked_in_it() -> None:
    expected = success(NET, "square:steps=30")

    def one(x: np.ndarray) -> np.ndarray:
        assert len(x) == 1
        return NET(torch.from_numpy(x)).detach().numpy()

    assert success(one, "square:steps=30") == expected

    class Eight(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = NET(x.reshape(8, 64))
            return scores

    model = TorchModel(Eight(), SHAPE)
    assert any("batches of 8 only" in note for note in model.notes)
    assert success(Eight()) == pytest.approx(success(NET), abs=0.02)


def test_functions_of_classes_and_of_graphs() -> None:
    def decides(x: np.ndarray) -> np.ndarray:
        return NET(torch.from_numpy(x)).argmax(1).numpy()

    right = float((NET(DATA.x).argmax(1) == DATA.y).float().mean())
    assert success(decides, "hopskipjump:steps=2", "l2:min") == pytest.approx(right)

    def graph(x: np.ndarray) -> Tensor:
        scores: Tensor = NET(torch.from_numpy(x))
        return scores

    assert success(graph, "square:steps=30") == success(NET, "square:steps=30")
    with pytest.raises(InvalidModel, match="returned"):
        success(lambda x: None, "square:steps=5")


def test_fewer_labels_than_classes_and_a_class_that_rejects() -> None:
    some = DATA.y < 5
    found = rb.run((DATA.x[some], DATA.y[some]), [NET], ["fgsm"], ["linf:0.1"])
    assert len(found.records) == int(some.sum())
    careful = Through(lambda s, x: torch.cat([s, 6.0 + 0 * s[:, :1]], 1))
    model = rb.load_model(careful, DATA, reading=rb.Reading(reject=10))
    records = rb.attack(model, DATA.x, DATA.y, "pgd", "linf:0.1").records
    assert not (records.loc[records["success"], "adversarial_prediction"] == 10).any()


def test_why_a_gradient_attack_is_refused_is_said() -> None:
    rounds = Through(lambda s, x: NET((x * 4).round() / 4))
    with pytest.raises(RobustError, match="zero everywhere"):
        success(rounds)


def test_an_estimator_that_refuses_random_probes_is_tried_on_samples() -> None:
    random = np.random.default_rng(0)
    x = np.column_stack([random.random(200), random.integers(0, 3, 200)]).astype(float)
    y = (x[:, 0] + 0.3 * x[:, 1] > 0.8).astype(int)
    encoder = ColumnTransformer([("n", StandardScaler(), [0]), ("c", OneHotEncoder(), [1])])
    model = make_pipeline(encoder, LogisticRegression()).fit(x, y)
    domain = rb.Domain(torch.zeros(2), torch.tensor([1.0, 2.0]), spacing=torch.tensor([0.0, 1.0]))
    threat = rb.parse_threat("l2:min", domain)
    found = rb.attack(model, x[:30], y[:30], "hopskipjump:steps=2", threat)
    assert found.success.any()
    assert torch.equal(found.adversarial[:, 1], found.adversarial[:, 1].round())


def test_files_without_a_reader_say_what_to_do(tmp_path: Path) -> None:
    for name, word in (("a.joblib", "skops"), ("a.pkl", "skops"), ("a.pt", "weights:"), ("a.h5", "ONNX"),
                       ("a.safetensors", "weights:"), ("a.skops", "skops"), ("a.onnx", "onnx")):  # fmt: skip
        for content in (b"", b"hello world", b"PK\x03\x04 broken"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(RobustError) as told:
                rb.load_model(str(tmp_path / name), DATA)
            assert word.lower() in str(told.value).lower()
            assert "\n" not in str(told.value)
    with pytest.raises(RobustError, match="no such file"):
        rb.load_model(str(tmp_path / "none.skops"), DATA)


def test_a_path_without_a_word_of_what_it_is_is_told_the_words(tmp_path: Path) -> None:
    for name in ("net.bin", f"{tmp_path}/mine", "net.h6,units=own"):
        with pytest.raises(RobustError, match=r"model = .*\.skops, \.onnx.*hf:FOLDER"):
            rb.load_model(name, DATA)
    for name in ("table.csv", str(tmp_path)):
        with pytest.raises(RobustError, match=r"data = .*csv:FILE,label=COLUMN"):
            rb.load_data(name)


def test_exported_programs_are_not_read_since_that_may_run_code(tmp_path: Path) -> None:
    file = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(NET.eval(), (DATA.x[:2],)), file)
    with pytest.raises(RobustError, match=r"torch\.export.*may run any code.*package\.module:function"):
        rb.load_model(str(file), DATA)


def test_torchscript_in_a_file_and_weights_with_prefixes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.jit.script(NET).save(str(tmp_path / "net.pt"))
    assert success(str(tmp_path / "net.pt")) == pytest.approx(success(NET), abs=0.02)
    (tmp_path / "mine_here.py").write_text(
        "from torch import nn\n"
        "def net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(),\n"
        "        nn.Linear(64, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    for prefix in ("", "module.", "_orig_mod.", "model.", "module._orig_mod."):
        held = {prefix + key: value for key, value in NET.state_dict().items()}
        for wrapped in (held, {"state_dict": held}, {"model_state_dict": held, "epoch": 3}):
            torch.save(wrapped, tmp_path / "w.pt")
            model = rb.load_model("weights:w.pt,network=mine_here:net", DATA)
            assert torch.allclose(model.scores(DATA.x), NET(DATA.x), atol=1e-5)
