"""A real llama.cpp server with a random half-megabyte model, each in its own process.

The demo and the tests use it as a real server, without downloading a model. It writes the model, starts the
server, and makes sure that the server never outlives its parent. It does not import ccroute: it is the other
end of the wire.

    with serve(api_key="sk-local") as llama:
        httpx.get(llama.url + "/v1/models", headers={"authorization": "Bearer sk-local"})

The weights are random. `speech="words"` answers with word salad, `"noise"` mostly with single bytes, broken
UTF-8 included, and `"tools"` calls a tool when `tool_choice` says it must (its grammar then forces the form
by the tool's schema). A closed connection stops a streamed generation within milliseconds, but not an
unstreamed one (llama.cpp #24496): that one ends at `max_tokens` or with the window.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Speech = Literal["words", "noise", "tools"]
NEEDED = ("xllamacpp", "gguf", "numpy")
DIM, LAYERS, HEADS, FEED_FORWARD = 64, 2, 4, 128
TRAINED_CONTEXT = 131_072  # metadata only: the server never gives a request more than this
SALAD = """
hello world the a route model agent token answer prompt stream server local cloud cost fast slow small large
plan test code write read review build fix ask choose fall back first then next and or not with for from to
in is was can will one two three é naïve 世界 🚀 → . , ! ?
"""
TOOL_CALL = "<tool_call>"  # one token; "words" and "noise" say it only when a logit_bias asks for it
LIKED_BY_TOOLS = {"</s>": 900.0, TOOL_CALL: 600.0, "</tool_call>": 300.0, '"': 300.0}  # where allowed

# Roles are plain text: with <s> in the generation prompt the server's grammar refuses every tool call.
TEMPLATE = """\
{%- if tools %}{{ 'system: tools' }}{% for tool in tools %}{{ '\\n' + (tool | tojson) }}{% endfor %}
{{- '\\n' }}{% endif -%}
{%- for m in messages -%}
{{ m['role'] + ': ' + (m['content'] or '') }}
{%- for c in (m['tool_calls'] or []) -%}
{{ '<tool_call>{"name": "' + c['function']['name'] + '", "arguments": ' }}
{{- (c['function']['arguments'] | tojson) + '}</tool_call>' }}
{%- endfor -%}
{{ '</s>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'assistant: ' }}{%- endif -%}
"""


def available() -> str | None:
    """None if a server can be started here, else the reason."""
    for name in NEEDED:
        try:
            importlib.import_module(name)
        except Exception as exc:  # a wheel for another platform fails in its own ways
            return f"{name} cannot be imported ({exc}); pip install 'ccroute[demo]'"
    return None


# -- the model -------------------------------------------------------------------------------------------


def vocabulary() -> list[tuple[str, str]]:
    """(piece, kind) of every token; SentencePiece wants the byte tokens, llama.cpp aborts on a duplicate."""
    pieces = [("<unk>", "UNKNOWN"), ("<s>", "CONTROL"), ("</s>", "CONTROL")]
    pieces += [(f"<0x{byte:02X}>", "BYTE") for byte in range(256)]
    pieces += [(char, "NORMAL") for char in ("▁", *map(chr, range(33, 127)))]
    pieces += [("▁" + word, "NORMAL") for word in SALAD.split()]
    return [*pieces, (TOOL_CALL, "USER_DEFINED"), ("</tool_call>", "USER_DEFINED")]


def write_model(path: Path, *, seed: int = 0, speech: Speech = "words") -> None:
    """Write the random model as GGUF: two llama layers; bytes, characters and words for tokens."""
    import gguf

    pieces = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"tiny-random-{seed}")
    writer.add_context_length(TRAINED_CONTEXT)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(DIM // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(0)
    writer.add_vocab_size(len(pieces))
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece for piece, _ in pieces])
    writer.add_token_types([gguf.TokenType[kind] for _, kind in pieces])
    writer.add_token_scores([-float(i) for i in range(len(pieces))])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in weights(pieces, seed=seed, speech=speech).items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def weights(pieces: Sequence[tuple[str, str]], *, seed: int, speech: Speech) -> dict[str, Any]:
    """Random tensors by name.

    Nothing writes to dimension 0 of the residual stream: it is constant, so output[:, 0] is a bias per token.
    """
    import numpy as np

    rng = np.random.default_rng(seed)

    def random(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    def into_stream(width: int) -> Any:
        tensor = random(DIM, width)
        tensor[0] = 0
        return tensor

    norm = np.ones(DIM, np.float32)
    tensors = {
        "token_embd": random(len(pieces), DIM),
        "output_norm": norm,
        "output": random(len(pieces), DIM),
    }
    tensors["token_embd"][:, 0] = 1
    tensors["output"][:, 0] = [bias(piece, kind, speech) for piece, kind in pieces]
    for i in range(LAYERS):
        tensors |= {f"blk.{i}.attn_{part}": random(DIM, DIM) for part in ("q", "k", "v")}
        tensors |= {f"blk.{i}.ffn_{part}": random(FEED_FORWARD, DIM) for part in ("gate", "up")}
        tensors |= {f"blk.{i}.attn_output": into_stream(DIM), f"blk.{i}.ffn_down": into_stream(FEED_FORWARD)}
        tensors |= {f"blk.{i}.attn_norm": norm, f"blk.{i}.ffn_norm": norm}
    return tensors


def bias(piece: str, kind: str, speech: Speech) -> float:
    """How much more (or less) likely a token is than a word."""
    if speech == "tools" and piece in LIKED_BY_TOOLS:
        return LIKED_BY_TOOLS[piece]
    if piece == "</s>" or (kind == "NORMAL" and len(piece) > 1):
        return 0
    return 0 if speech == "noise" and kind != "USER_DEFINED" else -100


def cached_model(*, seed: int = 0, speech: Speech = "words") -> Path:
    """The model's file, written once per user, seed and code version; many processes may do so at once."""
    version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"tiny-llama-{getpass.getuser()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{version}-{seed}-{speech}.gguf"
    if not path.exists():
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        write_model(draft, seed=seed, speech=speech)
        draft.replace(path)  # atomic: another starter sees no file or a whole one
    return path


# -- the child: one server -------------------------------------------------------------------------------


def child() -> None:
    """Serve as the first line of stdin says, print the address, and run until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; it then closes our stdin
    import xllamacpp

    settings = json.loads(sys.stdin.readline())
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.api_keys = [settings["api_key"]] if settings["api_key"] else []
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = settings["parallel"]
    params.n_ctx = settings["n_ctx"] * settings["parallel"]  # the server shares it out among its slots
    params.n_predict = settings["max_answer"]
    params.cpuparams.n_threads = 1
    params.sampling.seed = settings["seed"]  # the same request gets the same answer
    params.warmup = False
    params.ui = False
    params.fit_params = False
    params.cache_ram_mib = 0
    params.endpoint_metrics = True
    params.verbosity = 1  # errors only; the parent shows them if the start fails
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # nothing to save, and no wait for a generation that nobody reads


# -- the parent ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TinyLlama:
    """A running server."""

    url: str  # http://127.0.0.1:PORT, no path
    model: str  # the name it answers with
    api_key: str | None
    process: subprocess.Popen[str]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """End it in an orderly way. It may be called twice, and after `kill`."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it like a crash: its sockets are reset in the middle of their work."""
        self.process.kill()
        self.process.wait()

    def get(self, path: str) -> Any:
        """One of the server's own JSON documents, such as /slots or /props."""
        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        with urllib.request.urlopen(
            urllib.request.Request(self.url + path, headers=headers), timeout=5
        ) as reply:
            return json.load(reply)

    def busy_slots(self) -> int:
        """How many requests are generating right now."""
        return sum(slot["is_processing"] for slot in self.get("/slots"))

    def wait_busy_slots(self, count: int, timeout: float = 5.0) -> bool:
        """Poll until exactly `count` requests are generating; False if that did not happen in time."""
        deadline = time.monotonic() + timeout
        while self.busy_slots() != count:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.005)
        return True


@contextlib.contextmanager
def serve(
    *,
    seed: int = 0,
    speech: Speech = "words",
    api_key: str | None = "sk-local",
    n_ctx: int = 2048,
    parallel: int = 2,
    max_answer: int = -1,
    model_alias: str | None = None,
    timeout: float = 30.0,
) -> Iterator[TinyLlama]:
    """Run a server until the block ends.

    `n_ctx` is the context window of one request, in tokens (prompt and answer); `parallel` requests generate
    at once and the rest queue. `max_answer` caps answers whose request names no max_tokens (-1: the window
    does). `timeout` is for the start, in seconds. `RuntimeError` says why no server could be started.
    """
    if reason := available():
        raise RuntimeError(f"no llama.cpp server here: {reason}")
    settings: dict[str, Any] = {
        "model": str(cached_model(seed=seed, speech=speech)),
        "seed": seed,
        "alias": model_alias or "tiny-llama",
        "api_key": api_key,
        "n_ctx": n_ctx,
        "parallel": parallel,
        "max_answer": max_answer,
    }
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, __file__, "--serve"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True)
        server = TinyLlama(url="", model=settings["alias"], api_key=api_key, process=process)
        try:
            yield replace(server, url=address(process, settings, log, timeout))
        finally:
            server.stop()


def address(process: subprocess.Popen[str], settings: dict[str, Any], log: IO[str], timeout: float) -> str:
    """Give the child its settings (the key is not on the command line) and wait for its address."""
    assert process.stdin
    assert process.stdout
    with contextlib.suppress(BrokenPipeError):  # it died already: the log says why
        process.stdin.write(json.dumps(settings) + "\n")
        process.stdin.flush()
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    line = process.stdout.readline().strip() if ready else ""
    if line.startswith("http://"):
        return line
    process.kill()
    log.seek(0)
    what = "ended" if ready else f"did not answer within {timeout:g} s"
    raise RuntimeError(
        f"the llama.cpp server {what}: {line} {log.read()[-2000:].strip() or '(it said nothing)'}"
    )


def main() -> None:
    if sys.argv[1:] == ["--serve"]:
        child()
        return
    with serve() as server:
        print(f"{server.url}/v1  model {server.model}  key {server.api_key}  (Enter stops it)")
        with contextlib.suppress(KeyboardInterrupt):
            input()


if __name__ == "__main__":
    main()
