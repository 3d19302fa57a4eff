"""An estimator on a network's features: what each of the two alone would make of them, end to end."""

import pytest
import torch
from torch import nn

import robustbench_lite as rb
from robustbench_lite.core.errors import InvalidParameter, Unsupported
from robustbench_lite.models.behind import Behind
from robustbench_lite.models.torch.embedding import embedding
from robustbench_lite.models.torch.module import TorchModel


def test_an_estimator_sees_what_the_last_layer_is_given_and_gradients_pass_through_both() -> None:
    data = rb.load_data("digits", samples=200)
    for name, smooth in (("features(cnn,logistic)", True), ("features(cnn,tree)", False)):
        model = rb.load_model(name, data)
        network = rb.load_model("cnn", data)
        assert isinstance(model, Behind)
        assert isinstance(network, TorchModel)
        assert model.name == name
        assert torch.allclose(model.scores(data.x), model.model.scores(embedding(network, data.x)), atol=1e-6)
        assert (model.prediction(model.scores(data.x)) == data.y).float().mean() > 0.85
        assert model.gradient_is_truth == smooth
        x = data.x[:3].clone().requires_grad_()
        (slope,) = torch.autograd.grad(model.gradient_scores(x).diff(dim=1).square().sum(), x)
        assert (slope != 0).flatten(1).any(1).all()
        if smooth:
            way = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 1e-2
            with torch.no_grad():
                change = model.scores(x + way) - model.scores(x - way)
            rows = [torch.autograd.grad(model.scores(x)[0, c], x, retain_graph=True)[0] for c in range(10)]
            told = torch.stack([(2 * row * way)[0].sum() for row in rows])
            assert torch.allclose(
                change[0].float(), told.float(), rtol=0.2, atol=0.2 * float(told.abs().max())
            )
    run = rb.run(data, ["features(cnn,logistic)"], ["pgd:steps=10", "square:steps=100"], ["linf:0.1"])
    assert not run.failures
    assert float(run.table("worst_case")["robust"].iloc[0]) < 0.8
    assert any("features of cnn's last layer" in note for note in run.notes)


def test_what_is_no_network_and_an_estimator_is_refused_in_a_line() -> None:
    data = rb.load_data("digits", samples=20)
    with pytest.raises(InvalidParameter, match="a network and an estimator"):
        rb.load_model("features(cnn)", data)
    with pytest.raises(Unsupported, match="must be a plain network"):
        rb.load_model("features(tree,svm)", data)
    plain = TorchModel(nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten()), (1, 8, 8))
    with pytest.raises(Unsupported, match="has no linear layer"):
        embedding(plain, data.x)
