"""ONNX Runtime for browsers: which version of it pages use, and how its files get there."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from zoo.errors import ZooError

VERSION = "1.30.0"
# of the archive that npm has, in base64: the same wherever npm gets it from
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# by device: the module, and the program in WebAssembly that it starts
FILES = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}
CDN_ORIGIN = "https://cdn.jsdelivr.net"  # it has packages of at most 150 MB; this one has 145
CDN = f"{CDN_ORIGIN}/npm/onnxruntime-web@{VERSION}/dist/"
TIMEOUT = 300  # seconds for npm


class NotVendoredError(Exception):
    """The files could not be had from npm; the message says why, as a part of a sentence."""


def vendor(folder: Path, names: Sequence[str]) -> None:
    """Writes the named files of onnxruntime-web into the new folder `folder`.
    NotVendoredError where npm is missing or has no way to them; ZooError for an archive with other
    content than the one that this was tested with."""
    npm = shutil.which("npm")
    if npm is None:
        raise NotVendoredError("npm is not installed")
    with tempfile.TemporaryDirectory() as downloads:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent", "--prefer-offline"]
        try:
            done = subprocess.run(
                command, cwd=downloads, capture_output=True, text=True, timeout=TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotVendoredError(f"npm did not end ({type(error).__name__})") from None
        archives = list(Path(downloads).glob("*.tgz"))
        if done.returncode or len(archives) != 1:
            raise NotVendoredError(f"npm could not get it (exit status {done.returncode})")
        _unpack(archives[0], folder, names)


def _unpack(archive: Path, folder: Path, names: Sequence[str]) -> None:
    with archive.open("rb") as file:
        digest = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if digest != SHA512:
        raise ZooError(
            f"npm supplied another onnxruntime-web {VERSION} than the one that was tested (SHA-512 "
            f"{digest[:20]}…); look at your npm's registry."
        )
    folder.mkdir()
    wanted = {f"package/dist/{name}" for name in names}
    with tarfile.open(archive, "r|gz") as packed:  # read once from beginning to end
        for member in packed:
            content = packed.extractfile(member) if member.name in wanted else None
            if content is not None:
                with content, (folder / Path(member.name).name).open("wb") as target:
                    shutil.copyfileobj(content, target)
