"""`gcp_head` on backbones of torchvision and timm: layers, checkpoints, compilation, ONNX."""

import copy

import onnx
import pytest
import timm
import torch
import torchvision
from gcp_riemann import GCPNetwork, gcp_head
from gcp_riemann.network import HEADS
from linalg_kernels.errors import LinAlgError
from onnx.reference import ReferenceEvaluator
from torch import nn


class Small(nn.Module):
    """Two maps, a mean and a classifier."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.fc = nn.Linear(12, 1000)

    def forward(self, x):
        return self.fc(self.second(self.first(x).relu()).mean((-2, -1)))


def images(batch=2, size=32):
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("head", HEADS)
def test_every_head(head):
    network = gcp_head(Small(), 5, 6, head, image_size=32)
    assert network.layers == ("second",)
    logits = network(images())
    assert logits.shape == (2, 5)
    nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
    missing = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    # What lies behind the pooled layer asks for no gradient, so that DDP does not wait for it.
    assert missing == []
    assert not network.backbone.get_parameter("fc.weight").requires_grad


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (lambda: torchvision.models.resnet18(), "layer4"),
        (lambda: torchvision.models.mobilenet_v3_small(), "features"),
        (lambda: timm.create_model("resnet18", num_classes=7), "layer4"),
        (lambda: timm.create_model("efficientnet_lite0"), None),
    ],
    ids=["resnet18", "mobilenet", "timm resnet18", "timm efficientnet"],
)
def test_backbones(make, layer):
    backbone = make()
    checkpoint = copy.deepcopy(backbone.state_dict())
    network = gcp_head(backbone, 5, 16, image_size=64)
    if layer is not None:
        assert network.layers == (layer,)
    logits = network(images(size=64))
    assert logits.shape == (2, 5)
    assert network.covariance(images(size=64)).shape == (2, 16, 16)
    # The backbone's own checkpoint, with its own names.
    other = gcp_head(make(), 5, 16, image_size=64)
    before = copy.deepcopy(other.head.state_dict())
    other.load_state_dict(checkpoint)
    for name, value in other.backbone.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(value, checkpoint[name]), name
    assert all(torch.equal(value, before[name]) for name, value in other.head.state_dict().items())
    # And the network's.
    other.load_state_dict(network.state_dict())
    network.eval()
    other.eval()
    assert torch.equal(other(images(size=64)), network(images(size=64)))


def test_incomplete_checkpoints_are_refused():
    network = gcp_head(Small(), 5, 6, image_size=32)
    part = {"first.weight": network.backbone.state_dict()["first.weight"]}
    with pytest.raises(RuntimeError, match=r"Missing key.*backbone\.second\.weight"):
        network.load_state_dict(part)
    own = network.state_dict()
    del own["head.fc.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*head\.fc\.weight"):
        network.load_state_dict(own)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        network.load_state_dict({**network.backbone.state_dict(), "other": torch.zeros(1)})


def test_layers_pooled_together():
    network = gcp_head(Small(), 5, 6, layers=("first", "second"), image_size=32)
    assert network.covariance(images()).shape == (2, 12, 12)
    assert network(images()).shape == (2, 5)
    plain = gcp_head(Small(), 5, None, layers=("first", "second"), image_size=32)
    assert plain.covariance(images()).shape == (2, 20, 20)


def test_copies_do_not_share_their_taps():
    network = gcp_head(Small(), 5, 6, image_size=32).eval()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin.backbone.get_parameter("second.weight").zero_()
        want = network(images())
        assert not torch.equal(twin(images()), want)
        assert torch.equal(network(images()), want)


def test_probing_leaves_the_backbone_as_it_is():
    backbone = torchvision.models.resnet18()
    backbone.layer1.eval()
    before = copy.deepcopy(backbone.state_dict())
    gcp_head(backbone, 5, 16, image_size=64)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert backbone.training
    assert not backbone.layer1.training
    frozen = torchvision.models.resnet18().requires_grad_(False)
    gcp_head(frozen, 5, 16, image_size=64)
    assert not any(p.requires_grad for p in frozen.parameters())


def test_bad_maps_name_the_image():
    network = gcp_head(Small(), 5, 6, image_size=32).eval()
    x = images(3)
    x[1, 0, 0, 0] = float("nan")
    with pytest.raises(LinAlgError, match=r"X\[1\] contains NaN or Inf"):
        network(x)


@pytest.mark.bad_input
def test_what_errors_say():
    with pytest.raises(ValueError, match=r"head must be one of 'log-emlr', .*, got 'sqrt'"):
        gcp_head(Small(), 5, head="sqrt")
    with pytest.raises(ValueError, match="layers must name modules of the backbone, got 'third'"):
        gcp_head(Small(), 5, layers="third", image_size=32)
    with pytest.raises(ValueError, match="layer 'fc' must give"):
        gcp_head(Small(), 5, layers="fc", image_size=32)
    with pytest.raises(ValueError, match="at least one module"):
        gcp_head(Small(), 5, layers=(), image_size=32)
    with pytest.raises(ValueError, match="must have a layer that gives"):
        gcp_head(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)), 5, image_size=32)


@pytest.mark.compile
@pytest.mark.parametrize("head", HEADS)
def test_compiles_as_one_graph(head):
    network = gcp_head(Small(), 5, 6, head, image_size=32).eval()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    weight = network.backbone.get_parameter("first.weight")
    found = []
    for model in (network, compiled):
        logits = model(images())
        (gradient,) = torch.autograd.grad(logits.logsumexp(-1).sum(), weight)
        found.append((logits.detach(), gradient))
    for want, got in zip(*found, strict=True):
        assert torch.allclose(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.compile
@pytest.mark.parametrize(
    ("head", "options"),
    [
        *((head, {}) for head in HEADS),
        ("scale-pow-emlr", {"method": "eigh"}),
        ("pow-emlr", {"theta": 0.7}),
        ("cho-tmlr", {"theta": 0.5}),
    ],
)
def test_exports_to_onnx(head, options, tmp_path):
    # Odd and even orders: rows meet in pairs.
    network = gcp_head(Small(), 5, 5 if head == "log-emlr" else 6, head, image_size=32, **options)
    network.eval()
    path = tmp_path / "network.onnx"
    torch.onnx.export(network, (images(),), path, dynamo=True, verbose=False)
    model = onnx.load(path)
    session = ReferenceEvaluator(model)
    (logits,) = session.run(None, {model.graph.input[0].name: images().numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.tensor(logits), network(images()), atol=1e-4)


def test_is_a_module_with_the_documented_parts():
    network = gcp_head(Small(), 5, 6, image_size=32)
    assert isinstance(network, GCPNetwork)
    assert {name for name, _ in network.named_children()} == {
        "backbone",
        "reductions",
        "pooling",
        "head",
    }
