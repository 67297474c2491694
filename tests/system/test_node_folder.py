"""A node's folder for what its trials share: never one that other nodes write to as well."""

from pathlib import Path

import pytest

from genre_core.system.node_folder import Mount, network_type, node_folder

HOME = [
    Mount("/", "ext4"),
    Mount("/home", "nfs4"),
    Mount("/home/scratch", "xfs"),
    Mount("/mnt/s3", "fuse.s3fs"),
]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/ada/.cache/genre-search", "nfs4"),
        ("/home/scratch/cache", None),
        ("/homestead", None),
        ("/mnt/s3/cache", "fuse.s3fs"),
        ("/var/cache", None),
    ],
)
def test_the_innermost_file_system_decides(path: str, kind: str | None) -> None:
    assert network_type(Path(path), HOME) == kind


@pytest.mark.parametrize(
    ("fstype", "shared"),
    [
        *[(name, True) for name in ("nfs", "cifs", "lustre", "beegfs", "gpfs", "CEPH", "smb3", "fuse.sshfs")],
        *[(name, False) for name in ("ext4", "overlay", "tmpfs", "zfs", "fuseblk", "fuse.gocryptfs", "apfs")],
    ],
)
def test_network_file_systems_are_known_by_their_type(fstype: str, shared: bool) -> None:
    assert (network_type(Path("/x/y"), [Mount("/x", fstype)]) is not None) == shared


def test_of_two_file_systems_at_one_place_the_later_one_is_seen() -> None:
    assert network_type(Path("/x"), [Mount("/x", "autofs"), Mount("/x", "nfs")]) == "nfs"


def test_a_cache_on_a_disk_of_the_node_is_taken(tmp_path: Path) -> None:
    chosen = node_folder(tmp_path / "cache", mounts=lambda: [Mount("/", "ext4")])
    assert (chosen.path, chosen.note) == (tmp_path / "cache", None)
    assert chosen.path.is_dir()


def test_a_cache_on_a_network_disk_is_left_for_a_local_folder(tmp_path: Path) -> None:
    mounts = [Mount("/", "ext4"), Mount(str(tmp_path / "home"), "nfs4")]
    chosen = node_folder(tmp_path / "home/cache", mounts=lambda: mounts, local=[tmp_path / "tmp"])
    assert chosen.path.parent == tmp_path / "tmp"
    assert chosen.note
    assert all(word in chosen.note for word in (str(tmp_path / "home/cache"), "nfs4", str(chosen.path)))
    assert not (tmp_path / "home").exists()


def test_without_a_local_disk_nodes_have_folders_of_their_own(tmp_path: Path) -> None:
    places = [
        node_folder(tmp_path, mounts=lambda: [Mount("/", "lustre")], local=[tmp_path], host=host).path
        for host in ("one", "two")
    ]
    assert places == [tmp_path / "nodes" / "one", tmp_path / "nodes" / "two"]


def test_a_cache_that_this_node_cannot_have_is_left_for_a_local_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    chosen = node_folder(
        tmp_path / "file" / "cache", mounts=lambda: [Mount("/", "ext4")], local=[tmp_path / "tmp"]
    )
    assert chosen.path.parent == tmp_path / "tmp"
    assert chosen.note
