"""The VAE: the released code's forward pass, and codes that do not depend on their neighbours."""

from pathlib import Path

import numpy as np
import pytest
import torch
from chemflow.elbo import official_loss
from chemflow.networks import ResidualNetwork
from chemflow.vae import Config, MoleculeVAE, load_model, preset, save_model
from chemflow.vocabulary import Vocabulary

GOLDEN = {
    name: torch.from_numpy(array)
    for name, array in np.load(Path(__file__).parent / "vae_forward.npz").items()
}
TOKENS = Vocabulary.of(
    ["[C]", "[=C]", "[N]", "[O]", "[=O]", "[Branch1]", "[Ring1]", "[=Branch1]", "[F]", "[Cl]",
     "[S]", "[#N]", "[Ring2]", "[Branch2]"]
)  # fmt: skip


def loaded(prefix: str, module: torch.nn.Module) -> torch.nn.Module:
    names = {n[len(prefix) :]: v for n, v in GOLDEN.items() if n.startswith(prefix)}
    module = module.double()
    module.load_state_dict(names)
    return module


def small(state: int = 0, seed: int = 0) -> MoleculeVAE:
    torch.manual_seed(seed)
    return MoleculeVAE(Config(12, 8, 6, (32, 24, 16), state, 10), TOKENS).eval()


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_forward_pass_is_the_released_code_s(mode):
    model = MoleculeVAE(Config(12, 8, 6, (32, 24, 16)), TOKENS)
    loaded("vae.", model).train(mode == "train")
    network = loaded("pred.", ResidualNetwork(180, [20, 20])).train(mode == "train")

    def held(name):
        return GOLDEN[f"{mode}.{name}"]

    def same(found, name):
        torch.testing.assert_close(found, held(name), rtol=0, atol=1e-12)

    x, z = GOLDEN["x"], GOLDEN["z"]
    mu, log_var = model.encode(x)
    same(mu, "mu")
    same(log_var, "log_var")
    same(mu + (log_var / 2).exp() * held("eps"), "z_sampled_seed123")
    decoded = model.decoder.logits(z, x).log_softmax(-1)
    same(decoded.flatten(1), "decode_logprob")
    logits = model.decoder.logits(mu, x)
    same(logits.log_softmax(-1).flatten(1), "decode_mu_logprob")
    for p in (0.1, 0.5):
        same(torch.stack(official_loss(logits, x, mu, log_var, p)), f"loss_p{p}")
    same(network(decoded.exp())[:, None], "predictor_of_decode_z")


def test_paper_preset_has_the_paper_s_size():
    with torch.device("meta"):
        model = MoleculeVAE(preset("paper", 72), Vocabulary.of(f"[{i}]" for i in range(243)))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(134e6, rel=0.01)
    assert model.state_dict()["decoder.9.weight"].shape == (72 * 244, 4096)


def test_tiny_preset_has_few_parameters():
    model = MoleculeVAE(preset("tiny", 49), Vocabulary.of(f"[{i}]" for i in range(26)))
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(2.36e6, rel=0.01)


@pytest.mark.bad_input
def test_a_preset_that_is_none():
    with pytest.raises(ValueError, match="'huge'"):
        preset("huge", 49)  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize("state", [0, 20])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_shapes_for_any_number_of_rows(state, n):
    model = small(state)
    z = torch.randn(n, 8)
    assert model.decode_ids(z).shape == (n, 12)
    assert len(model.decode_smiles(z)) == n
    assert model.probabilities(z).shape == (n, 12, 15)
    assert model.encode_ids(torch.zeros(n, 12, dtype=torch.int64)).shape == (n, 8)


@pytest.mark.parametrize("state", [0, 20])
def test_a_row_does_not_depend_on_its_neighbours(state):
    model = small(state).double()
    z = 3 * torch.randn(9, 8, dtype=torch.float64)
    together = model.probabilities(z)
    alone = torch.cat([model.probabilities(z[i : i + 1]) for i in range(9)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-14)
    assert model.decode_smiles(z) == [
        s for i in range(9) for s in model.decode_smiles(z[i : i + 1])
    ]


@pytest.mark.parametrize("state", [0, 20])
def test_probabilities_have_the_gradient_of_finite_differences(state):
    model = small(state).double()
    z = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.probabilities, z)


@pytest.mark.parametrize("state", [0, 20])
def test_a_saved_model_is_the_same(state, tmp_path):
    model = small(state)
    z = torch.randn(4, 8)
    save_model(tmp_path, model)
    again = load_model(tmp_path)
    assert again.vocabulary == model.vocabulary
    assert again.config == model.config
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())
    assert torch.equal(again.probabilities(z), model.probabilities(z))


def test_other_files_are_refused_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_model(tmp_path)


def test_molecules_have_codes_and_strange_ones_are_named():
    model = small()
    codes = model.encode_smiles(["CCO", "OCC", "C=CN"])
    assert codes.shape == (3, 8)
    # Two spellings of one molecule have one code.
    assert torch.equal(codes[0], codes[1])
    assert model.encode_smiles([]).shape == (0, 8)
    with pytest.raises(ValueError, match=r"CC\[Si\]C|Si"):
        model.encode_smiles(["CCO", "C[SiH2]C"])
    with pytest.raises(ValueError, match="too long"):
        model.encode_smiles(["C" * 13])


def test_training_mode_and_bad_codes_are_refused():
    model = small()
    with pytest.raises(ValueError, match=r"z must be \(b, 8\), got \(2, 7\)"):
        model.decode_smiles(torch.zeros(2, 7))
    z = torch.zeros(3, 8)
    z[1, 2] = torch.nan
    with pytest.raises(ValueError, match="row 1"):
        model.decode_smiles(z)
    with pytest.raises(ValueError, match=r"ids must be \(b, 12\)"):
        model.encode(torch.zeros(2, 11, dtype=torch.int64))
    model.train()
    with pytest.raises(RuntimeError, match="training mode"):
        model.decode_smiles(torch.zeros(2, 8))


@pytest.mark.parametrize("state", [0, 16])
def test_drawn_molecules_follow_row_and_seed(state):
    model = small(state).eval()
    every = model.sample_smiles(torch.arange(60), seed=3)
    assert model.sample_smiles(torch.tensor([40, 7]), seed=3) == [every[40], every[7]]
    assert model.sample_smiles(torch.arange(60), seed=4) != every
    cold = model.sample_smiles(torch.arange(60), seed=3, temperature=1e-6)
    assert cold == model.decode_smiles(model.sample_codes(torch.arange(60), seed=3)) != every
    assert model.sample_smiles(torch.arange(0), seed=3) == []


@pytest.mark.bad_input
def test_drawing_needs_a_temperature():
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        small().eval().sample_smiles(torch.arange(2), seed=0, temperature=0.0)


def test_codes_of_the_standard_prior_follow_row_and_seed():
    model = small()
    all_rows = model.sample_codes(torch.arange(100), seed=3)
    assert torch.equal(model.sample_codes(torch.tensor([40, 7]), seed=3), all_rows[[40, 7]])
    assert not torch.equal(model.sample_codes(torch.arange(100), seed=4), all_rows)
    assert all_rows.std().item() == pytest.approx(1, abs=0.1)
