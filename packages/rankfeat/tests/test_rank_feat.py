"""RankFeat on whole models, against the branches computed by hand."""

import copy
from types import SimpleNamespace

import pytest
import torch
from linalg_kernels.errors import LinAlgError
from rankfeat import MSP, Energy, MaxLogit, RankFeat, remove_feature
from safetensors.torch import save_file
from torch import nn


def draw(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


class ConvNet(nn.Module):
    """Three blocks, mean over positions, linear head; counts the samples that its stem sees."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.block3 = nn.Sequential(nn.Conv2d(8, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.block4 = nn.Sequential(nn.Conv2d(12, 16, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(16, 5)
        self.unused = nn.Linear(1, 1)
        self.seen = 0
        self.to(dtype).eval()

    def head(self, F):
        return self.fc(F.mean((-2, -1)))

    def forward(self, x):
        self.seen += len(x)
        return self.head(self.block4(self.block3(self.stem(x))))


class Residual(ConvNet):
    """A skip around block3: its output meets the unedited batch."""

    def __init__(self):
        super().__init__()
        self.block3 = nn.Conv2d(8, 8, 1, dtype=torch.float64)
        self.block4 = nn.Conv2d(8, 16, 1, dtype=torch.float64)
        self.eval()

    def forward(self, x):
        F = self.stem(x)
        return self.head(self.block4(F + self.block3(F)))


class Block(nn.Module):
    """A layer that returns a tuple, as those of transformers do."""

    def __init__(self):
        super().__init__()
        self.mlp = nn.Linear(6, 6)

    def forward(self, tokens):
        return tokens + self.mlp(tokens).tanh(), "attention"


class Transformer(nn.Module):
    """Tokens with a class token; logits in an object."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(6, 4)
        self.eval()

    def forward(self, tokens):
        for block in self.blocks:
            tokens, _ = block(tokens)
        return SimpleNamespace(logits=self.head(tokens[:, 0]))


def by_hand(net, x):
    """Logits of the model and of the branches of block3 and block4."""
    F3 = net.block3(net.stem(x))
    F4 = net.block4(F3)
    return net.head(F4), net.head(net.block4(remove_feature(F3))), net.head(remove_feature(F4))


X = draw(4, 3, 32, 32)


@pytest.mark.parametrize("trunk", ["shared", "repeated"])
@pytest.mark.parametrize("score", [Energy(), Energy(3.0), MSP(), MaxLogit()])
def test_fused_scores_against_the_branches_by_hand(trunk, score):
    net = ConvNet()
    got = RankFeat(net, ["block3", "block4"], score=score, trunk=trunk)(X)
    plain, three, four = by_hand(net, X)
    torch.testing.assert_close(got.logits, plain, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(got.edited_logits, (three + four) / 2, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(got.score, score((three + four) / 2), rtol=1e-10, atol=1e-12)
    assert got.label.tolist() == plain.argmax(1).tolist()


@pytest.mark.parametrize("layer", [0, 1])
def test_one_layer(layer):
    net = ConvNet()
    got = RankFeat(net, [("block3", "block4")[layer]])(X).edited_logits
    torch.testing.assert_close(got, by_hand(net, X)[1 + layer], rtol=1e-10, atol=1e-12)


def test_order_of_the_names_does_not_matter():
    net = ConvNet()
    forward = RankFeat(net, ["block3", "block4"]).score(X)
    torch.testing.assert_close(RankFeat(net, ["block4", "block3"]).score(X), forward)


def test_the_trunk_runs_once():
    net = ConvNet()
    RankFeat(net, ["block3", "block4"])(X)
    assert net.seen == len(X)
    RankFeat(net, ["block3", "block4"], trunk="repeated")(X)
    assert net.seen == 4 * len(X)


def test_class_is_that_of_the_model_where_removal_changes_it():
    net = ConvNet()
    nn.init.zeros_(net.fc.bias)
    x = draw(40, 3, 32, 32, seed=1)
    got = RankFeat(net, ["block4"])(x)
    assert got.label.tolist() == net(x).argmax(1).tolist()
    assert got.label.tolist() != got.edited_logits.argmax(1).tolist()


def test_the_model_is_left_as_it_is():
    net = ConvNet()
    want = net(X)
    with RankFeat(net, ["block3"]) as one, RankFeat(net, ["block4"]) as other:
        first, second = one.score(X), other.score(X)
        torch.testing.assert_close(net(X), want, rtol=0, atol=0)
        torch.testing.assert_close(one.score(X), first, rtol=0, atol=0)
        assert not torch.equal(first, second)
        one.close()
        torch.testing.assert_close(other.score(X), second, rtol=0, atol=0)
        with pytest.raises(RuntimeError, match="this detector is closed"):
            one(X)
    assert not any(module._forward_hooks for module in net.modules())


def test_a_failed_pass_leaves_no_trace():
    net = ConvNet()
    detector = RankFeat(net, ["block3", "block4"])
    want = detector.score(X)
    with pytest.raises(RuntimeError):
        detector(X[:, :2])
    torch.testing.assert_close(net(X), by_hand(net, X)[0])
    torch.testing.assert_close(detector.score(X), want, rtol=0, atol=0)


@pytest.mark.parametrize("trunk", ["shared", "repeated"])
def test_tokens_tuples_and_logits_in_an_object(trunk):
    net = Transformer()
    tokens = draw(3, 7, 6, dtype=torch.float32)
    got = RankFeat(net, ["blocks.0", "blocks.1"], trunk=trunk)(tokens=tokens).edited_logits
    first = net.blocks[0](tokens)[0]
    one = net.head(net.blocks[1](remove_feature(first))[0][:, 0])
    two = net.head(remove_feature(net.blocks[1](first)[0])[:, 0])
    torch.testing.assert_close(got, (one + two) / 2)


def test_a_skip_around_the_layer_needs_the_repeated_trunk():
    net = Residual()
    with pytest.raises(RuntimeError) as caught:
        RankFeat(net, ["block3"])(X)
    assert "use trunk='repeated'" in caught.value.__notes__[0]
    F = net.stem(X)
    want = net.head(net.block4(F + remove_feature(net.block3(F))))
    got = RankFeat(net, ["block3"], trunk="repeated")(X).edited_logits
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    # One sample is broadcast, which is right.
    got = RankFeat(net, ["block3"])(X[:1]).edited_logits
    torch.testing.assert_close(got, want[:1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("samples", [0, 1])
def test_small_batches(samples):
    net = ConvNet()
    got = RankFeat(net, ["block3", "block4"])(X[:samples])
    want = RankFeat(net, ["block3", "block4"])(X)
    torch.testing.assert_close(got.score, want.score[:samples], rtol=1e-10, atol=1e-12)
    assert got.logits.shape == (samples, 5)


def test_autocast():
    net = ConvNet(torch.float32)
    x = X.float()
    detector = RankFeat(net, ["block3", "block4"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = detector(x)
    assert got.logits.dtype == torch.bfloat16
    assert got.score.dtype == torch.float32
    torch.testing.assert_close(got.score, detector(x).score, rtol=0.02, atol=0.02)


def test_gradients_reach_the_input():
    x = X.clone().requires_grad_()
    RankFeat(ConvNet(), ["block3"])(x).score.sum().backward()
    assert x.grad is not None
    assert bool(x.grad.any())
    assert not RankFeat(ConvNet(), ["block3"]).score(x).requires_grad


def test_copies_are_independent():
    net = ConvNet()
    detector = RankFeat(net, ["block4"])
    twin = copy.deepcopy(detector)
    want = detector.score(X)
    detector.close()
    torch.testing.assert_close(twin.score(X), want, rtol=0, atol=0)
    assert net.seen == len(X)


def test_calibrate_accepts_the_share_and_predict_flags_the_rest():
    detector = RankFeat(ConvNet(), ["block4"])
    data = draw(40, 3, 32, 32, seed=2)
    labels = torch.zeros(8)
    threshold = detector.calibrate([(batch, labels) for batch in data.split(8)], tpr=0.9)
    scores = detector.score(data)
    # Batches of another size differ by rounding: that of the threshold itself is near.
    assert int((scores >= threshold - 1e-12).sum()) == 36
    assert threshold == pytest.approx(float(scores.sort().values[4]), rel=1e-12)
    flagged = detector.predict(data)
    assert flagged.dtype == torch.bool
    assert flagged.tolist() == (scores < threshold).tolist()
    assert detector.calibrate([{"x": data}], tpr=1.0) == pytest.approx(float(scores.min()))


def test_a_score_that_is_nan_is_out_of_distribution():
    detector = RankFeat(ConvNet(), ["block4"], check=False)
    detector.calibrate([X])
    x = X.clone()
    x[2] = torch.nan
    got = detector.predict(x)
    assert bool(got[2])
    assert got[[0, 1, 3]].tolist() == detector.predict(X)[[0, 1, 3]].tolist()
    with pytest.raises(ValueError, match=r"id_scores\[2\] is NaN or Inf"):
        detector.calibrate([x])
    with pytest.raises(LinAlgError, match=r"features\[2\] contains NaN or Inf"):
        RankFeat(ConvNet(), ["block4"])(x)


def test_saved_with_its_threshold(tmp_path):
    net = ConvNet()
    detector = RankFeat(
        net, ["block3", "block4"], score=Energy(2.0), layout="nchw", iters=30, trunk="repeated"
    )
    threshold = detector.calibrate([draw(21, 3, 32, 32, seed=3)], tpr=0.8)
    detector.save(tmp_path / "detector.safetensors")
    loaded = RankFeat.load(tmp_path / "detector.safetensors", ConvNet())
    assert loaded.threshold == threshold
    assert (loaded.layers, loaded.trunk) == (("block3", "block4"), "repeated")
    assert (loaded.iters, loaded.layout, loaded.score_function) == (30, "nchw", Energy(2.0))
    assert loaded.predict(X).tolist() == detector.predict(X).tolist()


def test_load_refuses_other_weights_and_other_files(tmp_path):
    detector = RankFeat(ConvNet(), ["block4"])
    detector.calibrate([X])
    path = tmp_path / "detector.safetensors"
    detector.save(path)
    changed = ConvNet()
    with torch.no_grad():
        changed.fc.bias[0] += 1e-9
    with pytest.raises(ValueError, match=r"model must have the weights that .* calibrated with"):
        RankFeat.load(path, changed)
    save_file({"id_scores": torch.zeros(3)}, str(path))
    with pytest.raises(ValueError, match="must be a rankfeat-1 file, got None"):
        RankFeat.load(path, ConvNet())


def test_what_needs_a_threshold_says_so(tmp_path):
    detector = RankFeat(ConvNet(), ["block4"])
    for use in (lambda: detector.predict(X), lambda: detector.save(tmp_path / "d")):
        with pytest.raises(RuntimeError, match="has no threshold: call calibrate"):
            use()
    with pytest.raises(ValueError, match="batches must hold at least one sample"):
        detector.calibrate([])
    with pytest.raises(ValueError, match=r"tpr must lie in \(0, 1\], got 1.5"):
        detector.calibrate([X], tpr=1.5)


def test_wrong_layers():
    net = ConvNet()
    with pytest.raises(ValueError, match="has no layer 'block'; near to it are 'block"):
        RankFeat(net, ["block"])
    with pytest.raises(ValueError, match="layers must name each layer once"):
        RankFeat(net, ["block3", "block3"])
    with pytest.raises(ValueError, match="layers must name at least one layer"):
        RankFeat(net, [])
    with pytest.raises(RuntimeError, match=r"layers \['unused'\] did not run in this pass"):
        RankFeat(net, ["block3", "unused"])(X)
    assert not any(module._forward_hooks for name, module in net.named_modules() if name == "fc")


def test_a_layer_that_runs_twice():
    layer = nn.Conv2d(3, 3, 1, dtype=torch.float64)
    net = nn.Sequential(layer, layer, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(RuntimeError, match="layer '0' must run once in a pass, but ran again"):
        RankFeat(net, ["0"])(X)


def test_batch_must_come_first():
    class Windows(nn.Module):
        def forward(self, x):
            return x.reshape(len(x) * 2, 3, 16, 32)

    class Merge(nn.Module):
        def forward(self, x):
            return x.reshape(len(x) // 2, -1)[:, :5]

    net = nn.Sequential(Windows(), Merge()).eval()
    with pytest.raises(ValueError, match="must have the batch first, got a first dimension of 8"):
        RankFeat(net, ["0"])(X)


def test_a_model_that_trains_is_refused():
    net = ConvNet()
    net.block3[1].train()
    with pytest.raises(RuntimeError, match=r"must be in eval mode, but 'block3.1' trains"):
        RankFeat(net, ["block4"])(X)


def test_wrong_output():
    net = nn.Sequential(nn.Conv2d(3, 4, 1, dtype=torch.float64)).eval()
    with pytest.raises(ValueError, match=r"model must return logits \(b, classes\), got \(8, 4"):
        RankFeat(net, ["0"])(X)


@pytest.mark.bad_input
def test_wrong_arguments():
    with pytest.raises(TypeError, match="layers must be a sequence of names, got the string"):
        RankFeat(ConvNet(), "block3")
    with pytest.raises(TypeError, match="score must be one of Energy, MSP, MaxLogit, got 'msp'"):
        RankFeat(ConvNet(), ["block3"], score="msp")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="trunk must be 'shared' or 'repeated', got 'once'"):
        RankFeat(ConvNet(), ["block3"], trunk="once")  # ty: ignore[invalid-argument-type]


@pytest.mark.compile
@pytest.mark.parametrize("trunk", ["shared", "repeated"])
def test_compile(trunk):
    net = ConvNet(torch.float32)
    detector = RankFeat(net, ["block3", "block4"], trunk=trunk)
    x = X.float()
    want = detector(x)
    got = torch.compile(detector, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(got.score, want.score, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.logits, want.logits)


@pytest.mark.compile
def test_a_model_compiled_before():
    net = ConvNet(torch.float32)
    want = RankFeat(copy.deepcopy(net), ["block3"])(X.float())
    net.compile(backend="eager")
    net(X.float())
    with RankFeat(net, ["block3"]) as detector:
        got = detector(X.float())
    torch.testing.assert_close(got.edited_logits, want.edited_logits)
    torch.testing.assert_close(net(X.float()), want.logits)


@pytest.mark.compile
def test_export():
    net = ConvNet(torch.float32)
    detector = RankFeat(net, ["block3", "block4"])
    program = torch.export.export(detector, (X.float(),))
    torch.testing.assert_close(program.module()(X.float()).score, detector(X.float()).score)
