"""A cluster without a shared cache gets its spectrograms from the storage of the search, not from the head."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machines import Machine, can_make_machines, machines

from search.config.schema import SearchConfig, to_yaml
from search.run.tables import read_trials
from search.tune.stored_frames import FOLDER

HEAD, WORKER = "10.78.0.10", "10.78.0.11"
SMALL = "--object-store-memory=150000000 --num-gpus=0 --disable-usage-stats"
ROOT = Path(__file__).parents[2]
PATH = f"export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH={ROOT}"

pytestmark = pytest.mark.skipif(
    not can_make_machines(), reason="needs the right to make network namespaces, and iproute2"
)


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[dict[str, Machine]]:
    """A head without trials and a worker that does not see the head's cache."""
    with machines(tmp_path, {"head": HEAD, "one": WORKER}) as started:
        cache = started["head"].home / "cache"
        cache.mkdir()
        assert started["one"].run(f"mount -t tmpfs none {cache}").returncode == 0
        begin = f"{PATH}; ray start {SMALL}"
        for machine, options in (
            ("head", f"--head --node-ip-address={HEAD} --port=6379 --num-cpus=0"),
            ("one", f"--address={HEAD}:6379 --node-ip-address={WORKER} --num-cpus=1"),
        ):
            done = started[machine].run(f"{begin} {options}")
            assert done.returncode == 0, done.stdout
        yield started


@pytest.mark.long
def test_a_node_gets_the_spectrograms_from_the_storage(
    lan: dict[str, Machine], music: Path, tiny: Callable[..., SearchConfig], tmp_path: Path
) -> None:
    head, storage = lan["head"], tmp_path / "storage"
    (head.home / "tiny.yaml").write_text(to_yaml(tiny(trials=2, workers=1, trials_per_gpu=0)))
    search = (
        f"{PATH}; genre-search run --config tiny.yaml --address auto --data {music.as_uri()} --runs runs --name tiny "
        f"--cache cache --storage {storage.as_uri()}"
    )
    done = head.run(search)
    assert done.returncode == 0, done.stdout
    assert "Decoded on 2 nodes" in done.stdout or "cores of 2 nodes" in done.stdout
    assert set(read_trials(head.home / "runs" / "tiny")["node"]) == {"one"}
    sent = re.search(r"Spectrograms sent to other nodes: (\S+) GiB, (\S+) GiB of them", done.stdout)
    assert sent, done.stdout
    assert sent[1] == sent[2], "nothing went through Ray"
    parts = [*(head.home / "cache" / "spectrograms").rglob("*.f16")]
    assert {p.name: p.stat().st_size for p in parts} == {
        p.name: p.stat().st_size for p in (storage / FOLDER).iterdir()
    }
    finished = head.run(f"{PATH}; genre-search finish runs/tiny --top 1 --seeds 1 --cache cache")
    assert finished.returncode == 0, finished.stdout
