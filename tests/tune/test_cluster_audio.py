"""Audio in a storage is decoded by the nodes that can read it, and by the driver if no node can."""

from pathlib import Path

import pytest
from s3_server import Server

from genre_core.audio.mel import front_end
from genre_core.corpus.audit import Finding
from genre_core.corpus.mel_parts import AudioFile, Transform, in_threads
from genre_core.system import remote_files
from genre_core.system.addresses import child, normalized
from search.tune.cluster_transform import ClusterTransform

MEL64 = front_end("mel64")
TRACKS = 4

pytestmark = pytest.mark.usefixtures("small_ray")


def _findings(transform: Transform, address: str, names: list[str]) -> dict[str, Finding]:
    files = [AudioFile(location=child(address, name)) for name in names]
    return {
        one.location.rpartition("/")[2].partition("?")[0]: one.finding
        for group in transform(files, MEL64)
        for one in group
    }


def test_nodes_decode_files_at_addresses_that_they_can_read(music: Path) -> None:
    said: list[str] = []
    names = [path.relative_to(music).as_posix() for path in sorted(music.rglob("*.wav"))[:TRACKS]]
    found = _findings(ClusterTransform("auto", 0, said.append), music.as_uri(), names)
    assert found == _findings(in_threads, music.as_uri(), names)
    assert all(finding.file_hash for finding in found.values())
    assert said[-1].startswith(f"Decoded on 1 node: {TRACKS}")


def test_the_driver_decodes_files_that_only_it_may_read(
    music: Path, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray's workers were started without the credentials."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    address = normalized(server.bare_address(tmp_path.name))
    system, base = remote_files._opened(address)
    files = sorted(music.rglob("*.wav"))[:TRACKS]
    for path in files:
        with system.open_output_stream(f"{base}/{path.name}") as out:
            out.write(path.read_bytes())
    said: list[str] = []
    found = _findings(ClusterTransform("auto", 0, said.append), address, [path.name for path in files])
    assert found == _findings(in_threads, address, [path.name for path in files])
    assert all(finding.file_hash for finding in found.values())
    assert len(said) == 1
    assert "this process" in said[0]
