"""Which C++ sources the compiled extension was made of, to tell whether those beside it are the same.

`python native_sources.py CSRC FILE` writes C++ that says it; CMakeLists.txt compiles that into the extension.
"""

from __future__ import annotations

import re
import sys
from hashlib import sha256
from pathlib import Path


def stamp(csrc: Path) -> str:
    """Another one for other sources in a folder; comments and blanks do not count."""
    digest = sha256()
    sources = {path.relative_to(csrc).as_posix(): path for path in csrc.rglob("*") if path.suffix in (".h", ".cpp")}
    for name in sorted(sources):
        code = re.sub("//.*", "", sources[name].read_text(encoding="utf-8"))
        digest.update(" ".join([name, *code.split(), "\n"]).encode())
    return digest.hexdigest()


if __name__ == "__main__":
    declared = "extern const char* const sdas_sources;"
    defined = f'const char* const sdas_sources = "{stamp(Path(sys.argv[1]))}";'
    Path(sys.argv[2]).write_text(f"{declared}\n{defined}\n", encoding="utf-8")
