"""Resolution of the paths in a manifest, whatever their Unicode form or separators."""

import os
import re
import unicodedata
from collections import defaultdict
from pathlib import Path

from genre_core.errors import ErrorCode, InputError

_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")


class PathResolver:
    """Finds the files that the paths of a manifest refer to."""

    def __init__(self, folder: Path) -> None:
        """Args: folder: the folder of the manifest, to which its paths are relative."""
        self._folder = folder
        self._listings: dict[Path, dict[str, list[str]]] = {}
        """Folder -> name in NFC -> names on disk."""

    def resolve(self, written: str, where: str) -> Path:
        """Return the path of the file, or the path as written if no reading of it exists.

        Args:
            written: the path in the manifest.
            where: its row, for an error message.

        Raises:
            InputError: the path does not exist and begins with a Windows drive or server.
        """
        # normpath, so that two spellings of one path are found to be the same file
        exact = Path(os.path.normpath(self._folder / written))
        of_windows = _DRIVE.match(written)
        plain = written.isascii() and written == written.strip() and "\\" not in written
        if (plain and not of_windows) or os.path.lexists(exact):
            return exact
        if of_windows:
            raise InputError(
                f"{where}: a path must exist on this system, but got the Windows path {written!r}; write paths "
                f"relative to {self._folder}",
                code=ErrorCode.MANIFEST_WINDOWS_PATH,
            )
        slashed = written.replace("\\", "/")
        readings = [written, written.strip(), slashed, slashed.strip()]
        found = (self._find(os.path.normpath(self._folder / reading)) for reading in dict.fromkeys(readings))
        return next((path for path in found if path), Path(os.path.normpath(self._folder / slashed)))

    def _find(self, path: str) -> Path | None:
        """Find an existing path whose parts equal these in some Unicode form."""
        candidates = [Path(os.sep)]
        for part in Path(path).parts[1:]:
            candidates = [folder / name for folder in candidates for name in self._names(folder, part)]
        return candidates[0] if candidates else None

    def _names(self, folder: Path, name: str) -> list[str]:
        """Names in a folder that equal this one in some Unicode form, an exact match first."""
        if os.path.lexists(folder / name) and name.isascii():
            return [name]
        if folder not in self._listings:
            self._listings[folder] = _names_by_nfc(folder)
        forms = self._listings[folder].get(unicodedata.normalize("NFC", name), [])
        return sorted(forms, key=lambda form: (form != name, form))


def _names_by_nfc(folder: Path) -> dict[str, list[str]]:
    """Names in a folder by their NFC form; none if it cannot be listed, as the audit will report the file."""
    names: defaultdict[str, list[str]] = defaultdict(list)
    try:
        for path in folder.iterdir():
            names[unicodedata.normalize("NFC", path.name)].append(path.name)
    except OSError:
        return {}
    return names
