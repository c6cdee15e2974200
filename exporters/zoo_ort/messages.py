"""The messages of onnx.proto that a model may contain, with the names of their fields."""

from __future__ import annotations

from typing import TypeAlias

from zoo_ort.container import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT

Message: TypeAlias = dict[str, list[memoryview]]  # the contents of the fields, by name


class Layout:
    """The fields that a message may have, by name: `once` and `often` hold bytes, `scalars` and
    `lists` numbers of a wire type."""

    def __init__(
        self,
        title: str,
        once: dict[str, int] | None = None,
        often: dict[str, int] | None = None,
        scalars: dict[str, tuple[int, int]] | None = None,
        lists: dict[str, tuple[int, int]] | None = None,
    ) -> None:
        once, often, scalars, lists = once or {}, often or {}, scalars or {}, lists or {}
        self.title = title
        self.once = frozenset({*once, *scalars})
        self.names: dict[tuple[int, int], str] = {
            **{(number, LENGTH_DELIMITED): name for name, number in {**once, **often}.items()},
            **{key: name for name, key in {**scalars, **lists}.items()},
            # writers may encode a list of numbers as packed or not
            **{(number, LENGTH_DELIMITED): name for name, (number, _) in lists.items()},
        }


MODEL = Layout(
    "the model",
    once={"producer_name": 2, "producer_version": 3, "domain": 4, "doc_string": 6, "graph": 7},
    often={"opset_import": 8, "metadata_props": 14, "training_info": 20, "functions": 25},
    scalars={"ir_version": (1, VARINT), "model_version": (5, VARINT)},
)
OPSET_IMPORT = Layout("an opset import", once={"domain": 1}, scalars={"version": (2, VARINT)})
GRAPH = Layout(
    "a graph",
    once={"name": 2, "doc_string": 10},
    often={
        "node": 1,
        "initializer": 5,
        "input": 11,
        "output": 12,
        "value_info": 13,
        "quantization_annotation": 14,
        "sparse_initializer": 15,
        "metadata_props": 16,
    },
)
NODE = Layout(
    "a node",
    once={"name": 3, "op_type": 4, "doc_string": 6, "domain": 7},
    often={"input": 1, "output": 2, "attribute": 5, "metadata_props": 9},
)
ATTRIBUTE = Layout(
    "an attribute",
    once={"name": 1, "s": 4, "t": 5, "g": 6, "doc_string": 13},
    often={"strings": 9},
    scalars={"f": (2, FIXED32), "i": (3, VARINT), "type": (20, VARINT)},
    lists={"floats": (7, FIXED32), "ints": (8, VARINT)},
)
TENSOR = Layout(
    "a tensor",
    once={"name": 8, "raw_data": 9, "doc_string": 12},
    often={"string_data": 6, "external_data": 13, "metadata_props": 16},
    scalars={"data_type": (2, VARINT), "data_location": (14, VARINT)},
    lists={
        "dims": (1, VARINT),
        "float_data": (4, FIXED32),
        "int32_data": (5, VARINT),
        "int64_data": (7, VARINT),
        "double_data": (10, FIXED64),
        "uint64_data": (11, VARINT),
    },
)
VALUE = Layout("a value", once={"name": 1, "type": 2, "doc_string": 3}, often={"metadata_props": 4})
TYPE = Layout("a type", once={"tensor_type": 1, "sequence_type": 4, "denotation": 6})
TENSOR_TYPE = Layout("a tensor's type", once={"shape": 2}, scalars={"elem_type": (1, VARINT)})
SHAPE = Layout("a shape", often={"dim": 1})
DIMENSION = Layout(
    "an axis", once={"dim_param": 2, "denotation": 3}, scalars={"dim_value": (1, VARINT)}
)

ATTRIBUTE_FIELDS = dict(enumerate(("f", "i", "s", "t", "g", "floats", "ints", "strings"), 1))
LISTS = frozenset({"floats", "ints", "strings"})  # an empty one has no field
