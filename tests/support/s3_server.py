"""A real S3 server on this machine."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

import pyarrow.fs

KEY, SECRET, BUCKET = "tests", "a-secret-of-tests", "bucket"
STARTING_SECONDS = 60.0
"""Time limit for a server to start."""


class Server:
    """SeaweedFS with its S3 gateway on free ports; its data survive a restart."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(8)]
            self._ports = [s.getsockname()[1] for s in sockets]
        user = {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        (folder / "s3.json").write_text(json.dumps({"identities": [user]}))
        (folder / "data").mkdir()

    environment: ClassVar = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    """What a program needs to use an address without credentials."""

    def address(
        self, bucket: str = BUCKET, secret: str = SECRET, more: str = "", folder: str = "of/mine"
    ) -> str:
        """An address with credentials."""
        at = f"endpoint_override=127.0.0.1:{self._ports[0]}&scheme=http&region=us-east-1{more}"
        return f"s3://{KEY}:{secret}@{bucket}/{folder}?{at}"

    def bare_address(self, folder: str, bucket: str = BUCKET) -> str:
        """An address without credentials."""
        return self.address(bucket=bucket, folder=folder).replace(f"{KEY}:{SECRET}@", "")

    def start(self) -> None:
        names = ("s3", "master", "volume", "filer")
        ports = zip([f"-{n}.port{kind}" for n in names for kind in ("", ".grpc")], self._ports, strict=True)
        options = {"-dir": "data", "-ip": "127.0.0.1", "-ip.bind": "127.0.0.1", **dict(ports)}
        options |= {"-s3.config": "s3.json", "-s3.port.iceberg": 0, "-s3.port.lance": 0}
        options |= {"-master.volumeSizeLimitMB": 64, "-volume.max": 10, "-volume.preStopSeconds": 0}
        switches = [
            "-filer",
            "-s3",
            "-s3.autoCreateBucket=false",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    Path(sys.executable).parent / "weed",
                    "-logtostderr",
                    "server",
                    *switches,
                    *(f"{option}={value}" for option, value in options.items()),
                ],
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        system, _ = pyarrow.fs.FileSystem.from_uri(self.address(more="&allow_bucket_creation=true"))
        until(self._answers)
        until(lambda: self._has_bucket(system))

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for port in self._ports:
            for sock in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                sock.unlink()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._ports[0])).close()
        except ConnectionRefusedError:  # pyarrow would retry for a while
            return False
        return True

    def _has_bucket(self, system: pyarrow.fs.FileSystem) -> bool:
        try:
            system.create_dir(BUCKET)
            with system.open_output_stream(f"{BUCKET}/ready") as out:
                out.write(b"yes")
        except OSError:
            return False
        return True


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + STARTING_SECONDS
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)
