"""Published files: where they lie, whether they are what was published, and how to get them."""

import gzip
import hashlib
import http.client
import io
import os
import tarfile
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from fedsim.errors import RunError, ScenarioError

Open = Callable[[str], bytes]


@dataclass(frozen=True)
class PublishedFile:
    """A file of a data set, in the folder of its source.

    name: its name in the folder; the ending says how it is packed (.gz, .tgz, .tar.gz, .zip or not at all).
    urls: where it is published, tried in this order.
    members: in an archive: (member, SHA-256 of its bytes or "" where none is known).
    sha256: of the unpacked bytes where the file is no archive, because packers write different headers; "" if unknown.
    md5: of the archive itself, where its publisher gives that.
    """

    name: str
    urls: tuple[str, ...]
    members: tuple[tuple[str, str], ...] = ()
    sha256: str = ""
    md5: str = ""


def data_folder() -> Path:
    """Return the folder that holds one sub-folder a source: `FEDSIM_DATA`, or the user's cache folder."""
    chosen = os.environ.get("FEDSIM_DATA")
    return Path(chosen).expanduser() if chosen else user_cache_path("fedsim", appauthor=False)


def read_published(file: PublishedFile, folder: Path) -> dict[str, bytes]:
    """Return the unpacked, verified bytes: one entry a member of an archive, or one entry under the file's own name.

    Args: folder: the source's folder; its name is the source's name.
    Raises: ScenarioError where the file is missing, damaged, or not what was published.
    """
    path = folder / file.name
    try:
        packed = path.read_bytes()
    except FileNotFoundError as error:
        raise ScenarioError(
            f"data source {folder.name}: {file.name} is missing; looked for {path}. "
            f"Get it with `fedsim data get {folder.name}`, or set FEDSIM_DATA to the folder that holds {folder.name}/"
        ) from error
    except OSError as error:
        raise ScenarioError(f"data source {folder.name}: cannot read {path}: {error.strerror}") from error
    try:
        return _unpack(file, packed)
    except _NotAsPublishedError as error:
        raise ScenarioError(f"{path}: {error}. Delete it and run `fedsim data get {folder.name}`") from error


def get_published(file: PublishedFile, folder: Path, open_url: Open) -> None:
    """Download one file, verify it, and only then put it in the folder.

    Raises: RunError where no address answers with the published bytes, or the folder cannot be written.
    """
    problems = []
    for url in file.urls:
        try:
            found = open_url(url)
            if file.name.endswith(".gz") and not file.name.endswith(".tar.gz") and not url.endswith(".gz"):
                found = gzip.compress(found, mtime=0)
            _unpack(file, found)
        except (OSError, http.client.HTTPException, _NotAsPublishedError) as error:
            problems.append(f"{url}: {error}")
            continue
        write_atomically(folder / file.name, found)
        return
    raise RunError(f"cannot get {file.name}: " + "; ".join(problems))


def read_url(url: str) -> bytes:
    """Return what an address answers with."""
    with urllib.request.urlopen(url, timeout=60) as answer:
        content: bytes = answer.read()
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees a part of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as out:
                out.write(content)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from error


class _NotAsPublishedError(Exception):
    """The bytes differ from the published ones."""


def _unpack(file: PublishedFile, packed: bytes) -> dict[str, bytes]:
    """Return the verified contents by name."""
    if file.md5:
        _verify("MD5 of the archive", file.md5, hashlib.md5(packed, usedforsecurity=False).hexdigest())
    if not file.members:
        content = _gunzip(packed, file.sha256) if file.name.endswith(".gz") else packed
        _verify("SHA-256 of the unpacked bytes", file.sha256, hashlib.sha256(content).hexdigest())
        return {file.name: content}
    contents = _members(packed, [member for member, _ in file.members], file.name.endswith(".zip"))
    for member, sha256 in file.members:
        _verify(f"SHA-256 of member {member}", sha256, hashlib.sha256(contents[member]).hexdigest())
    return contents


def _gunzip(packed: bytes, expected: str) -> bytes:
    """Return the unpacked bytes."""
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        found = hashlib.sha256(packed).hexdigest()
        raise _NotAsPublishedError(
            f"expected SHA-256 {expected} of the unpacked bytes, found a damaged gzip file ({error}) with SHA-256 "
            f"{found}"
        ) from error


def _members(packed: bytes, names: list[str], is_zip: bool) -> dict[str, bytes]:
    """Return the named members, read in memory: nothing is ever extracted to the disk."""
    try:
        if is_zip:
            with zipfile.ZipFile(io.BytesIO(packed)) as archive:
                return {name: archive.read(name) for name in names}
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            contents = {}
            for name in names:
                member = tar.extractfile(name)
                if member is None:
                    raise KeyError(f"{name} is not a file")
                contents[name] = member.read()
            return contents
    except (KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as error:
        found = hashlib.sha256(packed).hexdigest()
        raise _NotAsPublishedError(
            f"expected an archive with {', '.join(names)}, found {error} in a file with SHA-256 {found}"
        ) from error


def _verify(what: str, expected: str, found: str) -> None:
    """Raise where a hash is known and differs."""
    if expected and expected != found:
        raise _NotAsPublishedError(f"{what}: expected {expected}, found {found}")
