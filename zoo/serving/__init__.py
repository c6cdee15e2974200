"""Serving models over HTTP: OpenAI's interface for completions, streams that keep their state, and
one scheduler for each model that writes many texts at a time. Needs no torch for exported files.

Starlette, with uvicorn, because it adds routes and streamed answers to ASGI and nothing else:
requests are checked by pydantic, which the zoo has anyway. prometheus-client writes the metrics.
"""
