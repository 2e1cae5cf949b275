"""Downloads of published files: from the first mirror that has the right one, checked before it takes its name."""

import hashlib
import http.client
import urllib.request

from errors import UserError
from files import reason, write
from progress import bar

TIMEOUT = 10  # seconds without an answer before the next mirror is tried
LARGEST = 2**30  # bytes


def download(path, addresses, digest):
    """Fetch a file whose MD5 or SHA-256 is known; returns its path."""
    reasons = []
    for address in addresses:
        try:
            data = fetch(address)
        except (OSError, ValueError, http.client.HTTPException) as error:  # time-outs are OSErrors
            reasons.append(reason(getattr(error, "reason", error)))
            continue
        if checksum(data, digest) == digest:
            write(path, data)
            return path
        reasons.append("wrong checksum")
    raise UserError(
        f"{path.name} is not in {path.parent} and cannot be downloaded ({reasons[0]}) — put it there, "
        "or try --dataset synthetic, which needs no files"
    )


def checksum(data, like):
    """The checksum of bytes, of the kind that another one is."""
    return hashlib.new("md5" if len(like) == 32 else "sha256", data, usedforsecurity=False).hexdigest()


def fetch(address):
    """The bytes behind an address, behind a bar."""
    with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
        total = int(answer.headers.get("Content-Length") or 0)
        chunks, size = [], 0
        with bar(total or None, address.rsplit("/", 1)[1], unit="B") as shown:
            while chunk := answer.read(2**16):
                chunks.append(chunk)
                size += len(chunk)
                shown.update(len(chunk))
                if size > LARGEST:
                    raise ValueError("the answer is far too large")
    return b"".join(chunks)
