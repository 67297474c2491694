"""Weights files: read in all common layouts, checked against their backbone, never executed."""

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
from small_models import SIZES, models_of
from torch import Tensor, nn

from genre_core.errors import ErrorCode, InputError
from genre_core.models.network import Network, ToImage, build
from genre_core.models.pretrained import CheckedWeights, check_weights, imagenet_file
from genre_core.models.weights_file import read_weights, refused_global
from genre_core.system.disk_cache import NodeCache

SHARED_WEIGHTS = Path(__file__).parents[3] / "shared" / "weights"
ADVICE = "model.state_dict()"


def _network(name: str, depth: int, weights: Path) -> Network:
    return build(
        name,
        weights=str(weights),
        n_genres=3,
        frozen_blocks=depth,
        image=ToImage(torch.tensor([-40.0]), torch.tensor([15.0])),
        seed=0,
        node_cache=NodeCache(Path("nowhere"), budget_bytes=0),
    )


def _state(**changes: Tensor | None) -> dict[str, Tensor]:
    """AlexNet's convolutions, with some keys changed (`__` for a dot) or left out."""
    with torch.device("meta"):
        model = torchvision.models.alexnet()
    state = {k: torch.zeros(v.shape) for k, v in model.state_dict().items() if k.startswith("features")}
    state |= {key.replace("__", "."): value for key, value in changes.items()}  # type: ignore[misc]
    return {key: value for key, value in state.items() if value is not None}


class _Payload:
    """Creates a file when it is unpickled as code."""

    def __init__(self, created: Path) -> None:
        self._created = created

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self._created,))


def _executed(path: Path) -> Path:
    return path.with_name("executed")


def _truncated(path: Path, size: int, **options: bool) -> None:
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

UNREADABLE = ErrorCode.WEIGHTS_UNREADABLE
NOT_A_FILE = ErrorCode.WEIGHTS_NOT_A_FILE
PLACEHOLDER = ErrorCode.WEIGHTS_PLACEHOLDER
NOT_ONLY_TENSORS = ErrorCode.WEIGHTS_NOT_ONLY_TENSORS
NOT_A_STATE_DICT = ErrorCode.WEIGHTS_NOT_A_STATE_DICT
EMPTY = ErrorCode.WEIGHTS_EMPTY
UNKNOWN_NAMES = ErrorCode.WEIGHTS_UNKNOWN_NAMES
WRONG_SHAPE = ErrorCode.WEIGHTS_WRONG_SHAPE
NOT_FINITE = ErrorCode.WEIGHTS_NOT_FINITE
PARTIAL_LAYER = ErrorCode.WEIGHTS_PARTIAL_LAYER
OTHER_BACKBONE = ErrorCode.WEIGHTS_OF_ANOTHER_BACKBONE

BadWeights = dict[str, tuple[Callable[[Path], object], ErrorCode, str]]
"""Case -> writes the file, code of the error, a value or a way out in its message."""

BAD_PTH: BadWeights = {
    "an unexpected key": (
        lambda p: torch.save(_state(features__99__bias=torch.ones(1)), p),
        UNKNOWN_NAMES,
        "'features.99.bias'",
    ),
    "a key with a line break": (lambda p: torch.save({"a\nb": torch.ones(1)}, p), UNKNOWN_NAMES, r"'a\nb'"),
    "another shape": (
        lambda p: torch.save(_state(features__0__bias=torch.ones(1)), p),
        WRONG_SHAPE,
        "features.0.bias of shape [1], not [64]",
    ),
    "half a layer": (
        lambda p: torch.save(_state(features__0__bias=None), p),
        PARTIAL_LAYER,
        "'features.0.bias'",
    ),
    "part of a block": (
        lambda p: torch.save(_state(**{"classifier.1.weight": torch.zeros(4096, 9216)}), p),
        PARTIAL_LAYER,
        "'classifier.1.bias'",
    ),
    "NaN": (lambda p: torch.save(_with_bias(math.nan), p), NOT_FINITE, "features.0.bias"),
    "infinity": (lambda p: torch.save(_with_bias(math.inf), p), NOT_FINITE, "features.0.bias"),
    "integers": (lambda p: torch.save(_with_bias(1, torch.int64), p), NOT_FINITE, "features.0.bias"),
    "complex numbers": (
        lambda p: torch.save(_with_bias(1, torch.complex64), p),
        NOT_FINITE,
        "features.0.bias",
    ),
    "no content": (
        lambda p: torch.save(_state(features__0__bias=torch.empty(64, device="meta")), p),
        NOT_FINITE,
        "features.0.bias",
    ),
    "another backbone": (
        lambda p: torch.save(torchvision.models.resnet18().state_dict(), p),
        OTHER_BACKBONE,
        "--set weights.resnet18=",
    ),
    "no tensors": (lambda p: torch.save({}, p), EMPTY, "alexnet"),
    "keys that are numbers": (lambda p: torch.save({1: torch.ones(1)}, p), NOT_A_STATE_DICT, ADVICE),
    "a checkpoint without a state dict": (
        lambda p: torch.save({"state_dict": {"epoch": 3}, "model": None}, p),
        NOT_A_STATE_DICT,
        ADVICE,
    ),
    "a checkpoint that contains itself": (lambda p: torch.save(_endless(), p), NOT_A_STATE_DICT, ADVICE),
    "a list": (lambda p: torch.save([torch.ones(1)], p), NOT_A_STATE_DICT, ADVICE),
    "a web page": (lambda p: p.write_bytes(WEB_PAGE), PLACEHOLDER, "download"),
    "a Git LFS pointer": (lambda p: p.write_bytes(GIT_LFS), PLACEHOLDER, "git lfs pull"),
    "a pickle with code": (
        lambda p: p.write_bytes(pickle.dumps(_Payload(_executed(p)), protocol=2)),
        NOT_ONLY_TENSORS,
        ADVICE,
    ),
    "a pickle with code in torch's format": (
        lambda p: torch.save(_state() | {"features.0.bias": _Payload(_executed(p))}, p),
        NOT_ONLY_TENSORS,
        ADVICE,
    ),
    "a model": (lambda p: torch.save(nn.Linear(1, 1), p), NOT_ONLY_TENSORS, "torch.nn.modules.linear.Linear"),
    "the beginning of a file": (lambda p: _truncated(p, 1000), UNREADABLE, ""),
    "a file without its end": (lambda p: _truncated(p, -100), UNREADABLE, ""),
    "a truncated file in the old format": (
        lambda p: _truncated(p, 100_000, _use_new_zipfile_serialization=False),
        UNREADABLE,
        "",
    ),
    "one byte": (lambda p: p.write_bytes(b"\x80"), UNREADABLE, ""),
    "no bytes": (lambda p: p.touch(), UNREADABLE, "EOFError"),
    "no file": (lambda p: None, UNREADABLE, "No such file"),
    "a link to itself": (lambda p: p.symlink_to(p.name), UNREADABLE, "symbolic links"),
    "text": (lambda p: p.write_text("weights"), NOT_ONLY_TENSORS, ADVICE),
    "a folder": (lambda p: p.mkdir(), NOT_A_FILE, ""),
    "a pipe": (lambda p: os.mkfifo(p), NOT_A_FILE, ""),
    "a device": (lambda p: p.symlink_to("/dev/zero"), NOT_A_FILE, ""),
}


BAD_SAFETENSORS: BadWeights = {
    "a web page": (lambda p: p.write_bytes(WEB_PAGE), PLACEHOLDER, "download"),
    "a Git LFS pointer": (lambda p: p.write_bytes(GIT_LFS), PLACEHOLDER, "git lfs pull"),
    "no bytes": (lambda p: p.touch(), UNREADABLE, ""),
    "a folder": (lambda p: p.mkdir(), NOT_A_FILE, ""),
    "a header longer than the file": (lambda p: p.write_bytes(b"\xff\0\0\0\0\0\0\0{}"), UNREADABLE, ""),
    "a header longer than any memory": (lambda p: p.write_bytes(b"\xff" * 8 + b"{}"), UNREADABLE, ""),
    "a header that is not JSON": (lambda p: _safetensors(p, b"{nothing"), UNREADABLE, "JSON"),
    "a header that is not text": (lambda p: _safetensors(p, b"\xff\xfe"), UNREADABLE, "UTF-8"),
    "a header of another format": (lambda p: _safetensors(p, {"a": 3}), UNREADABLE, ""),
    "an unknown type": (lambda p: _safetensors(p, _tensor(dtype="F99")), UNREADABLE, "F99"),
    "a negative shape": (lambda p: _safetensors(p, _tensor(shape=[-1])), UNREADABLE, "-1"),
    "a shape beyond the content": (lambda p: _safetensors(p, _tensor(shape=[9])), UNREADABLE, ""),
    "a shape beyond any memory": (lambda p: _safetensors(p, _tensor(shape=[2**62, 2**62])), UNREADABLE, ""),
    "truncated content": (lambda p: _safetensors(p, _tensor(), bytes(3)), UNREADABLE, ""),
    "no tensors": (lambda p: _safetensors(p, {}, b""), EMPTY, "alexnet"),
    "another shape": (
        lambda p: _safetensors(p, _tensor()),
        WRONG_SHAPE,
        "features.0.bias of shape [1], not [64]",
    ),
    "NaN": (lambda p: save_file(_with_bias(math.nan), p), NOT_FINITE, "features.0.bias"),
    "a pickle with code": (lambda p: torch.save(_Payload(_executed(p)), p), UNREADABLE, ""),
}

BAD = [(".pth", case) for case in BAD_PTH] + [(".safetensors", case) for case in BAD_SAFETENSORS]


@pytest.mark.parametrize(("suffix", "case"), BAD)
def test_weights_that_do_not_fit_are_refused_in_one_line_and_never_executed(
    suffix: str, case: str, tmp_path: Path
) -> None:
    write, code, detail = (BAD_PTH if suffix == ".pth" else BAD_SAFETENSORS)[case]
    path = tmp_path / f"w{suffix}"
    write(path)
    with pytest.raises(InputError) as error:
        check_weights("alexnet", str(path))
    assert error.value.code is code
    assert str(path) in str(error.value)
    assert detail in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not _executed(path).exists()


def test_the_code_that_is_never_executed_would_have_an_effect(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Payload(_executed(tmp_path / "w.pth"))))
    assert _executed(tmp_path / "w.pth").exists()


def test_canary_torch_names_the_object_that_it_refuses_to_unpickle(tmp_path: Path) -> None:
    """If an upgrade of torch breaks this, adapt the pattern in `weights_file.refused_global` to its new text."""
    torch.save(nn.Linear(1, 1), tmp_path / "w.pth")
    with pytest.raises(pickle.UnpicklingError) as refused:
        torch.load(tmp_path / "w.pth", weights_only=True)
    assert refused_global(refused.value) == "torch.nn.modules.linear.Linear"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_blocks_without_any_layer_in_the_file_are_reported_as_random(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(_state(), path)
    assert check_weights("alexnet", str(path)) == CheckedWeights(random_blocks=("fc6", "fc7"))


LIGHTNING = {"epoch": 3, "global_step": 9, "loops": {}, "callbacks": {"best": torch.tensor(0.5)}}
TORCHVISION = {"optimizer": {"state": {}, "param_groups": []}, "args": Namespace(lr=0.1)}
Wrap = Callable[[dict[str, Tensor]], object]
WRAPPED: dict[str, tuple[Wrap, tuple[str, ...], str]] = {
    "a checkpoint": (lambda s: {"state_dict": s, "epoch": 3}, ("state_dict",), ""),
    "torchvision's checkpoint": (lambda s: TORCHVISION | {"model": s}, ("model",), ""),
    "DataParallel": (lambda s: _under("module.", s), (), "module."),
    "torch.compile": (lambda s: _under("_orig_mod.", s), (), "_orig_mod."),
    "a wrapping module": (lambda s: _under("backbone.", s), (), "backbone."),
    "Lightning": (
        lambda s: LIGHTNING | {"state_dict": _under("model.backbone.", s)},
        ("state_dict",),
        "model.backbone.",
    ),
    "nested checkpoints": (
        lambda s: {"epoch": 1, "model": {"step": 2, "state_dict": _under("module.", s)}},
        ("model", "state_dict"),
        "module.",
    ),
}
"""Layout -> wraps a state dict, the keys that lead to it, the prefix of its names."""


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize("layout", WRAPPED)
def test_checkpoints_are_unwrapped_and_name_prefixes_removed(layout: str, tmp_path: Path) -> None:
    wrap, keys, prefix = WRAPPED[layout]
    path = tmp_path / "w.pth"
    torch.save(wrap(_state(features__0__bias=torch.arange(64.0))), path)
    found = read_weights(path)
    assert (found.unwrapped, "".join(found.stripped)) == (keys, prefix)
    assert torch.equal(found.state["features.0.bias"], torch.arange(64.0))
    checked = check_weights("alexnet", str(path))
    assert checked.random_blocks == ("fc6", "fc7")
    assert all(repr(name) in checked.changes for name in (*keys, prefix) if name)


def test_weights_from_a_checkpoint_are_loaded_into_their_block(tmp_path: Path) -> None:
    wrap, _, _ = WRAPPED["Lightning"]
    torch.save(wrap(_state(features__0__bias=torch.arange(64.0))), tmp_path / "w.pth")
    network = _network("alexnet", 5, tmp_path / "w.pth")
    assert torch.equal(network.flat_state()["conv1.0.bias"], torch.arange(64.0))


def test_a_prefix_that_only_some_names_have_is_kept(tmp_path: Path) -> None:
    torch.save(_under("model.", _state()) | {"loss.weight": torch.ones(3)}, tmp_path / "w.pth")
    with pytest.raises(InputError) as error:
        check_weights("alexnet", str(tmp_path / "w.pth"))
    assert error.value.code is ErrorCode.WEIGHTS_UNKNOWN_NAMES
    assert "'loss.weight', 'model.features.0.bias'" in str(error.value)


@pytest.mark.parametrize(
    ("given", "asked", "tensor"),
    [
        ("resnet18", "resnet34", "layer1.2.conv1.weight"),
        ("resnet34", "resnet18", "layer1.2.bn1.bias"),
        ("vgg11", "vgg11_bn", "features.13.bias"),
    ],
)
def test_weights_of_another_backbone_name_that_backbone(
    given: str, asked: str, tensor: str, tmp_path: Path
) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(given, weights=None)
    torch.save(
        {k: torch.zeros(v.shape) for k, v in model.state_dict().items() if "classifier" not in k},
        tmp_path / "w.pth",
    )
    with pytest.raises(InputError) as error:
        check_weights(asked, str(tmp_path / "w.pth"))
    assert error.value.code is ErrorCode.WEIGHTS_OF_ANOTHER_BACKBONE
    assert f"'{tensor}'" in str(error.value)
    assert f"--set weights.{given}={tmp_path / 'w.pth'}" in str(error.value)


def test_a_block_may_be_missing_but_not_a_part_of_it(tmp_path: Path) -> None:
    state = torchvision.models.resnet18().state_dict()
    torch.save({key: value for key, value in state.items() if "layer3.1" not in key}, tmp_path / "w.pth")
    with pytest.raises(InputError) as error:
        check_weights("resnet18", str(tmp_path / "w.pth"))
    assert error.value.code is ErrorCode.WEIGHTS_PARTIAL_BLOCK
    assert "layer3" in str(error.value)
    torch.save({key: value for key, value in state.items() if "layer3" not in key}, tmp_path / "w.pth")
    assert check_weights("resnet18", str(tmp_path / "w.pth")).random_blocks == ("layer3",)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_can_be_read_from_a_files_content(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(_state(), path)
    assert read_weights(path.read_bytes()).state.keys() == _state().keys()


@pytest.mark.parametrize(("content", "code"), [(WEB_PAGE, PLACEHOLDER), (b"weights", NOT_ONLY_TENSORS)])
def test_content_is_refused_as_the_file_would_be(content: bytes, code: ErrorCode) -> None:
    with pytest.raises(InputError) as error:
        read_weights(content)
    assert error.value.code is code


def test_a_web_page_in_place_of_imagenet_weights_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = imagenet_file("resnet18")
    file.parent.mkdir(parents=True)
    file.write_bytes(WEB_PAGE)
    with pytest.raises(InputError) as error:
        check_weights("resnet18", "imagenet")
    assert error.value.code is ErrorCode.WEIGHTS_PLACEHOLDER
    assert str(file) in str(error.value)


@pytest.mark.parametrize("size", SIZES)
def test_densenets_published_names_are_understood(size: str, tmp_path: Path) -> None:
    with models_of(size):
        model = torchvision.models.get_model("densenet121", weights=None)
        published = {
            key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
            for key, value in model.state_dict().items()
        }
        torch.save(published, tmp_path / "w.pth")
        assert check_weights("densenet121", str(tmp_path / "w.pth")) == CheckedWeights()
        state = _network("densenet121", 0, tmp_path / "w.pth").flat_state()
    key = "denseblock1.denselayer1.conv2.weight"
    assert torch.equal(state[f"block1.0.{key.split('.', 1)[1]}"], model.get_parameter(f"features.{key}"))


def test_imagenet_weights_that_cannot_be_downloaded_name_the_file_and_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens on this port
    with pytest.raises(InputError) as error:
        check_weights("resnet18", "imagenet")
    assert error.value.code is ErrorCode.WEIGHTS_NOT_DOWNLOADED
    file = imagenet_file("resnet18")
    for way_out in (file.name, str(file.parent), "--set weights.resnet18=PATH", "--set weights=random"):
        assert way_out in str(error.value)


def test_published_convolutions_are_loaded_into_their_blocks() -> None:
    alexnet = SHARED_WEIGHTS / "alexnet-features-imagenet.pth"
    if not alexnet.exists():
        pytest.skip("needs AlexNet's ImageNet convolutions in ../shared/weights")
    network = _network("alexnet", 5, alexnet)
    published = torch.load(alexnet, weights_only=True)
    assert torch.equal(network.flat_state()["conv1.0.weight"], published["features.0.weight"])
