"""Addresses without their secrets: of what is shown or written, all goes through here.

An address may hold a password (``https://user:password@host``) or a signature (``?sig=...``). They are needed to read a
scene and belong into no file, no log and no message. What is left of an address still tells addresses apart, also when
their signatures have been renewed.
"""

import hashlib
import json
import re
from typing import Any
from urllib.parse import parse_qsl

_HIDDEN = "***"

_END = '\\s"<>'
_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://|https?:/)"  # of one slash, where somebody took it for a path
    rf"(?P<user>[^/?#{_END}]*@)?(?P<path>[^?#'{_END}]*)(?P<tail>[?#][^{_END}]*)?"
)
_GDAL = re.compile(rf"(?P<start>/vsi[a-z0-9_]+)\?(?P<tail>[^{_END}]*)")
"""GDAL's way to put an address, and how to reach it, into a query of its own."""

_NAME = re.compile(rf"(?<![^\s('\"])(?P<name>[^/?\s'\"<>]+\.\w+)(?P<tail>\?[^={_END}]+=[^{_END}]*)")
"""The last part of an address, by which GDAL names a file in what it says."""

_MARKS = ".,:;)]}'"
"""At the end of an address they are the sentence's."""

_RENEWED = re.compile(
    "x-(amz|goog|ms)-.*|awsaccesskeyid|googleaccessid|key-pair-id|sig|signature|expires|policy|credential"
    "|((access|auth|id|security|session)[-_]?)?token|(access|api|subscription)[-_]?key|apikey|secret|password|passwd",
    re.IGNORECASE,
)
"""Parameters of signed addresses, which differ each time that an address is signed."""

_RENEWED_BESIDE_SIG = re.compile("s[evprt]|sks|skv|ske|skt|skoid|sktid|ss|srt|sdd|saoid|suoid|scid|sip", re.IGNORECASE)
"""Likewise, where one of them is called sig; elsewhere they may be anything."""


def redact(text: str) -> str:
    """A text whose addresses have lost user, password and query; a second time changes nothing.

    Of a query whose parameters say more than who may read, a few digits of a checksum are left.
    """
    if ":/" not in text and "/vsi" not in text and "?" not in text:
        return text
    text = _ADDRESS.sub(_address, _GDAL.sub(lambda found: f"{found['start']}{_tail('?' + found['tail'])}", text))
    return _NAME.sub(lambda found: f"{found['name']}{_tail(found['tail'])}", text)


def redact_all(data: Any) -> Any:
    """Plain data whose texts are redacted; keys are not."""
    if isinstance(data, str):
        return redact(data)
    if isinstance(data, dict):
        return {key: redact_all(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [redact_all(value) for value in data]
    return data


def is_redacted(address: str) -> bool:
    """Whether an address has lost what it takes to read from it."""
    return f"://{_HIDDEN}@" in address or (f"?{_HIDDEN}" in address and redact(address) == address)


def without_query(address: str) -> str:
    """An address for names that are made from it: redacted, and only up to where a query begins."""
    if "://" not in address and not address.startswith("/vsi"):
        return address
    return re.split("[?#]", redact(address), maxsplit=1)[0]


def _address(found: re.Match[str]) -> str:
    user = f"{_HIDDEN}@" if found["user"] else ""
    return f"{found['scheme']}{user}{found['path']}{_tail(found['tail'] or '')}"


def _tail(text: str) -> str:
    """What stands for a query or a fragment."""
    query = text.rstrip(_MARKS)
    if not query[1:] or query[1:].startswith(_HIDDEN) or (query[0] == "#" and "=" not in query):
        return text
    pairs = parse_qsl(query[1:], keep_blank_values=True)
    signed = any(name.lower() == "sig" for name, _ in pairs)
    told = [
        (name, redact(value))
        for name, value in pairs
        if not _RENEWED.fullmatch(name) and not (signed and _RENEWED_BESIDE_SIG.fullmatch(name))
    ]
    digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:8] if told else ""
    return f"?{_HIDDEN}{digest}{text[len(query) :]}"
