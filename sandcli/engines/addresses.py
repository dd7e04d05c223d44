"""How to reach a server: its URL, the proxy in between, and the key."""

import contextlib
import os
from base64 import b64encode
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from sandcli.config import without_password
from sandcli.errors import UsageError


class Address(NamedTuple):
    """The URL of a server, safe to show and without `/v1`, and the user name and password for it."""

    url: str
    user: str = ""
    password: str = ""

    @classmethod
    def read(cls, given: str) -> "Address":
        """Parse a URL, with or without `/v1` or a slash at its end. Raises `UsageError` if it is malformed."""
        try:
            parts = urlsplit(given.strip())
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
                raise ValueError
        except ValueError:
            shown = given.rpartition("@")[2]
            raise UsageError(
                f"engine.urls: {shown!r} is not a URL", "give one such as http://127.0.0.1:8000/v1"
            ) from None
        path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
        url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"
        return cls(url, unquote(parts.username or ""), unquote(parts.password or ""))

    def authorization(self, key: str) -> str:
        """The Authorization header: the URL's user and password if it has any, else the key."""
        if not self.user and not self.password:
            return f"Bearer {key}"
        return f"Basic {b64encode(f'{self.user}:{self.password}'.encode()).decode()}"

    @property
    def proxy(self) -> str | None:
        """The proxy that the environment sets for this server; None for one on this machine.

        Raises `UsageError` if it is not an HTTP proxy.
        """
        parts = urlsplit(self.url)
        known = getproxies()
        host = parts.hostname or ""
        if _is_local(host) or proxy_bypass(parts.netloc) or _is_within(host, known.get("no", "")):
            return None
        proxy = known.get(parts.scheme) or known.get("all")
        if not proxy or proxy.startswith(("http://", "https://")):
            return proxy
        if "://" in proxy:
            raise UsageError(
                f"the proxy for {self.url} is {without_password(proxy)}, and only HTTP proxies are supported",
                f"set no_proxy={parts.hostname}, or {parts.scheme}_proxy to an HTTP proxy",
            )
        return f"http://{proxy}"


def _is_local(host: str) -> bool:
    """Whether a host is this machine, by its name or address."""
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback or address.is_unspecified


def _is_within(host: str, networks: str) -> bool:
    """Whether a host is an address in one of the networks (such as 10.0.0.0/8) in a list with commas."""
    for network in networks.split(","):
        with contextlib.suppress(ValueError):  # the host or this entry is a name
            if ip_address(host) in ip_network(network.strip(), strict=False):
                return True
    return False


def key_of_environment() -> str | None:
    """The key in the environment. Raises `UsageError` if no header could hold it; the message does not quote it."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if key and not (key.isascii() and key.isprintable()):
        raise UsageError(
            "OPENAI_API_KEY contains a character that keys cannot contain, such as a line break", "set it again"
        )
    return key or None
