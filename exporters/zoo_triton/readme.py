"""The README.md of a model repository: how to start the server, and clients to copy from."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.inference.artifact import GENERATE, SEQUENCE, STEP, ArtifactInfo
from zoo_triton.config import IDLE_MICROSECONDS, MAX_BATCH_SIZE, MAX_SEQUENCES

TITLES = {
    STEP: "Reads one token in each request and gives the logits of the next.",
    GENERATE: "Writes as many tokens in each request as `uniform` has numbers.",
    SEQUENCE: "Reads the tokens of each request and gives the logits at every position.",
}

START = """\
# {cell}: a model repository for NVIDIA Triton Inference Server

Exported by the recurrent zoo. The server needs the ONNX Runtime backend, of ONNX Runtime 1.18 or
newer:

```text
$ tritonserver --model-repository /path/to/this/folder
```

| model | what one request does |
|---|---|
{models}

`tokenizer.json` says which token stands for what; every client encodes and decodes by it. The
folder of a model can be renamed: its name is the model's.

"""

SEQUENCES = f"""\
## Sequences

Every text is a sequence of requests with the same `sequence_id`, a number above 0 that no other
open sequence of that model has. The server keeps the state of each sequence; clients neither send
nor receive it.

- The first request has `sequence_start`, the last one `sequence_end`. A request with both is a
  whole sequence. A sequence that was idle for {IDLE_MICROSECONDS // 1_000_000} seconds ends too.
- All requests of a sequence go to one model: a state does not move from one model to another.
- A request holds one row, so all shapes begin with 1. The server itself puts requests of different
  sequences together, up to {MAX_BATCH_SIZE}, if their shapes are equal. A result does not depend on
  the other rows.
- Send the next request of a sequence when the result of the one before it is there.

## Settings

These stand in `config.pbtxt`:

| setting | value | change it |
|---|---|---|
| `max_batch_size` | {MAX_BATCH_SIZE} | for more or fewer requests in one run of the graph |
| `max_candidate_sequences` | {MAX_SEQUENCES} | for more open sequences; others wait |
| `max_sequence_idle_microseconds` | {IDLE_MICROSECONDS} | for clients with longer pauses |
| `kind` | `KIND_CPU` | `KIND_GPU` suits `step`; loops, as in the other graphs, run on CPUs |
| `intra_op_thread_count` | 1 for small models | for more threads in a run of the graph |

"""

WHOLE = f"""\
## Requests

The model reads a sequence in both directions, so every request is a whole sequence, and has no
state. It may have up to {MAX_BATCH_SIZE} rows. The server puts requests of equal shapes together.

"""

CLIENT = """\
## Client

The snippets of this page are one program, which needs `pip install "tritonclient[grpc]"`.

```python
import json
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import np_to_triton_dtype

client = triton.InferenceServerClient("localhost:8001")
{tokenizer}

def ask(model, wanted, arrays, **sequence):
    inputs = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
        inputs.append(tensor.set_data_from_numpy(array))
    return client.infer(model, inputs, **sequence).as_numpy(wanted)
```
"""

TOKENIZER_OF_CHARACTERS = """\
described = json.loads(Path("tokenizer.json").read_bytes())
characters = "\\N{{REPLACEMENT CHARACTER}}" + described["characters"]


def encode(text):
    return [max(characters.find(character), 0) for character in {text}]


def decode(tokens):
    return "".join(characters[token] for token in tokens)
"""

AS_READ = {"char": "text", "letters": "text.lower()"}  # what a kind of tokenizer looks up

TOKENIZER_OF_THE_ZOO = """\
import zoo
from zoo.data import read_tokenizer

tokenizer = read_tokenizer(Path("tokenizer.json").read_bytes(), zoo.load_registry())
encode, decode = tokenizer.encode, tokenizer.decode
"""

EXAMPLES = {
    STEP: """
Greedy text from `{name}`, a token at a time:

```python
tokens = list(encode({prompt!r}))
length = len(tokens) + 20
for position in range(length - 1):
    logits = ask(
        "{name}",
        "logits",
        {{"token": np.array([[tokens[position]]])}},
        sequence_id=1,
        sequence_start=position == 0,
        sequence_end=position == length - 2,
    )
    if position + 1 == len(tokens):
        tokens.append(int(logits[0].argmax()))
print(decode(tokens))
```
""",
    GENERATE: """
Sampled text from `{name}`. The requests before the last read the prompt, and the token that each of
them writes is left aside. `uniform` has a number from 0 to 1 for each token that is wanted. A
`temperature` of 0 is greedy, a `top_k` of 0 and a `top_p` of 1 keep all tokens:

```python
def write(token, uniform, temperature, **sequence):
    arrays = {{
        "token": np.array([[token]]),
        "uniform": uniform[None],
        "temperature": np.array([[temperature]], np.float32),
        "top_k": np.array([[0]]),
        "top_p": np.array([[1]], np.float32),
    }}
    return ask("{name}", "tokens", arrays, sequence_id=2, **sequence)[0]


*before, last = encode({prompt!r})
nothing = np.zeros(1, np.float32)
for position, token in enumerate(before):
    write(token, nothing, 0, sequence_start=position == 0)
uniform = np.random.default_rng(0).random(20, np.float32)
tokens = write(last, uniform, 0.7, sequence_start=not before, sequence_end=True)
print({prompt!r} + decode(tokens))
```
""",
    SEQUENCE: """
Bits per token of a text, by `{name}`:

```python
tokens = np.array([encode({prompt!r})])
whole = {{"sequence_id": 3, "sequence_start": True, "sequence_end": True}}
logits = ask("{name}", "logits", {{"tokens": tokens}}, **whole)[0].astype(np.float64)
probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
print(-np.log2(probabilities[np.arange(tokens.size - 1), tokens[0, 1:]]).mean())
```
""",
}

FILL = """
The most likely token at each position of a text, by `{name}`. Token {mask} is the mask token;
here it stands for the second token of the text:

```python
tokens = np.array([encode({prompt!r})])
tokens[0, 1] = {mask}
logits = ask("{name}", "logits", {{"tokens": tokens}})
print(decode(logits[0].argmax(-1)))
```
"""


def readme(models: Mapping[str, ArtifactInfo]) -> str:
    """The page for models of these names."""
    first = next(iter(models.values()))
    rows = "\n".join(f"| `{name}` | {TITLES[info.graph]} |" for name, info in models.items())
    text = START.format(cell=first.model.cell, models=rows)
    text += SEQUENCES if first.causal else WHOLE
    text += CLIENT.format(tokenizer=_tokenizer(first))
    prompt = first.training.prompt or "the "
    for name, info in models.items():
        example = EXAMPLES[info.graph] if info.causal else FILL
        text += example.format(
            name=name,
            prompt=prompt,
            mask=info.ends.outputs,
        )
    return text


def _tokenizer(info: ArtifactInfo) -> str:
    """The lines that define `encode` and `decode`."""
    if info.text_tokenizer.documents or info.text_tokenizer.kind not in AS_READ:
        return TOKENIZER_OF_THE_ZOO
    return TOKENIZER_OF_CHARACTERS.format(text=AS_READ[info.text_tokenizer.kind])
