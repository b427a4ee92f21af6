"""
Makes the image's file system: what the program needs to run, and nothing else.

Run by the Dockerfile, inside its first stage, on the Debian that the files come from. Takes whole packages but for what
only people read and modules that a server has no use for; of the packages behind them, just the shared libraries that
something asks for. What it took is in the package database that it leaves for scanners.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"

WHOLE = ("dash", f"{PYTHON}-minimal", f"lib{PYTHON}-minimal", f"lib{PYTHON}-stdlib")
"""Packages that are taken as a whole: the shell is for the entrypoint alone."""

SINGLE = ("/etc/debian_version", "/etc/os-release", "/usr/lib/os-release")
"""What scanners know the system by, of `SINGLE_FROM`."""

SINGLE_FROM = "base-files"

PUBLIC_CAS = "ca-certificates"
"""
Package of the CAs that `https://` upstreams are checked by. Taken from its own files: the bundle of the machine that
builds may have others, such as that of a proxy which looks into TLS, and those are not to be trusted in production.
"""

LOADED_BY_NAME = ("libgcc_s.so.1",)
"""Libraries that no file is linked with: what glibc opens when a thread is cancelled."""

UNWANTED = re.compile(
    rf"/usr/share/(?:bash-completion|binfmts|debianutils|lintian|locale|man|menu|applications|pixmaps)/"
    rf"|/usr/share/doc/(?!.*/copyright$)"
    rf"|/usr/lib/valgrind/"
    rf"|/etc/{PYTHON}/|/usr/lib/{PYTHON}/sitecustomize"
    rf"|/usr/lib/{PYTHON}/(?:_pyrepl|config-|curses|dbm|ensurepip|idlelib|pydoc_data|sqlite3|test|tkinter|turtle|unittest|venv"
    rf"|wsgiref|xmlrpc)"
    rf"|/usr/lib/{PYTHON}/lib-dynload/(?:_codecs_|_ctypes_test|_curses|_dbm|_multibytecodec|_sqlite3|_test|_xxtest|readline|xx)"
    rf"|.*/__pycache__/"
)
"""Paths that are left out of whole packages. Bytecode is made anew, for what is left."""

LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64", "sbin": "usr/sbin"}

USERS = "root:x:0:0:root:/root:/usr/sbin/nologin\nsidecar:x:65532:65532:sidecar:/:/usr/sbin/nologin\n"
GROUPS = "root:x:0:\nsidecar:x:65532:\n"
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"


def main(root: Path, program: Path) -> None:
    """
    Fill *root*.

    Args:
        root: Where the file system is made; must not exist yet.
        program: Directory with our own installation; goes to the same place.
    """
    packages = {*WHOLE}
    for link, target in LINKS.items():
        if Path("/", link).is_symlink():
            (root / target).mkdir(parents=True, exist_ok=True)
            (root / link).symlink_to(target)
    for package in WHOLE:
        copy(root, (path for path in paths_of(package) if not UNWANTED.match(path)))
    copy(root, SINGLE)
    shutil.copytree(program, root / program.relative_to("/"), symlinks=True)
    packages |= copy_libraries(root)
    packages |= {SINGLE_FROM, PUBLIC_CAS}
    copy(root, (f"/usr/share/doc/{package}/copyright" for package in packages))
    write(root, "/etc/passwd", USERS)
    write(root, "/etc/group", GROUPS)
    write(root, "/etc/nsswitch.conf", NSSWITCH)
    write(root, "/etc/ssl/certs/ca-certificates.crt", public_cas())
    write(root, "/var/lib/dpkg/status", "\n".join(stanza(package) for package in sorted(packages)))


def paths_of(package: str) -> Iterator[str]:
    """Yield the files and symbolic links of an installed package, as they are named in it."""
    for path in output("dpkg-query", "--listfiles", package):
        if path.startswith("/") and (Path(path).is_symlink() or Path(path).is_file()):
            yield path


def copy(root: Path, paths: Iterable[str]) -> None:
    """Copy files and symbolic links; a path through a link of `LINKS` ends up where that leads."""
    for path in paths:
        source, target = Path(path), root / path.removeprefix("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.is_symlink():
            shutil.copy2(source, target, follow_symlinks=False)


def public_cas() -> str:
    """Return the certificates of `PUBLIC_CAS`, in PEM."""
    return "".join(Path(path).read_text() for path in paths_of(PUBLIC_CAS) if path.endswith(".crt"))


def copy_libraries(root: Path) -> set[str]:
    """Copy the shared libraries that files below *root* are linked with; return the packages that they come from."""
    found = {
        library for path in sorted(root.rglob("*")) if path.is_file() and is_elf(path) for library in libraries_of(path)
    }
    directory = next(library.parent for library in found if library.name.startswith("libc.so."))
    needed = {library for library in found if not library.is_relative_to(root)}
    needed |= {directory / name for name in LOADED_BY_NAME}
    copy(root, (str(library) for library in needed))
    copy(root, (str(library.resolve()) for library in needed))
    return {owner(str(library)) for library in needed}


def is_elf(path: Path) -> bool:
    """Whether it is a program or a shared library."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def libraries_of(path: Path) -> set[Path]:
    """
    Return the libraries that the dynamic linker loads for a file, in directories that are no links.

    Raises:
        RuntimeError: One of them is nowhere.
    """
    found: set[Path] = set()
    for line in output("ldd", str(path), statuses=(0, 1)):
        if "not found" in line:
            raise RuntimeError(f"{path}: {line.strip()}")
        match = re.search(r"(?:=> )?(/\S+) \(0x", line)
        if match:
            library = Path(match[1])
            found.add(library.parent.resolve() / library.name)
    return found


def owner(path: str) -> str:
    """
    Return the package that a file is from.

    Raises:
        RuntimeError: There is none.
    """
    for line in output("dpkg-query", "--search", path):
        packages, _, _ = line.rpartition(": ")
        if not packages.startswith("diversion by "):
            return packages.split(",")[0].split(":")[0]
    raise RuntimeError(f"{path}: no package has it")


def stanza(package: str) -> str:
    """Return what the package database says of an installed package."""
    return "\n".join(output("dpkg-query", "--status", package)) + "\n"


def write(root: Path, path: str, text: str) -> None:
    """Write a file of our own."""
    target = root / path.removeprefix("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def output(*command: str, statuses: tuple[int, ...] = (0,)) -> list[str]:
    """
    Return the lines that a command prints.

    Raises:
        RuntimeError: It ended with a status that is not one of *statuses*.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed programs
    if done.returncode not in statuses:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.splitlines()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
