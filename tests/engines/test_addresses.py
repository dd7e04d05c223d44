"""How a server is reached: proxies, except for this machine, and keys that no header can hold."""

import pytest

from sandcli.engines.addresses import Address, key_of_environment
from sandcli.engines.base import Model
from sandcli.errors import MachineryError, PrerequisiteError, UsageError
from tests.servers import HELLO, PROMPT, SIMPLE, Serve, answered, closed_port, fails, opened, run

PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", PROXIES[:6])
def test_a_server_on_this_machine_is_reached_without_a_proxy(
    words: Model, serve: Serve, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, closed_port())
    assert answered(words, serve())[0] == [HELLO]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "0.0.0.0"]
)
@pytest.mark.parametrize("name", ["http_proxy", "ALL_PROXY"])
def test_this_machine_has_many_names(monkeypatch: pytest.MonkeyPatch, name: str, host: str) -> None:
    monkeypatch.setenv(name, "http://proxy:3128")
    assert Address.read(f"http://{host}:8000/v1").proxy is None


@pytest.mark.parametrize(("scheme", "name"), [("http", "http_proxy"), ("https", "HTTPS_PROXY"), ("https", "all_proxy")])
@pytest.mark.parametrize("proxy", ["http://proxy:3128", "proxy:3128"])
def test_another_machine_is_reached_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch, scheme: str, name: str, proxy: str
) -> None:
    monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("no_proxy", "near.example")
    assert Address.read(f"{scheme}://far.example:8000/v1").proxy == "http://proxy:3128"
    assert Address.read(f"{scheme}://127.example:8000/v1").proxy == "http://proxy:3128"
    assert Address.read(f"{scheme}://near.example:8000").proxy is None


@pytest.mark.parametrize(
    ("host", "bypassed"),
    [("10.1.2.3", True), ("11.1.2.3", False), ("192.168.7.7", True), ("[fd00::7]", True), ("gpu.example", False)],
)
def test_networks_in_no_proxy_are_reached_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch, host: str, bypassed: bool
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "near.example, 10.0.0.0/8,192.168.7.0/24,fd00::/8,")
    assert Address.read(f"http://{host}:8000").proxy == (None if bypassed else "http://proxy:3128")


def test_a_proxy_of_another_kind_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://me:hidden@proxy:1080")
    with pytest.raises(UsageError, match="only HTTP proxies") as caught:
        _ = Address.read("http://far.example").proxy
    assert "hidden" not in caught.value.what + caught.value.fix


@pytest.mark.parametrize("given", ["sk-hidden\n", " sk-hidden", "sk-hidden\r\n"])
def test_blanks_around_a_key_are_no_part_of_it(
    words: Model, serve: Serve, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", given)
    server = serve()
    assert answered(words, server)[0] == [HELLO]
    assert server.requests[0].authorization == "Bearer sk-hidden"


@pytest.mark.parametrize("given", ["sk-\nhidden", "sk-\rhidden", "sk-hidden\x7fx", "sk-hiddén", "sk-\u2028hidden"])
def test_a_key_that_no_header_holds_is_refused_and_not_quoted(
    words: Model, serve: Serve, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", given)
    with pytest.raises(UsageError, match="OPENAI_API_KEY contains a character") as caught:
        answered(words, serve())
    assert "hidd" not in caught.value.what + caught.value.fix


def test_a_blank_key_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " \n")
    assert key_of_environment() is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_message_about_a_key_is_not_quoted(
    words: Model, serve: Serve, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden-key")
    server = serve()
    server.usual = fails(status, "Incorrect API key: sk-hidd***-key")

    async def task() -> None:
        async with opened(words, server, patience=0.2) as (engine, notices):
            server.listing = server.usual
            with pytest.raises(MachineryError) as caught:
                await engine.generate(PROMPT, SIMPLE)
            assert str(status) in caught.value.detail
            assert "hidd" not in " ".join([caught.value.detail, *notices])

    run(task)


def test_a_quoted_password_is_hidden_too(words: Model, serve: Serve) -> None:
    server = serve()
    server.listing = fails(500, "no: hid%2Fden, hid/den")
    with pytest.raises(PrerequisiteError) as caught:
        answered(words, server.url.replace("http://", "http://me:hid%2Fden@"), patience=0.1)
    assert "hid" not in caught.value.what
    assert "***" in caught.value.what
