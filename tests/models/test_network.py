"""Blocks and freeze depths of all families, compared with torchvision's own models."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from small_models import SIZES, models_of
from torch import Tensor, nn

from genre_core.errors import ErrorCode, InputError
from genre_core.models.network import Network, ToImage, build
from genre_core.models.registry import BLOCKS, block_names
from genre_core.system.disk_cache import NodeCache

FAMILIES = ("alexnet", "densenet121", "resnet18", "resnet34", "vgg11_bn")
DEPTHS = [(name, depth) for name in FAMILIES for depth in range(len(BLOCKS[name]) + 1)]
LEVELS = (torch.tensor([-40.0]), torch.tensor([15.0]))

MakeNetwork = Callable[..., Network]


def _mels(segments: int = 2, channels: int = 1) -> Tensor:
    """Log-mel segments in dB, [segments, channels, 64, 64]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(segments, channels, 64, 64, generator=generator) * 15 - 40


@pytest.fixture(scope="module", params=SIZES)
def size(request: pytest.FixtureRequest) -> Iterator[str]:
    with models_of(request.param):
        yield request.param


@pytest.fixture(scope="module")
def make(size: str, tmp_path_factory: pytest.TempPathFactory) -> MakeNetwork:
    """Builds a network of three genres, with initial weights that all tests share."""
    node_cache = NodeCache(tmp_path_factory.mktemp(size), budget_bytes=2**33)

    def network(name: str, depth: int, weights: str = "random") -> Network:
        return build(
            name,
            weights=weights,
            n_genres=3,
            frozen_blocks=depth,
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
        network.trainable.get_submodule("head").load_state_dict(head.state_dict())
        # not bit for bit: the two models have different memory formats
        assert torch.allclose(network(_mels()), model(network.image(_mels())), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "depth"), DEPTHS)
def test_training_changes_trainable_blocks_and_no_bit_of_frozen_ones(
    name: str, depth: int, make: MakeNetwork
) -> None:
    network = make(name, depth)
    before = {key: value.clone() for key, value in network.flat_state().items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    network.train()
    assert not any(module.training for module in network.frozen.modules())
    assert not any(parameter.requires_grad for parameter in network.frozen.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(_mels()), torch.tensor([0, 2])).backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
    after = network.flat_state()
    changed = {key.split(".")[0] for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed == {*block_names(name)[depth:], "head"}


@pytest.mark.parametrize("name", ["alexnet", "vgg11_bn"])
def test_dropout_is_off_in_frozen_blocks_and_on_in_trainable_ones(name: str, make: MakeNetwork) -> None:
    frozen, trainable = make(name, len(BLOCKS[name])).train(), make(name, 0).train()
    assert torch.equal(frozen(_mels()), frozen(_mels()))
    assert not torch.equal(trainable(_mels()), trainable(_mels()))


@pytest.mark.parametrize("name", FAMILIES)
def test_activations_do_not_depend_on_the_other_segments_of_the_batch(name: str, make: MakeNetwork) -> None:
    network, mels = make(name, len(BLOCKS[name])), _mels(21)
    together = network.frozen_forward(mels)
    assert len(together) == 21
    for few in (torch.tensor([20]), torch.tensor([5, 0, 19]), torch.arange(20, -1, -1)):
        assert torch.equal(network.frozen_forward(mels[few]), together[few])


@pytest.mark.parametrize("name", FAMILIES)
def test_where_lookups_are_not_padded_blocks_compute_the_batch_alone(
    name: str, make: MakeNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, mels = make(name, 2), _mels(5)
    padded = network.frozen_forward(mels)
    monkeypatch.setattr("genre_core.models.network.PADDED_LOOKUPS", ())
    rows = list[int]()
    network.frozen[0].register_forward_hook(lambda _, inputs, output: rows.append(len(output)))
    alone = network.frozen_forward(mels)
    assert rows == [5]
    assert not alone.requires_grad
    assert torch.allclose(alone, padded, rtol=1e-4, atol=1e-5)


def test_one_channel_is_repeated_and_three_are_kept() -> None:
    repeated = ToImage(*LEVELS)(_mels())
    assert repeated.shape == (2, 3, 64, 64)
    assert torch.equal(repeated[:, 0], repeated[:, 2])
    three = ToImage(torch.tensor([-40.0, -41.0, -42.0]), torch.ones(3))(_mels(channels=3))
    assert not torch.equal(three[:, 0], three[:, 2])


def test_the_same_seed_gives_the_same_network_and_leaves_the_global_random_state_alone(
    make: MakeNetwork,
) -> None:
    state = torch.get_rng_state()
    first, second = make("resnet18", 1).flat_state(), make("resnet18", 3).flat_state()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(("name", "hint"), [("resnet", "resnet34"), ("cnn", "alexnet")])
def test_an_unknown_backbone_is_refused_with_the_nearest_name_or_all(name: str, hint: str) -> None:
    with pytest.raises(InputError) as error:
        block_names(name)
    assert error.value.code is ErrorCode.UNKNOWN_BACKBONE
    assert f"backbone={name!r}" in str(error.value)
    assert hint in str(error.value)
