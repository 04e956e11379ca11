"""What only one server knows goes back to that one, and to no other at the same host."""

from __future__ import annotations

from tests.support.openai_like import chat
from tests.support.scripted import ScriptedServer, answer

from ccroute import OpenAIBackend, Router


def test_another_server_of_the_same_host_gets_no_fields_back() -> None:
    body = chat("well")
    body["choices"][0]["message"]["reasoning_details"] = [{"text": "from a"}]
    script = answer(json=body)
    with ScriptedServer([script], repeat=True) as a, ScriptedServer([script], repeat=True) as b:
        backends = [OpenAIBackend("a", base_url=a.url), OpenAIBackend("b", base_url=b.url)]
        with Router(backends) as router:
            message = router.complete("hi", model="a/m").choices[0].message
            assert [*message.provider_fields] == [a.url.split("/")[2]], "host and port"
            again = [{"role": "user", "content": "hi"}, message, {"role": "user", "content": "and?"}]
            for server in "ab":
                router.complete(messages=again, model=f"{server}/m")
        assert b"from a" in a.requests[-1].body
        assert b"from a" not in b.requests[-1].body
    usual = OpenAIBackend("x", base_url="https://host.test:443/v1")
    assert usual.origin.authority == "host.test"
