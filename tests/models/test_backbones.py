"""Blocks, cuts and weights of the five families, held against torchvision's own models."""

import json
import math
import os
import pickle
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from genre_core.errors import InputError
from genre_core.models.network import Network, ToImage, build
from genre_core.models.pretrained import CheckedWeights, check_weights, imagenet_file
from genre_core.models.registry import BLOCKS, block_names
from genre_core.models.weights_file import read_weights
from genre_core.system.disk_cache import NodeCache

FAMILIES = ("alexnet", "densenet121", "resnet18", "resnet34", "vgg11_bn")
CUTS = [(name, cut) for name in FAMILIES for cut in range(len(BLOCKS[name]) + 1)]
SHARED_WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"
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
        network.trainable.get_submodule("head").load_state_dict(head.state_dict())
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
        nn.functional.cross_entropy(network(_mels()), torch.tensor([0, 2])).backward()  # type: ignore[no-untyped-call]  # torch's
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
    together = network.frozen_forward(mels)
    assert len(together) == 21
    for few in (torch.tensor([20]), torch.tensor([5, 0, 19]), torch.arange(20, -1, -1)):
        assert torch.equal(network.frozen_forward(mels[few]), together[few])


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
    """Leaves a file behind where it is read as code."""

    def __init__(self, left: Path) -> None:
        self._left = left

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self._left,))


def _executed(path: Path) -> Path:
    return path.with_name("executed")


def _cut(path: Path, size: int, **options: bool) -> None:
    torch.save(_state(), path, **options)
    path.write_bytes(path.read_bytes()[:size])


def _safetensors(path: Path, header: object, content: bytes = bytes(4)) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def _tensor(**changes: object) -> dict[str, object]:
    return {"features.0.bias": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} | changes}


def _with_bias(value: float, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    return _state(features__0__bias=torch.full((64,), value, dtype=dtype))


def _endless() -> dict[str, object]:
    checkpoint: dict[str, object] = {"epoch": 3}
    checkpoint["model"] = checkpoint
    return checkpoint


WEB_PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"
GIT_LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"

BAD_WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an unexpected key": (
        lambda p: torch.save(_state(features__99__bias=torch.ones(1)), p),
        "features.99.bias",
    ),
    "another shape": (
        lambda p: torch.save(_state(features__0__bias=torch.ones(1)), p),
        r"shape \[1\], not \[64\]",
    ),
    "half a layer": (lambda p: torch.save(_state(features__0__bias=None), p), "lack 'features.0.bias'"),
    "not a number": (
        lambda p: torch.save(_with_bias(math.nan), p),
        "must be finite numbers, but those of features.0.bias are not; save them anew",
    ),
    "an infinity": (lambda p: torch.save(_with_bias(math.inf), p), "must be finite numbers"),
    "whole numbers": (lambda p: torch.save(_with_bias(1, dtype=torch.int64), p), "must be finite numbers"),
    "complex numbers": (lambda p: torch.save(_with_bias(1, dtype=torch.complex64), p), "must be finite"),
    "no content": (
        lambda p: torch.save(_state(features__0__bias=torch.empty(64, device="meta")), p),
        "must be finite numbers",
    ),
    "a name in two lines": (lambda p: torch.save({"a\nb": torch.ones(1)}, p), r"hold 'a\\nb'; rename"),
    "names that are numbers": (lambda p: torch.save({1: torch.ones(1)}, p), "something else"),
    "a checkpoint without a state dict": (
        lambda p: torch.save({"state_dict": {"epoch": 3}, "model": None}, p),
        "something else; save model.state_dict",
    ),
    "a checkpoint that holds itself": (lambda p: torch.save(_endless(), p), "something else"),
    "part of a block": (
        lambda p: torch.save(_state(**{"classifier.1.weight": torch.zeros(4096, 9216)}), p),
        "lack 'classifier.1.bias'",
    ),
    "another backbone": (
        lambda p: torch.save(torchvision.models.resnet18().state_dict(), p),
        r"they fit resnet18: give --set weights\.resnet18=.*w\.pth, and to alexnet a file of its own$",
    ),
    "a web page": (lambda p: p.write_bytes(WEB_PAGE), "w.pth cannot be read: it is a web page"),
    "a Git LFS pointer": (lambda p: p.write_bytes(GIT_LFS), "it is a Git LFS pointer.*git lfs pull"),
    "nothing": (lambda p: torch.save({}, p), "at least one layer"),
    "a list": (lambda p: torch.save([torch.ones(1)], p), "something else"),
    "a pickle with code": (
        lambda p: p.write_bytes(pickle.dumps(_Payload(_executed(p)), protocol=2)),
        "it holds more than tensors .*, which may be code, or is damaged; save model.state_dict\\(\\) alone$",
    ),
    "a pickle with code, as torch saves it": (
        lambda p: torch.save(_state() | {"features.0.bias": _Payload(_executed(p))}, p),
        "cannot be read: it holds more than tensors",
    ),
    "a model": (lambda p: torch.save(nn.Linear(1, 1), p), "cannot be read: it holds more than tensors"),
    "a cut file": (lambda p: _cut(p, 1000), "cannot be read"),
    "a file without its end": (lambda p: _cut(p, -100), "cannot be read"),
    "a cut file of old": (lambda p: _cut(p, 100_000, _use_new_zipfile_serialization=False), "cannot be read"),
    "one byte": (lambda p: p.write_bytes(b"\x80"), "cannot be read: index out of range"),
    "no bytes": (lambda p: p.touch(), "cannot be read: EOFError"),
    "no file": (lambda p: None, "cannot be read: .*No such file"),
    "a folder": (lambda p: p.mkdir(), "cannot be read: not a regular file"),
    "a pipe": (lambda p: os.mkfifo(p), "cannot be read: not a regular file"),
    "a device": (lambda p: p.symlink_to("/dev/zero"), "cannot be read: not a regular file"),
    "a link to itself": (lambda p: p.symlink_to(p.name), "cannot be read: .*Too many levels"),
    "text": (lambda p: p.write_text("weights"), "cannot be read"),
}


BAD_SAFETENSORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a web page": (lambda p: p.write_bytes(WEB_PAGE), "it is a web page"),
    "a Git LFS pointer": (lambda p: p.write_bytes(GIT_LFS), "it is a Git LFS pointer"),
    "no bytes": (lambda p: p.touch(), "header too small"),
    "a folder": (lambda p: p.mkdir(), "not a regular file"),
    "a header longer than the file": (lambda p: p.write_bytes(b"\xff\0\0\0\0\0\0\0{}"), "invalid header"),
    "a header of all memory": (lambda p: p.write_bytes(b"\xff" * 8 + b"{}"), "header too large"),
    "a header that is no JSON": (lambda p: _safetensors(p, b"{nothing"), "invalid JSON in header"),
    "a header that is no text": (lambda p: _safetensors(p, b"\xff\xfe"), "invalid UTF-8 in header"),
    "a header of something else": (lambda p: _safetensors(p, {"a": 3}), "invalid JSON in header"),
    "an unknown type": (lambda p: _safetensors(p, _tensor(dtype="F99")), "unknown variant `F99`"),
    "a negative shape": (lambda p: _safetensors(p, _tensor(shape=[-1])), "invalid value: integer `-1`"),
    "a shape beyond the content": (lambda p: _safetensors(p, _tensor(shape=[9])), "invalid shape"),
    "a shape beyond all memory": (lambda p: _safetensors(p, _tensor(shape=[2**62, 2**62])), "overflow"),
    "a content cut short": (lambda p: _safetensors(p, _tensor(), bytes(3)), "not fully covered"),
    "nothing": (lambda p: _safetensors(p, {}, b""), "at least one layer"),
    "another shape": (lambda p: _safetensors(p, _tensor()), r"shape \[1\], not \[64\]"),
    "not a number": (lambda p: save_file(_with_bias(math.nan), p), "must be finite numbers"),
    "a pickle with code": (lambda p: torch.save(_Payload(_executed(p)), p), "header too large"),
}

BAD = [(".pth", case) for case in BAD_WEIGHTS] + [(".safetensors", case) for case in BAD_SAFETENSORS]


@pytest.mark.parametrize(("suffix", "case"), BAD)
def test_weights_that_do_not_fit_are_refused_in_one_line_and_never_run(
    suffix: str, case: str, tmp_path: Path
) -> None:
    write, reason = (BAD_WEIGHTS if suffix == ".pth" else BAD_SAFETENSORS)[case]
    path = tmp_path / f"w{suffix}"
    write(path)
    with pytest.raises(InputError, match=reason) as caught:
        check_weights("alexnet", str(path))
    assert len(str(caught.value).splitlines()) == 1
    assert not _executed(path).exists()


def test_the_code_that_is_never_run_would_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Payload(_executed(tmp_path / "w.pth"))))
    assert _executed(tmp_path / "w.pth").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_layers_missing_as_a_whole_are_named(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(_state(), path)
    assert check_weights("alexnet", str(path)) == CheckedWeights(random_blocks=("fc6", "fc7"))


LIGHTNING = {"epoch": 3, "global_step": 9, "loops": {}, "callbacks": {"best": torch.tensor(0.5)}}
TORCHVISION = {"optimizer": {"state": {}, "param_groups": []}, "args": Namespace(lr=0.1)}
WRAPPED: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "a checkpoint": (lambda s: {"state_dict": s, "epoch": 3}, "found under 'state_dict'"),
    "torchvision's checkpoint": (lambda s: TORCHVISION | {"model": s}, "found under 'model'"),
    "DataParallel": (lambda s: _under("module.", s), "read without the prefix 'module.'"),
    "torch.compile": (lambda s: _under("_orig_mod.", s), "read without the prefix '_orig_mod.'"),
    "a module around it": (lambda s: _under("backbone.", s), "read without the prefix 'backbone.'"),
    "Lightning": (
        lambda s: LIGHTNING | {"state_dict": _under("model.backbone.", s)},
        "found under 'state_dict' and read without the prefix 'model.backbone.'",
    ),
    "one in another": (
        lambda s: {"epoch": 1, "model": {"step": 2, "state_dict": _under("module.", s)}},
        "found under 'model' and 'state_dict' and read without the prefix 'module.'",
    ),
}


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize("case", WRAPPED)
def test_weights_are_taken_out_of_checkpoints_and_their_names_out_of_prefixes(
    case: str, tmp_path: Path, make: MakeNetwork
) -> None:
    wrap, words = WRAPPED[case]
    state = _state(features__0__bias=torch.arange(64.0))
    torch.save(wrap(state), tmp_path / "w.pth")
    assert check_weights("alexnet", str(tmp_path / "w.pth")) == CheckedWeights(
        random_blocks=("fc6", "fc7"), changes=words
    )
    network = make("alexnet", 5, str(tmp_path / "w.pth"))
    assert torch.equal(network.flat_state()["conv1.0.bias"], torch.arange(64.0))


def test_a_prefix_that_not_all_names_have_stays(tmp_path: Path) -> None:
    torch.save(_under("model.", _state()) | {"loss.weight": torch.ones(3)}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"hold 'loss\.weight', 'model\.features\.0\.bias'"):
        check_weights("alexnet", str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("given", "asked", "words"),
    [
        ("resnet18", "resnet34", "of layer1 they lack 'layer1.2.conv1.weight'.*; they fit resnet18: "),
        ("resnet34", "resnet18", "hold 'layer1.2.bn1.bias'.*; they fit resnet34: "),
        ("vgg11", "vgg11_bn", "hold 'features.13.bias'.*; they fit vgg11: "),
    ],
)
def test_weights_of_another_backbone_name_it(given: str, asked: str, words: str, tmp_path: Path) -> None:
    model = torchvision.models.get_model(given, weights=None)
    torch.save({k: v for k, v in model.state_dict().items() if "classifier" not in k}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=words):
        check_weights(asked, str(tmp_path / "w.pth"))


def test_a_block_that_is_only_partly_there_is_refused(tmp_path: Path) -> None:
    state = torchvision.models.resnet18().state_dict()
    torch.save({key: value for key, value in state.items() if "layer3.1" not in key}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"of layer3 they lack .*; add these"):
        check_weights("resnet18", str(tmp_path / "w.pth"))
    torch.save({key: value for key, value in state.items() if "layer3" not in key}, tmp_path / "w.pth")
    assert check_weights("resnet18", str(tmp_path / "w.pth")).random_blocks == ("layer3",)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_can_be_read_from_a_files_content(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(_state(), path)
    assert read_weights(path.read_bytes()).state.keys() == _state().keys()


def test_imagenet_weights_that_a_web_page_stands_in_for_are_called_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = imagenet_file("resnet18")
    file.parent.mkdir(parents=True)
    file.write_bytes(WEB_PAGE)
    with pytest.raises(InputError, match=rf"{file.name} cannot be read: it is a web page"):
        check_weights("resnet18", "imagenet")


def test_densenets_published_names_are_understood(tmp_path: Path, make: MakeNetwork) -> None:
    model = torchvision.models.densenet121()
    published = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for key, value in model.state_dict().items()
    }
    torch.save(published, tmp_path / "w.pth")
    assert check_weights("densenet121", str(tmp_path / "w.pth")) == CheckedWeights()
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
