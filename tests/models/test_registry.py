"""Backbones by name: imported in every process that needs them, and refused in one line if they cannot be used."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from documented import importable
from refusals import refused
from torch import nn

from genre_core.errors import ErrorCode
from genre_core.models.backbone import Backbone
from genre_core.models.blocks import code_digest
from genre_core.models.initial_weights import initial_weights
from genre_core.models.pretrained import check_weights
from genre_core.models.registry import find_backbone, full_name, register_backbone
from genre_core.system.disk_cache import NodeCache

ROOT = Path(__file__).parents[2]
HEADER = """
from torch import nn
from genre_core.models.backbone import Backbone

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)
        self.pool = Pool()

class Pool(nn.Module):
    def forward(self, maps):
        return maps.mean(dim=(2, 3))

"""
GOOD = (
    HEADER
    + """
NET = Backbone(
    model=Net, blocks={"body": lambda n: n.body, "pool": lambda n: n.pool}, features=4
)
"""
)


@pytest.mark.parametrize(
    ("code", "path", "expected", "details"),
    [
        ("", "elsewhere:NET", ErrorCode.BACKBONE_NOT_IMPORTABLE, ["ModuleNotFoundError", "PYTHONPATH"]),
        ("import elsewhere", "nets:NET", ErrorCode.BACKBONE_NOT_IMPORTABLE, ["elsewhere", "python -c"]),
        ("1 / 0", "nets:NET", ErrorCode.BACKBONE_NOT_IMPORTABLE, ["ZeroDivisionError", "import nets"]),
        ("x = (", "nets:NET", ErrorCode.BACKBONE_NOT_IMPORTABLE, ["SyntaxError", "nets.py"]),
        (GOOD, "nets:NETS", ErrorCode.NOT_A_BACKBONE, ["NETS", "its backbones are: NET"]),
        (GOOD, "nets:Net", ErrorCode.NOT_A_BACKBONE, ["nets:Net", "docs/backbones.md"]),
        (GOOD, "nets:", ErrorCode.UNKNOWN_BACKBONE, ["package.module:NAME", "'nets:'"]),
        (GOOD, "nets.py:NET", ErrorCode.UNKNOWN_BACKBONE, ["nets.py:NET"]),
        (GOOD, "/home/me/nets:NET", ErrorCode.UNKNOWN_BACKBONE, ["package.module:NAME"]),
        (GOOD, "nets", ErrorCode.UNKNOWN_BACKBONE, ["package.module:NAME", "'nets'"]),
    ],
)
def test_what_cannot_be_imported_is_refused_in_one_line(
    code: str, path: str, expected: ErrorCode, details: list[str], tmp_path: Path
) -> None:
    with importable(tmp_path, {"nets.py": code}), refused(expected, *details):
        find_backbone(path)


_BLOCKS: dict[str, Callable[[Any], nn.Module]] = {"body": lambda n: n.body}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("blocks", {}),
        ("blocks", {"head": _BLOCKS["body"]}),
        ("blocks", {"image": _BLOCKS["body"]}),
        ("blocks", {"layer.1": _BLOCKS["body"]}),
        ("features", 0),
        ("channels", 0),
        ("min_side", 0),
        ("weights", "https://example.org/weights.pth"),
        ("weights", "weights-0123abcd.pth/latest"),
    ],
)
def test_a_value_that_no_backbone_can_have_is_refused(field: str, value: object) -> None:
    given: dict[str, Any] = {"model": nn.Identity, "blocks": _BLOCKS, "features": 4}
    with refused(ErrorCode.BACKBONE_INVALID, field):
        Backbone(**(given | {field: value}))


@pytest.mark.parametrize(
    ("changes", "details"),
    [
        ("blocks={'body': lambda n: n.bodi}, features=4", ["AttributeError", "bodi"]),
        ("blocks={'body': lambda n: n.body}, features=4", ["[segments, features]", "[2, 4,"]),
        ("blocks={'body': lambda n: n.body, 'pool': lambda n: n.pool}, features=5", ["[2, 4]", "features=5"]),
        ("blocks={'pool': lambda n: n.pool, 'body': lambda n: n.body}, features=4", ["body, given [2, 3]"]),
        (
            "blocks={'body': lambda n: n.body, 'again': lambda n: n.body, 'pool': lambda n: n.pool}, features=4",
            ["body and again share"],
        ),
        ("blocks={'body': lambda n: n.body, 'pool': lambda n: n.pool}, features=4, channels=1", ["body"]),
        ("blocks={'body': lambda n: setattr(n, 'f', lambda: 0) or n}, features=4", ["picklable"]),
        ("model=lambda: Net(3), blocks={'body': lambda n: n.body}, features=4", ["TypeError"]),
    ],
)
def test_a_network_that_does_not_fit_its_backbone_is_refused_before_a_search(
    changes: str, details: list[str], tmp_path: Path
) -> None:
    model = "" if changes.startswith("model") else "model=Net, "
    code = f"{HEADER}\nNET = Backbone({model}{changes})"
    with importable(tmp_path, {"nets.py": code}), refused(ErrorCode.BACKBONE_INVALID, "nets:NET", *details):
        check_weights("nets:NET", "random")


def test_a_short_name_stands_for_the_path_that_other_processes_import(tmp_path: Path) -> None:
    with importable(tmp_path, {"nets.py": GOOD}):
        registered = register_backbone("small", "nets:NET")
        assert find_backbone("small") is find_backbone("nets:NET") is registered
        assert full_name("small") == "nets:NET"
        with refused(ErrorCode.UNKNOWN_BACKBONE, "small"):
            find_backbone("smal")
        for taken in ("resnet18", "a:b"):
            with refused(ErrorCode.BACKBONE_NAME_TAKEN, taken):
                register_backbone(taken, "nets:NET")
        with refused(ErrorCode.NOT_A_BACKBONE, "nets:Net"):
            register_backbone("other", "nets:Net")


def test_another_process_finds_a_backbone_on_its_path(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(GOOD)
    script = "from genre_core.models.registry import find_backbone; print(*find_backbone('nets:NET').names)"
    given = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=given, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["body", "pool"]


CHANGED = {
    "code of a layer": ("maps.mean(dim=(2, 3))", "maps.amax(dim=(2, 3))"),
    "structure": ("nn.Conv2d(3, 4, 3)", "nn.Conv2d(3, 4, 3, padding=1)"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_what_is_cached_of_a_network_does_not_outlive_a_change_to_its_code(
    change: str, tmp_path: Path
) -> None:
    node_cache = NodeCache(tmp_path / "shared", budget_bytes=2**30)
    found = []
    for code in (GOOD, GOOD, GOOD.replace(*CHANGED[change])):
        with importable(tmp_path, {"nets.py": code}):
            found.append(initial_weights("nets:NET", weights="random", seed=0, node_cache=node_cache))
    first, same, other = found
    assert first.digests == same.digests
    assert first.contents == other.contents
    assert not set(first.digests.values()) & set(other.digests.values())
    assert torch.equal(first.state["body.weight"], other.state["body.weight"])
    assert len([*(tmp_path / "shared").glob("nets.NET-*.safetensors")]) == 2


def test_versions_identify_the_code_of_built_in_backbones() -> None:
    assert code_digest("resnet18") == ""
