"""Blocks, cuts and weights of the five families, held against torchvision's own models."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from genre_core.errors import InputError
from genre_core.families import BLOCKS, block_names
from genre_core.network import Network, ToImage, build
from genre_core.node_cache import NodeCache
from genre_core.weights import check_weights

FAMILIES = ("alexnet", "densenet121", "resnet18", "resnet34", "vgg11_bn")
CUTS = [(name, cut) for name in FAMILIES for cut in range(len(BLOCKS[name]) + 1)]
SHARED_WEIGHTS = Path(__file__).parents[2] / "shared" / "weights"
LEVELS = (torch.tensor([-40.0]), torch.tensor([15.0]))


def _mels(segments: int = 2, channels: int = 1) -> Tensor:
    """Log-mel segments in dB, [segments, channels, 64, 64]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(segments, channels, 64, 64, generator=generator) * 15 - 40


MakeNetwork = Callable[..., Network]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> MakeNetwork:
    """Makes a network of three genres, from starting points that are kept for all tests."""
    node_cache = NodeCache(tmp_path_factory.mktemp("shared"), budget_bytes=2**33)

    def network(name: str, cut: int, weights: str = "random") -> Network:
        return build(
            name,
            weights=weights,
            n_genres=3,
            frozen_blocks=cut,
            image=ToImage(*LEVELS),
            seed=0,
            node_cache=node_cache,
        )

    return network


@pytest.mark.parametrize("name", FAMILIES)
def test_the_blocks_in_order_are_torchvisions_model(name: str, tmp_path: Path, make: MakeNetwork) -> None:
    model = torchvision.models.get_model(name, weights=None).eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    network = make(name, 2, str(tmp_path / "w.pth")).eval()
    with torch.no_grad():
        head.weight, head.bias = (nn.Parameter(p) for p in (head.weight[:3], head.bias[:3]))
        network.trained.get_submodule("head").load_state_dict(head.state_dict())
        # not to the bit: torchvision's model has its maps in another order in memory
        assert torch.allclose(network(_mels()), model(network.image(_mels())), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "cut"), CUTS)
def test_training_leaves_frozen_blocks_as_they_were_to_the_bit(
    name: str, cut: int, make: MakeNetwork
) -> None:
    network = make(name, cut)
    before = {key: value.clone() for key, value in network.flat_state().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    network.train()
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(_mels()), torch.tensor([0, 2])).backward()
        optimizer.step()
    frozen = block_names(name)[:cut]
    for key, value in network.flat_state().items():
        if key.split(".")[0] in (*frozen, "image"):
            assert torch.equal(value, before[key]), key
    assert not torch.equal(network.flat_state()["head.weight"], before["head.weight"])
    if cut < len(BLOCKS[name]):
        first_trained = block_names(name)[cut]
        assert any(
            not torch.equal(value, before[key])
            for key, value in network.flat_state().items()
            if key.startswith(f"{first_trained}.")
        )


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn"])
def test_dropout_in_frozen_blocks_is_off_and_in_trained_blocks_on(name: str, make: MakeNetwork) -> None:
    frozen, trained = make(name, len(BLOCKS[name])).train(), make(name, 0).train()
    assert torch.equal(frozen(_mels()), frozen(_mels()))
    assert not torch.equal(trained(_mels()), trained(_mels()))


@pytest.mark.parametrize("name", FAMILIES)
def test_activations_at_the_deepest_cut_do_not_depend_on_the_company(name: str, make: MakeNetwork) -> None:
    network, mels = make(name, len(BLOCKS[name])), _mels(21)
    together = network.to_cut(mels)
    assert len(together) == 21
    for few in (torch.tensor([20]), torch.tensor([5, 0, 19]), torch.arange(20, -1, -1)):
        assert torch.equal(network.to_cut(mels[few]), together[few])


def test_one_channel_is_repeated_and_three_are_kept() -> None:
    repeated = ToImage(*LEVELS)(_mels())
    assert repeated.shape == (2, 3, 64, 64)
    assert torch.equal(repeated[:, 0], repeated[:, 2])
    three = ToImage(torch.tensor([-40.0, -41.0, -42.0]), torch.ones(3))(_mels(channels=3))
    assert not torch.equal(three[:, 0], three[:, 2])


def test_the_same_seed_gives_the_same_network_and_leaves_the_callers_random_numbers_alone(
    make: MakeNetwork,
) -> None:
    state = torch.get_rng_state()
    first, second = make("resnet18", 1).flat_state(), make("resnet18", 3).flat_state()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(torch.get_rng_state(), state)


def _state(**changes: Tensor | None) -> dict[str, Tensor]:
    """AlexNet's convolutions, with some keys changed (`__` for a dot) or taken out."""
    with torch.device("meta"):
        model = torchvision.models.alexnet()
    whole = {k: torch.zeros(v.shape) for k, v in model.state_dict().items() if k.startswith("features")}
    whole |= {key.replace("__", "."): value for key, value in changes.items()}  # type: ignore[misc]
    return {key: value for key, value in whole.items() if value is not None}


class _Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("this must never be printed",))


def _truncated(path: Path) -> None:
    torch.save(_state(), path)
    path.write_bytes(path.read_bytes()[:1000])


BAD_WEIGHTS = {
    "an unexpected key": (
        lambda p: torch.save(_state(features__99__bias=torch.ones(1)), p),
        "features.99.bias",
    ),
    "another shape": (
        lambda p: torch.save(_state(features__0__bias=torch.ones(1)), p),
        r"shape \[1\], not \[64\]",
    ),
    "half a layer": (lambda p: torch.save(_state(features__0__bias=None), p), "lack features.0.bias"),
    "nothing": (lambda p: torch.save({}, p), "at least one layer"),
    "a list": (lambda p: torch.save([torch.ones(1)], p), "something else"),
    "a pickle with code": (lambda p: p.write_bytes(pickle.dumps(_Payload(), protocol=2)), "cannot be read"),
    "a cut file": (_truncated, "cannot be read"),
    "no file": (lambda p: None, "cannot be read"),
    "text": (lambda p: p.write_text("weights"), "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_that_do_not_fit_are_refused_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write, reason = BAD_WEIGHTS[case]
    write(tmp_path / "w.pth")
    with pytest.raises(InputError, match=reason) as caught:
        check_weights("alexnet", str(tmp_path / "w.pth"))
    assert "\n" not in str(caught.value)
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_layers_missing_as_a_whole_are_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(_state(), path)
    assert check_weights("alexnet", str(path)) == ("fc6", "fc7")


def test_densenets_published_names_are_understood(tmp_path: Path, make: MakeNetwork) -> None:
    model = torchvision.models.densenet121()
    published = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in model.state_dict().items()
    }
    torch.save(published, tmp_path / "w.pth")
    assert check_weights("densenet121", str(tmp_path / "w.pth")) == ()
    network = make("densenet121", 0, str(tmp_path / "w.pth"))
    key = "denseblock1.denselayer1.conv2.weight"
    assert torch.equal(
        network.flat_state()[f"block1.0.{key.split('.', 1)[1]}"], model.features.get_parameter(key)
    )


def test_imagenet_weights_that_cannot_be_downloaded_name_the_file_and_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(InputError, match=rf"put resnet18-\w+\.pth into {tmp_path}/hub/checkpoints"):
        check_weights("resnet18", "imagenet")


def test_real_convolutions_are_loaded_into_their_blocks(make: MakeNetwork) -> None:
    alexnet = SHARED_WEIGHTS / "alexnet-features-imagenet.pth"
    if not alexnet.exists():
        pytest.skip("needs AlexNet's ImageNet convolutions in ../shared/weights")
    network = make("alexnet", 5, str(alexnet))
    published = torch.load(alexnet, weights_only=True)
    assert torch.equal(network.flat_state()["conv1.0.weight"], published["features.0.weight"])


@pytest.mark.parametrize(
    ("name", "hint"), [("resnet", "did you mean resnet"), ("cnn", "choose from alexnet")]
)
def test_an_unknown_backbone_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        block_names(name)
