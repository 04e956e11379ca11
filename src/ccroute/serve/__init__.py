"""The server side of the protocols: programs that know only an LLM's API can use a router.

Does no I/O. `ccroute.serve.openai` and `ccroute.serve.anthropic` read a client's request and write the
answer; the HTTP server around them is the caller's.
"""
