"""The backbones of docs/backbones.md: they train, freeze, share, are saved, exported and loaded as built-in ones do."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from documented import CNN10, CONVNEXT_TINY, DEPTHS, EFFICIENTNET_B0, MOBILENET, RESNET50, files, importable
from noise import GENRES, RECIPE, arrays, network
from refusals import refused
from torch import Tensor, nn

from genre_core.audio.mel import front_end
from genre_core.errors import ErrorCode
from genre_core.models.block_costs import multiply_adds, trainable_parameters
from genre_core.models.network import Network, restore
from genre_core.models.pretrained import CheckedWeights, check_weights, imagenet_file
from genre_core.models.registry import BUILTIN, block_names, find_backbone
from genre_core.onnx_export import write_onnx
from genre_core.predict import Model
from genre_core.recipe import Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.training.activation_cache import ActivationCache
from genre_core.training.fine_tune import EpochResult, FineTune
from search.run.model_store import write_model

TORCHVISION = {
    RESNET50: torchvision.models.ResNet50_Weights.IMAGENET1K_V2,
    EFFICIENTNET_B0: torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1,
    MOBILENET: torchvision.models.MobileNet_V3_Small_Weights.IMAGENET1K_V1,
    CONVNEXT_TINY: torchvision.models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1,
}
CPU = torch.device("cpu")
SIDE = 32
"""Pixels per side of a segment, the smallest that all these networks take."""
PARTS = tuple(arrays(count, seed=count, side=SIDE).to(CPU) for count in (11, 5))
"""Training and validation segments."""
MakeNetwork = Callable[..., Network]


@pytest.fixture(scope="module", autouse=True)
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The document's modules can be imported."""
    with importable(tmp_path_factory.mktemp("modules"), files("python")):
        yield


@pytest.fixture(scope="module")
def make(documented: None, tmp_path_factory: pytest.TempPathFactory) -> MakeNetwork:
    """Builds a network with initial weights that all tests share."""
    node_cache = NodeCache(tmp_path_factory.mktemp("initial"), budget_bytes=2**33)

    def made(name: str, depth: int, **settings: Any) -> Network:
        recipe = replace(RECIPE, backbone=name, frozen_blocks=depth, **settings)
        return network(recipe, node_cache, PARTS[0])

    return made


def _mels(segments: int = 2, side: int = SIDE) -> Tensor:
    """Log-mel segments in dB, [segments, 1, side, side]."""
    return torch.randn(segments, 1, side, side, generator=torch.Generator().manual_seed(0)) * 15 - 50


def test_the_document_names_its_blocks() -> None:
    assert {name: len(block_names(name)) for name in DEPTHS} == DEPTHS


@pytest.mark.parametrize("name", DEPTHS)
def test_the_blocks_in_order_give_what_the_networks_own_head_gets(
    name: str, tmp_path: Path, make: MakeNetwork
) -> None:
    model = find_backbone(name).model().eval()
    torch.save(model.state_dict(), tmp_path / "w.pth")
    assert check_weights(name, str(tmp_path / "w.pth")) == CheckedWeights(), "its head is ignored"
    [*_, own_head] = [module for module in model.modules() if isinstance(module, nn.Linear)]
    given: list[Tensor] = []
    own_head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    ours = make(name, 1, weights=str(tmp_path / "w.pth")).eval()
    assert ours.head.out_features == GENRES
    with torch.no_grad():
        model(ours.image(_mels(side=64)))
        features = ours.trainable[:-1](ours.frozen_forward(_mels(side=64)))
    assert features.std() > 0
    assert torch.allclose(features, given[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "depth"), [(n, d) for n, blocks in DEPTHS.items() for d in range(blocks + 1)]
)
def test_training_changes_trainable_blocks_and_no_bit_of_frozen_ones(
    name: str, depth: int, make: MakeNetwork
) -> None:
    own = make(name, depth).train()
    before = {key: value.clone() for key, value in own.flat_state().items()}
    optimizer = torch.optim.SGD(own.parameters(), lr=0.1, weight_decay=0.1)
    assert not any(module.training for module in own.frozen.modules())
    assert not any(parameter.requires_grad for parameter in own.frozen.parameters())
    nn.functional.cross_entropy(own(_mels()), torch.tensor([0, 2])).backward()  # type: ignore[no-untyped-call]  # torch's
    optimizer.step()
    after = own.flat_state()
    changed = {key.split(".")[0] for key, value in after.items() if not torch.equal(value, before[key])}
    assert changed == {*block_names(name)[depth:], "head"}


@pytest.mark.parametrize("name", DEPTHS)
def test_shared_activations_have_the_bits_of_computed_ones_at_every_depth(
    name: str, make: MakeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genre_core.training.activation_cache.caching_is_faster", lambda *_, **__: True)
    node_cache, every = NodeCache(tmp_path, budget_bytes=2**33), torch.arange(len(PARTS[1]))
    for depth in range(DEPTHS[name], 0, -1):
        own = make(name, depth)
        stored = ActivationCache(own, PARTS[1], node_cache=node_cache, epochs=3)
        assert stored.kind == "shared"
        assert torch.equal(stored[every.flip(0)].flip(0), own.frozen_forward(PARTS[1].mels_of(every)))
    assert len([*tmp_path.glob("features-*")]) == DEPTHS[name], "the first pass has stored all depths"


def _fine_tune(own: Network, recipe: Recipe, node_cache: NodeCache) -> FineTune:
    train, validation = PARTS
    return FineTune(own, recipe, train=train, validation=validation, node_cache=node_cache)


def _numbers(result: EpochResult) -> tuple[float, float]:
    return result.train_loss, result.val_loss


@pytest.mark.parametrize("name", [MOBILENET, CNN10])
def test_a_probed_fine_tune_continues_from_its_checkpoint_with_the_same_bits(
    name: str, make: MakeNetwork, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"head_init": "probe", "batch_size": 6, "learning_rate": 1e-3}
    recipe = replace(RECIPE, backbone=name, frozen_blocks=DEPTHS[name] - 1, **settings)
    node_cache = NodeCache(tmp_path, budget_bytes=2**33)
    first, second = (
        _fine_tune(make(name, recipe.frozen_blocks, **settings), recipe, node_cache) for _ in range(2)
    )
    initial = first.network.head.weight.clone()
    first.epoch()
    state = {key: value.clone() for key, value in first.state_dict().items()}
    assert not torch.equal(first.network.head.weight, initial)
    assert not [key for key in state if key.split(".")[1:2] == [block_names(name)[0]]], "it is frozen"
    second.load_state_dict(state)
    assert _numbers(second.epoch()) == _numbers(first.epoch())


@pytest.mark.parametrize("graphs", [True, False])
def test_a_gpu_replays_only_the_steps_of_networks_that_allow_it(
    graphs: bool, make: MakeNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = make("resnet18", 4)
    monkeypatch.setitem(BUILTIN, "resnet18", replace(BUILTIN["resnet18"], cuda_graphs=graphs))
    made = _fine_tune(own, replace(RECIPE, frozen_blocks=4), NodeCache(tmp_path, budget_bytes=0))
    assert made._steps_are_asynchronous is graphs


def _saved(own: Network, name: str, folder: Path) -> Path:
    wanted = find_backbone(name).front_end or front_end("mel64")
    card = {
        "genres": [*"abc"],
        "front_end": asdict(wanted),
        "segment_frames": SIDE,
        "segments_per_track": 10,
        "recipe": asdict(replace(RECIPE, backbone=name)),
    }
    write_model(folder, {key: value.detach().numpy() for key, value in own.flat_state().items()}, card)
    return folder


@pytest.mark.parametrize("name", DEPTHS)
def test_a_trained_network_is_restored_from_its_tensors(name: str, make: MakeNetwork) -> None:
    own = make(name, 2).eval()
    again = restore(name, own.flat_state(), precision="float32", device=CPU)
    with torch.no_grad():
        assert torch.allclose(again(_mels()), own(_mels()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [CNN10, pytest.param(MOBILENET, marks=pytest.mark.long)])
def test_a_saved_model_is_loaded_by_the_path_of_its_backbone_and_exported(
    name: str, make: MakeNetwork, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    own = make(name, 1).eval()
    nn.init.normal_(own.head.weight, std=10.0)  # so that logits differ
    folder = _saved(own, name, tmp_path / "m")
    model = Model.load(folder, device="cpu")
    assert model.front_end.sample_rate == (32_000 if name == CNN10 else 22_050)
    assert write_onnx(folder) < 1e-4
    mels = torch.randn(3, 1, model.front_end.n_mels, SIDE) * 15 - 50
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    [logits] = session.run(["logits"], {"mels": mels.numpy()})
    with torch.no_grad():
        expected = own(mels).numpy()
    assert expected.std() > 1e-2
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())


def test_a_model_whose_backbone_is_not_installed_says_so(make: MakeNetwork, tmp_path: Path) -> None:
    card = _saved(make(CNN10, 1), CNN10, tmp_path / "m") / "model.json"
    card.write_text(card.read_text().replace("audio_networks", "gone_networks"))
    with refused(ErrorCode.BACKBONE_NOT_IMPORTABLE, "gone_networks", "PYTHONPATH"):
        Model.load(tmp_path / "m")


@pytest.mark.parametrize("name", TORCHVISION)
def test_arithmetic_and_parameters_are_those_that_torchvision_publishes(name: str) -> None:
    published = TORCHVISION[name].meta
    own, classes = find_backbone(name), len(published["categories"])
    blocks = sum(multiply_adds(name)) / 1e9
    rest = published["_ops"] - own.features * classes / 1e9
    assert blocks == pytest.approx(rest, rel=0.02, abs=0.001), "torchvision rounds to 0.001"
    assert trainable_parameters(name, 0, n_genres=classes) == published["num_params"]


def test_deeper_freezing_leaves_fewer_parameters_and_arithmetic_grows_with_the_segment() -> None:
    small, large = (sum(multiply_adds(CNN10, pixels=64 * frames)) for frames in (100, 300))
    assert large == pytest.approx(3 * small, rel=0.02)
    trained = [trainable_parameters(CNN10, depth, n_genres=3) for depth in range(5)]
    assert trained == sorted(trained, reverse=True)
    assert trained[4] == 3 * (512 + 1)


@pytest.mark.parametrize("name", TORCHVISION)
def test_pretrained_weights_are_torchvisions_file(name: str) -> None:
    enum = TORCHVISION[name]
    assert find_backbone(name).url == enum.url
    assert imagenet_file(name).name == enum.url.rpartition("/")[2]


def test_weights_that_a_backbone_does_not_name_are_refused_with_a_way_out() -> None:
    with refused(ErrorCode.WEIGHTS_NOT_PUBLISHED, CNN10, f"--set weights.{CNN10}=PATH"):
        check_weights(CNN10, "imagenet")


def test_weights_of_a_built_in_backbone_are_recognised(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    with refused(ErrorCode.WEIGHTS_OF_ANOTHER_BACKBONE, RESNET50, "weights.resnet18="):
        check_weights(RESNET50, str(tmp_path / "w.pth"))


@pytest.mark.parametrize("name", BUILTIN)
def test_built_in_backbones_name_torchvisions_weights(name: str) -> None:
    assert BUILTIN[name].url == torchvision.models.get_model_weights(name).DEFAULT.url
    assert len(BUILTIN[name].hash_prefix) == 8
