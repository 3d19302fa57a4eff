"""Code written for other libraries, run against ours with one import changed."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import robustbench_lite as rb
from robustbench_lite import AutoAttack, benchmark
from robustbench_lite.core.errors import InvalidParameter, RobustError
from tests.conftest import samples_of, small_network


def network_and_samples() -> tuple[nn.Module, Tensor, Tensor]:
    model = small_network()
    x, y = samples_of(model, 20)
    return model.module, x, y


def test_autoattack_as_its_readme_calls_it() -> None:
    net, images, labels = network_and_samples()
    images, labels = images[:12], labels[:12]
    epsilon, batch_size = 0.05, 8
    forward_pass = net.forward
    adversary = AutoAttack(forward_pass, norm="Linf", eps=epsilon, version="standard")
    x_adv, y_adv = adversary.run_standard_evaluation(images, labels, bs=batch_size, return_labels=True)
    with torch.no_grad():
        answers = net(x_adv).argmax(1)
    assert torch.equal(answers, y_adv)
    assert (x_adv - images).abs().max() <= epsilon + 1e-6
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    assert float((answers == labels).float().mean()) == pytest.approx(adversary.robust_accuracy)
    held = answers == labels
    assert torch.equal(x_adv[held], images[held])  # what holds is handed back as it was
    assert 0 < held.sum() < len(held)
    ours = rb.attack(net, images, labels, "auto", ("linf", epsilon)).records
    assert int((~held).sum()) == int(
        ours["success"].sum() + (ours["clean_prediction"] != ours["label"]).sum()
    )


def test_autoattack_tells_both_accuracies(capsys: pytest.CaptureFixture[str]) -> None:
    net, images, labels = network_and_samples()
    adversary = AutoAttack(lambda x: net(x), norm="L2", eps=0.2, version="quick")
    x_adv = adversary.run_standard_evaluation(images, labels)
    assert isinstance(x_adv, Tensor)
    said = capsys.readouterr().out
    assert "initial accuracy: 100.00%" in said
    assert f"robust accuracy: {adversary.robust_accuracy:.2%}" in said
    with pytest.raises(InvalidParameter, match="norm"):
        AutoAttack(net, norm="linf")  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match="version"):
        AutoAttack(net, version="custom")  # type: ignore[arg-type]


def test_benchmark_as_robustbench_calls_it() -> None:
    data = rb.load_data("digits")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(data.x), data.y).backward()
        optimiser.step()
    clean_acc, robust_acc = benchmark(net, n_examples=15, dataset="digits", threat_model="Linf", eps=0.08)
    with torch.no_grad():
        assert clean_acc == pytest.approx(float((net(data.x[:15]).argmax(1) == data.y[:15]).float().mean()))
    assert 0 < robust_acc < clean_acc
    with pytest.raises(InvalidParameter, match="eps"):
        benchmark(net, n_examples=5, dataset="digits")


def test_benchmark_says_where_the_files_are_not(tmp_path: Path) -> None:
    with pytest.raises(RobustError):
        benchmark(network_and_samples()[0], dataset="cifar10", data_dir=str(tmp_path))
