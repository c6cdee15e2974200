"""Third-party files: what is refused before ONNX Runtime reads it."""

from __future__ import annotations

import copy
import os
import re
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from zoo.errors import ArtifactError
from zoo_ort.container import delimited, encode_varint, fields
from zoo_ort.inspection import MAX_NODES, OPSETS, inspect, read_file
from zoo_ort.rules import ALLOWED_OPERATORS, BODIES, MAX_CONSTANT_ELEMENTS, MAX_FILE_BYTES

PATH = Path("third_party.onnx")

Fault = Callable[[onnx.ModelProto], object]


def node(op: str, inputs: str = "x", outputs: str = "y", **attributes: object) -> onnx.NodeProto:
    """Names are separated by spaces; "-" is an omitted input."""
    names = [name.strip("-") for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attributes)


def value(name: str, shape: Sequence[object] | None = ("batch", 4)) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(*nodes: onnx.NodeProto, **constants: object) -> onnx.ModelProto:
    """From x to y, float32 [batch, 4] both; the constants are initializers by these names."""
    tensors = [numpy_helper.from_array(np.asarray(array), k) for k, array in constants.items()]
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def body(*nodes: onnx.NodeProto, inputs: str = "", outputs: str = "y") -> onnx.GraphProto:
    values = [[value(name, None) for name in names.split()] for names in (inputs, outputs)]
    return helper.make_graph(nodes, "body", *values)


def branches(depth: int) -> onnx.NodeProto:
    """An If in an If in an If, `depth` deep."""
    inner = branches(depth - 1) if depth > 1 else node("Neg")
    return node("If", "yes", then_branch=body(inner), else_branch=body(node("Neg")))


def scan(**attributes: object) -> onnx.NodeProto:
    step = body(node("Add", "a b", "c"), node("Neg", "c", "d"), inputs="a b", outputs="c d")
    return node("Scan", "h x", "last y", **{"body": step, "num_scan_inputs": 1, **attributes})


WEIGHTS = np.eye(4, dtype=np.float32)
PLAIN = model(node("MatMul", "x w"), w=WEIGHTS)
CONV = model(node("Conv", "x w", group=2, pads=[1, 1], strides=[1]), w=WEIGHTS[:, None])
CONSTANT = model(
    node("Constant", "", "c", value=numpy_helper.from_array(WEIGHTS)), node("MatMul", "x c")
)
IF = model(branches(1), yes=True)
SCAN = model(scan(), h=WEIGHTS[0])
ATTENTION = {"update_rule": "gated", "q_num_heads": 2, "kv_num_heads": 2, "scale": 1.0}
FUSED = model(
    node("LinearAttention", "x x x s x", "y after", domain="com.microsoft", **ATTENTION),
    s=np.zeros((1, 2, 2, 2), np.float32),
)
FUSED.opset_import.add(domain="com.microsoft", version=1)


def first(proto: onnx.ModelProto) -> TensorProto:
    return proto.graph.initializer[0]


def constant(proto: onnx.ModelProto, array: object) -> None:
    """Replaces the value of the first initializer."""
    first(proto).CopyFrom(numpy_helper.from_array(np.asarray(array), first(proto).name))


def attribute(proto: onnx.ModelProto, name: str) -> AttributeProto:
    return next(a for n in proto.graph.node for a in n.attribute if a.name == name)


def externalise(tensor: TensorProto) -> None:
    """Stores the values of a tensor in another file, as onnx does."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def retyped(proto: onnx.ModelProto, field: str) -> None:
    kind = proto.graph.input[0].type
    kind.Clear()
    getattr(kind, field).elem_type.tensor_type.elem_type = TensorProto.FLOAT


MODEL_FAULTS: list[tuple[str, onnx.ModelProto, Fault, str]] = [
    ("IR version", PLAIN, lambda m: setattr(m, "ir_version", 11),
     "has IR version 11, and the zoo reads 7 to 10; export it again."),
    ("negative IR version", PLAIN, lambda m: setattr(m, "ir_version", -1), "has IR version -1"),
    ("new opset", PLAIN, lambda m: setattr(m.opset_import[0], "version", 21),
     "has opset 21, and the zoo reads 13 to 20"),
    ("old opset", PLAIN, lambda m: setattr(m.opset_import[0], "version", 12), "has opset 12"),
    ("foreign opset", PLAIN, lambda m: m.opset_import.add(domain="com.example", version=1),
     "imports the operators of 'com.example'"),
    ("new opset of a runtime", FUSED, lambda m: setattr(m.opset_import[1], "version", 2),
     "has opset 2, and the zoo reads 1 to 1"),
    ("two opsets", PLAIN, lambda m: m.opset_import.add(domain="ai.onnx", version=19),
     "imports 2 opsets instead of one"),
    ("no opset", PLAIN, lambda m: m.ClearField("opset_import"), "imports 0 opsets"),
    ("foreign node", PLAIN, lambda m: setattr(m.graph.node[0], "domain", "com.example"),
     "uses an operator of 'com.example'"),
    ("foreign node of a runtime", PLAIN,
     lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"),
     "uses the operator 'MatMul' of 'com.microsoft'"),
    ("functions", PLAIN, lambda m: m.functions.add(name="f"), "defines operators of its own"),
    ("training", PLAIN, lambda m: m.training_info.add(), "holds a graph for training"),
    ("sparse tensor", PLAIN, lambda m: m.graph.sparse_initializer.add(), "holds a sparse tensor"),
    ("devices", PLAIN, lambda m: m.configuration.add(name="d"),
     r"has a field 26 in the model that the zoo does not know"),
    ("overload", PLAIN, lambda m: setattr(m.graph.node[0], "overload", "o"),
     r"has a field 8 in a node that the zoo does not know"),
    ("Loop", PLAIN, lambda m: setattr(m.graph.node[0], "op_type", "Loop"),
     "uses the operator 'Loop', which the zoo does not run; write the model without it"),
    ("random", PLAIN, lambda m: setattr(m.graph.node[0], "op_type", "RandomNormalLike"),
     "uses the operator 'RandomNormalLike'"),
    ("an operator's name on two lines", PLAIN,
     lambda m: setattr(m.graph.node[0], "op_type", "Mat\nMul"), r"uses the operator 'Mat\\nMul'"),
    ("undefined input", PLAIN, lambda m: m.graph.node[0].input.__setitem__(0, "z"),
     "reads 'z' before anything computes it"),
    ("missing input", PLAIN, lambda m: m.graph.node[0].input.__setitem__(1, ""),
     "has an operator MatMul without its input 1"),
    ("two of a name", PLAIN, lambda m: m.graph.node[0].output.__setitem__(0, "x"),
     "has two values named 'x'"),
    ("undefined output", PLAIN, lambda m: setattr(m.graph.output[0], "name", "z"),
     "has an output 'z' that nothing computes"),
    ("sequence", PLAIN, lambda m: retyped(m, "sequence_type"),
     r"has a sequence .* in place of a tensor"),
    ("optional", PLAIN, lambda m: retyped(m, "optional_type"), r"has a field 9 in a type"),
    ("no type", PLAIN, lambda m: m.graph.input[0].ClearField("type"),
     "does not declare the shape of 'x'"),
    ("no shape", PLAIN, lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"),
     "does not declare the shape of 'x'"),
]  # fmt: skip

TENSOR_FAULTS: list[tuple[str, onnx.ModelProto, Fault, str]] = [
    ("external", PLAIN, lambda m: externalise(first(m)), "keeps the tensor 'w' in another file"),
    ("external entries alone", PLAIN, lambda m: first(m).external_data.add(key="location"),
     "keeps the tensor 'w' in another file"),
    ("external in an attribute", CONSTANT, lambda m: externalise(attribute(m, "value").t),
     "keeps the tensor '' in another file"),
    ("external in a subgraph", IF,
     lambda m: externalise(attribute(m, "then_branch").g.initializer.add(dims=[1], data_type=1)),
     "keeps the tensor '' in another file"),
    ("strings", PLAIN, lambda m: first(m).CopyFrom(helper.make_tensor("w", 8, [1], [b"text"])),
     "has a tensor of strings"),
    ("float8", PLAIN, lambda m: setattr(first(m), "data_type", 17), "has a tensor of type 17"),
    ("strings as input", PLAIN,
     lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", 8),
     "has a tensor of strings"),
    ("more than there is", PLAIN, lambda m: first(m).dims.__setitem__(0, 2**20),
     "has 16 values for the 4,194,304 elements of 'w'"),
    ("product that overflows", PLAIN, lambda m: first(m).dims.extend([2**30, 2**30, 2**4]),
     "has 16 values for the"),
    ("less than there is", PLAIN, lambda m: first(m).dims.__setitem__(0, 2), "has 16 values for"),
    ("negative axis", PLAIN, lambda m: first(m).dims.__setitem__(0, -4), r"of shape \[-4, 4\]"),
    ("empty of two axes", PLAIN, lambda m: constant(m, np.zeros((2, 0), np.float32)),
     "holds an empty tensor 'w' of several axes"),
    ("nine axes", PLAIN, lambda m: first(m).dims.extend([1] * 7), "of more than 8 axes"),
    ("nine axes as input", PLAIN,
     lambda m: [m.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1) for _ in range(7)],
     "of more than 8 axes"),
    ("values twice", PLAIN, lambda m: first(m).float_data.extend([0] * 16),
     "keeps the tensor 'w' in float_data and raw_data"),
    ("values in the wrong field", PLAIN,
     lambda m: (first(m).ClearField("raw_data"), first(m).int64_data.extend([0] * 16)),
     "keeps the tensor 'w' in int64_data"),
    ("segment", PLAIN, lambda m: setattr(first(m).segment, "begin", 1),
     "has a field 3 in a tensor"),
]  # fmt: skip

OPERATOR_FAULTS: list[tuple[str, onnx.ModelProto, Fault, str]] = [
    ("attribute of another type", CONV, lambda m: setattr(attribute(m, "group"), "type", 7),
     "has an attribute 'group' that is not of its type"),
    ("attribute without a value", CONV, lambda m: attribute(m, "group").ClearField("i"),
     "has an attribute 'group' that is not of its type"),
    ("attribute with two values", CONV, lambda m: setattr(attribute(m, "group"), "f", 1),
     "has an attribute 'group' that is not of its type"),
    ("attribute twice", CONV,
     lambda m: m.graph.node[0].attribute.append(helper.make_attribute("group", 1)),
     "has an operator Conv with two attributes 'group'"),
    ("no groups", CONV, lambda m: setattr(attribute(m, "group"), "i", 0),
     "has an attribute 'group' that is out of range"),
    ("long padding", CONV, lambda m: attribute(m, "pads").ints.__setitem__(0, 2**40),
     "has an attribute 'pads' that is out of range"),
    ("no stride", CONV, lambda m: attribute(m, "strides").ints.__setitem__(0, 0),
     "has an attribute 'strides' that is out of range"),
    ("sparse attribute", CONSTANT,
     lambda m: attribute(m, "value").sparse_tensor.values.dims.append(1),
     "has a field 22 in an attribute"),
    ("constant of nothing", CONSTANT, lambda m: m.graph.node[0].ClearField("attribute"),
     "has an operator Constant without a value"),
    ("graph in an operator without", IF,
     lambda m: m.graph.node.append(node("Neg", "x", "z", body=body(node("Neg")))),
     "has an operator Neg with other subgraphs than it takes"),
    ("If with one branch", IF, lambda m: m.graph.node[0].attribute.pop(),
     "has an operator If with other subgraphs than it takes"),
    ("If with a branch of two outputs", IF,
     lambda m: attribute(m, "then_branch").g.output.append(value("yes")), "that nothing computes"),
    ("If with a branch of no outputs", IF,
     lambda m: attribute(m, "then_branch").g.ClearField("output"),
     "has an operator If whose graph has other inputs or outputs"),
    ("six deep", model(branches(5), yes=True),
     lambda m: m.graph.node[0].CopyFrom(branches(6)), "nests graphs more than 5 deep"),
    ("Scan without a body", SCAN, lambda m: m.graph.node[0].attribute.remove(attribute(m, "body")),
     "has an operator Scan with other subgraphs than it takes"),
    ("Scan without a count", SCAN,
     lambda m: m.graph.node[0].attribute.remove(attribute(m, "num_scan_inputs")),
     "has an operator Scan over 0 of its 2 inputs"),
    ("Scan over too many", SCAN, lambda m: setattr(attribute(m, "num_scan_inputs"), "i", 3),
     "has an operator Scan over 3 of its 2 inputs"),
    ("Scan with another body", SCAN, lambda m: attribute(m, "body").g.input.pop(),
     "reads 'b' before anything computes it"),
    ("Scan with more inputs", SCAN, lambda m: m.graph.node[0].input.append("x"),
     "has an operator Scan whose graph has other inputs or outputs"),
    ("Scan along no axis", model(scan(scan_input_axes=[1]), h=WEIGHTS[0]),
     lambda m: attribute(m, "scan_input_axes").ints.__setitem__(0, 2**62),
     "has an attribute 'scan_input_axes' that is out of range"),
    ("Split into others", model(node("Split", "x", "y z", num_outputs=2, axis=1)),
     lambda m: setattr(attribute(m, "num_outputs"), "i", 3),
     "has an operator Split into 3 parts with 2 outputs"),
    ("batch before the first axis", model(node("GatherND", "x i", batch_dims=1), i=[[0]]),
     lambda m: setattr(attribute(m, "batch_dims"), "i", -4),
     "has an attribute 'batch_dims' that is out of range"),
    ("Einsum of three", model(node("Einsum", "x w", equation="bi, ij -> bj"), w=WEIGHTS),
     lambda m: setattr(attribute(m, "equation"), "s", b"bi,ij,jk->bk"),
     "has an operator Einsum of 2 inputs for 'bi,ij,jk->bk'"),
    ("Einsum of noise", model(node("Einsum", "x", equation="...i->i")),
     lambda m: setattr(attribute(m, "equation"), "s", b"..>\0 ->...i"),
     "has an operator Einsum of 1 inputs for"),
    ("Einsum to a new axis", model(node("Einsum", "x", equation="bi->b")),
     lambda m: setattr(attribute(m, "equation"), "s", b"bi->bz"),
     "has an operator Einsum of 1 inputs for 'bi->bz'"),
]  # fmt: skip

FUSED_FAULTS: list[tuple[str, onnx.ModelProto, Fault, str]] = [
    ("another rule", FUSED, lambda m: setattr(attribute(m, "update_rule"), "s", b"other"),
     "has an operator LinearAttention without what its rule needs"),
    ("no rule", FUSED, lambda m: m.graph.node[0].attribute.remove(attribute(m, "update_rule")),
     "has an operator LinearAttention without what its rule needs"),
    ("a rule that needs a rate", FUSED,
     lambda m: setattr(attribute(m, "update_rule"), "s", b"gated_delta"),
     "has an operator LinearAttention without what its rule needs"),
    ("no decay", FUSED, lambda m: m.graph.node[0].input.__setitem__(4, ""),
     "has an operator LinearAttention without what its rule needs"),
    ("no key", FUSED, lambda m: m.graph.node[0].input.__setitem__(1, ""),
     "has an operator LinearAttention with other inputs or outputs than it takes"),
    ("no state", FUSED, lambda m: m.graph.node[0].input.__delitem__(slice(3, None)),
     "has an operator LinearAttention with other inputs or outputs than it takes"),
    ("a seventh input", FUSED, lambda m: m.graph.node[0].input.extend(["x", "x"]),
     "has an operator LinearAttention with other inputs or outputs than it takes"),
    ("one output", FUSED, lambda m: m.graph.node[0].output.pop(),
     "has an operator LinearAttention with other inputs or outputs than it takes"),
    ("no heads", FUSED, lambda m: setattr(attribute(m, "q_num_heads"), "i", 0),
     "has an operator LinearAttention with other heads than it takes"),
    ("many heads", FUSED,
     lambda m: [setattr(attribute(m, f"{n}_num_heads"), "i", 2**40) for n in ("q", "kv")],
     "has an operator LinearAttention with other heads than it takes"),
    ("fewer heads of keys", FUSED, lambda m: setattr(attribute(m, "kv_num_heads"), "i", 1),
     "has an operator LinearAttention with other heads than it takes"),
    ("heads of another type", FUSED,
     lambda m: attribute(m, "kv_num_heads").CopyFrom(helper.make_attribute("kv_num_heads", 2.0)),
     "has an operator LinearAttention with other heads than it takes"),
    ("an unknown attribute", FUSED,
     lambda m: m.graph.node[0].attribute.append(helper.make_attribute("chunk_size", -1)),
     "has an operator LinearAttention with an attribute 'chunk_size'"),
    ("a graph", FUSED,
     lambda m: m.graph.node[0].attribute.append(
         helper.make_attribute("body", body(node("Neg")))),
     "has an operator LinearAttention with"),
]  # fmt: skip

LARGE = f"for more than {MAX_CONSTANT_ELEMENTS:,} elements"
SIZE_FAULTS: list[tuple[str, onnx.ModelProto, Fault, str]] = [
    ("ConstantOfShape", model(node("ConstantOfShape", "s"), s=[2, 4]),
     lambda m: constant(m, [2**20, 2**20]), f"asks ConstantOfShape {LARGE}"),
    ("Expand", model(node("Expand", "x s"), s=[2, 4]),
     lambda m: constant(m, [2**40]), f"asks Expand {LARGE}"),
    ("Tile", model(node("Tile", "x s"), s=[2, 1]),
     lambda m: constant(m, [2**30, 1]), f"asks Tile {LARGE}"),
    ("Pad", model(node("Pad", "x s"), s=[0, 1, 0, 0]),
     lambda m: constant(m, [2**20, 0, 0, 2**20]), f"asks Pad {LARGE}"),
    ("Range", model(node("Range", "zero s one"), s=7, zero=0, one=1),
     lambda m: constant(m, 2**40), f"asks Range {LARGE}"),
    ("Range without steps", model(node("Range", "zero ten one"), one=1, zero=0, ten=10),
     lambda m: constant(m, 0), f"asks Range {LARGE}"),
    ("OneHot", model(node("OneHot", "x s v"), s=28, v=[0, 1]),
     lambda m: constant(m, 2**40), f"asks OneHot {LARGE}"),
    ("OneHot of no depth", model(node("OneHot", "x s v"), s=28, v=[0, 1]),
     lambda m: constant(m, np.zeros(0, np.int64)), "OneHot whose depth is not one number"),
    ("Expand to many axes", model(node("Expand", "x s"), s=[2, 4]),
     lambda m: constant(m, [1] * 17), "of more than 8 axes"),
    ("shape in a Constant", model(node("Constant", "", "s", value_ints=[2, 4]),
                                  node("Expand", "x s")),
     lambda m: attribute(m, "value_ints").ints.append(2**40), f"asks Expand {LARGE}"),
    ("shape outside the subgraph",
     model(node("If", "yes", then_branch=body(node("Expand", "x s")),
                else_branch=body(node("Neg"))), s=[2, 4], yes=True),
     lambda m: constant(m, [2**40]), f"asks Expand {LARGE}"),
]  # fmt: skip

FAULTS = [*MODEL_FAULTS, *TENSOR_FAULTS, *OPERATOR_FAULTS, *FUSED_FAULTS, *SIZE_FAULTS]


@pytest.mark.parametrize(("_name", "good", "fault", "words"), FAULTS, ids=[f[0] for f in FAULTS])
def test_each_fault_is_refused(_name: str, good: onnx.ModelProto, fault: Fault, words: str) -> None:
    inspect(PATH, good.SerializeToString())
    bad = copy.deepcopy(good)
    fault(bad)
    with pytest.raises(ArtifactError, match=words) as caught:
        inspect(PATH, bad.SerializeToString())
    assert re.fullmatch(r"third_party\.onnx .*; (export|write) .*\.", str(caught.value))


@pytest.mark.parametrize("name", [b"batch", b"within"])
def test_names_that_are_not_text(name: bytes) -> None:
    """ONNX Runtime's Python fails on reading them: on those of axes as of values."""
    content = model(node("Neg", "x", "within"), node("Neg", "within")).SerializeToString()
    inspect(PATH, content)
    with pytest.raises(ArtifactError, match=r"has a name .* that is not UTF-8; export it again"):
        inspect(PATH, content.replace(name, b"\xff" * len(name)))


@pytest.mark.parametrize("dtype", ["f4", "f2", "f8", "i8", "i4", "u1", "i1", "?"])
def test_each_element_type_in_each_encoding(dtype: str) -> None:
    """Values may be in raw_data, or in the field of their type, packed or not."""
    array = np.ones((3, 2), dtype)
    good = model(node("Neg"), c=array)
    inspect(PATH, good.SerializeToString())
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    first(good).CopyFrom(helper.make_tensor("c", kind, (3, 2), array.ravel()))
    inspect(PATH, good.SerializeToString())
    first(good).dims[0] = 4
    with pytest.raises(ArtifactError, match="has 6 values for the 8 elements of 'c'"):
        inspect(PATH, good.SerializeToString())


def test_an_incomplete_number_is_refused() -> None:
    bad = copy.deepcopy(PLAIN)
    first(bad).raw_data += b"\0"
    with pytest.raises(ArtifactError, match="is not an ONNX file, or is truncated"):
        inspect(PATH, bad.SerializeToString())


@pytest.mark.parametrize(
    ("added", "words"),
    [
        (delimited(7, b""), "has two fields 'graph' in the model"),
        (b"\x08\x0a", "has two fields 'ir_version' in the model"),
        (delimited(99, b""), "has a field 99 in the model"),
        (b"\x39" + bytes(8), "has a field 7 in the model"),  # the graph's number, as a double
        (b"\x73", "is not an ONNX file, or is truncated"),  # the beginning of a group
        (b"\x32\x05cut", "is not an ONNX file, or is truncated"),
        (b"\x32" + b"\xff" * 9 + b"\x01", "is not an ONNX file, or is truncated"),
        (b"\x32" + b"\x80" * 10 + b"\x01", "is not an ONNX file, or is truncated"),
    ],
)
def test_ambiguous_protobuf_encodings_are_refused(added: bytes, words: str) -> None:
    content = PLAIN.SerializeToString()
    with pytest.raises(ArtifactError, match=words):
        inspect(PATH, content + added)


def test_numbers_beyond_64_bits_are_refused() -> None:
    """To protobuf, a data_location of 2**32 + 1 is EXTERNAL."""
    tensor = first(PLAIN).SerializeToString() + b"\x70" + encode_varint(2**32 + 1)
    assert TensorProto.FromString(tensor).data_location == TensorProto.EXTERNAL
    bare = copy.deepcopy(PLAIN)
    del bare.graph.initializer[:]
    graph = bare.graph.SerializeToString() + delimited(5, tensor)
    bare.ClearField("graph")
    with pytest.raises(ArtifactError, match="keeps the tensor 'w' in another file"):
        inspect(PATH, bare.SerializeToString() + delimited(7, graph))


def test_a_file_in_two_formats_at_once() -> None:
    """Four letters in a comment make ONNX Runtime read the model as a flatbuffer."""
    content = delimited(6, b"\0\0ORTM") + PLAIN.SerializeToString()
    onnx.checker.check_model(onnx.ModelProto.FromString(content))
    with pytest.raises(Exception, match="ORT model verification failed"):
        onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with pytest.raises(ArtifactError, match="is in ONNX Runtime's own format instead of ONNX"):
        inspect(PATH, content)


@pytest.mark.parametrize("content", [b"", b"\0", b"this is no model", b"PK\3\4" + bytes(40)])
def test_bytes_that_are_not_a_model_are_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError) as caught:
        inspect(PATH, content)
    assert len(str(caught.value).splitlines()) == 1


def test_truncated_files_are_refused(fox_file: Path) -> None:
    content = read_file(fox_file)
    inspect(fox_file, content)
    (graph,) = (field for field in fields(memoryview(content)) if field.number == 7)
    for end in range(0, graph.end, 13):
        with pytest.raises(ArtifactError):
            inspect(fox_file, content[:end])


def test_paths_that_are_not_regular_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"none\.onnx cannot be read: No such file"):
        read_file(tmp_path / "none.onnx")
    with pytest.raises(ArtifactError, match="is not a regular file"):
        read_file(tmp_path)
    with pytest.raises(ArtifactError, match="is not a regular file"):
        read_file(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ArtifactError, match="is not a regular file; give the path of an exported"):
        read_file(tmp_path / "pipe.onnx")
    with (tmp_path / "long.onnx").open("wb") as long:
        long.truncate(MAX_FILE_BYTES + 1)  # a sparse file
    with pytest.raises(ArtifactError, match=r"is 2,147,483,648 bytes; a model is at most 2,147"):
        read_file(tmp_path / "long.onnx")


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    content = PLAIN.SerializeToString()
    monkeypatch.setattr("zoo_ort.inspection.MAX_FILE_BYTES", len(content))
    inspect(PATH, content)
    with pytest.raises(ArtifactError, match="a model is at most"):
        inspect(PATH, content + delimited(6, b""))


def chain(length: int) -> onnx.ModelProto:
    nodes = [node("Gemm", f"n{i} w", f"n{i + 1}", alpha=0.5, transB=1) for i in range(length)]
    return model(node("Neg", "x", "n0"), *nodes, node("Neg", f"n{length}"), w=WEIGHTS)


def test_too_many_nodes_and_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    inspect(PATH, chain(98).SerializeToString())
    monkeypatch.setattr("zoo_ort.inspection.MAX_NODES", 99)
    with pytest.raises(ArtifactError, match="has more than 99 nodes"):
        inspect(PATH, chain(98).SerializeToString())
    monkeypatch.setattr("zoo_ort.inspection.MAX_FIELDS", 1000)
    with pytest.raises(ArtifactError, match="has more than 1,000 fields"):
        inspect(PATH, delimited(14, b"") * 1000 + PLAIN.SerializeToString())


def test_nodes_of_all_subgraphs_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_NODES > 5
    monkeypatch.setattr("zoo_ort.inspection.MAX_NODES", 5)
    inspect(PATH, model(branches(2), yes=True).SerializeToString())
    with pytest.raises(ArtifactError, match="has more than 5 nodes"):
        inspect(PATH, model(branches(3), yes=True).SerializeToString())


def test_inspection_is_quick() -> None:
    """The time does not grow with the weights, and at most linearly with the nodes: measured, 0.4
    ms and 0.35 s. The bounds, in processor time, are exceeded only by another complexity."""
    large = model(node("MatMul", "x w"), w=np.zeros((4, 6_250_000), np.float32))
    many = chain(20_000)
    for proto, seconds in ((large, 1.0), (many, 20.0)):
        content = proto.SerializeToString()
        start = time.process_time()
        inspect(PATH, content)
        assert time.process_time() - start < seconds


def test_allowed_operators_are_deterministic_and_take_tensors() -> None:
    """According to onnx's schemas."""
    determinism = onnx.defs.OpSchema.NodeDeterminism.Deterministic
    for name in ALLOWED_OPERATORS - BODIES.keys():  # of If and Scan, by their subgraphs
        schema = onnx.defs.get_schema(name, OPSETS[-1], "")
        assert schema.node_determinism == determinism, name
        kinds = {kind for output in schema.outputs for kind in output.types}
        assert name == "Identity" or all(kind.startswith("tensor(") for kind in kinds), name


class ManyOperators(torch.nn.Module):
    """A cell with operators that third-party cells may use."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = torch.nn.LSTM(4, 4, batch_first=True)
        self.norms = torch.nn.Sequential(torch.nn.GroupNorm(2, 4), torch.nn.RMSNorm(4))
        self.conv = torch.nn.Conv1d(4, 4, 3, groups=4, padding=2)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outer = torch.einsum("bi,bj->bij", x, h).tril() + torch.eye(4)
        read = torch.einsum("bij,bj->bi", outer.softmax(-1), self.norms(h))
        largest, index = x.topk(2)
        sparse = torch.zeros_like(x).scatter(1, index, largest)
        picked = torch.nn.functional.one_hot(x.argmax(1), 4) + x.cumsum(1).flip(1).roll(1, 1)
        wide = self.conv(x[:, :, None].expand(-1, -1, 3))[:, :, 0]
        out = self.rnn(read[:, None])[0][:, 0] + sparse.clamp(min=0) + picked + wide
        return out, torch.where(
            out > 0, h, torch.nn.functional.gelu(out).chunk(2, 1)[0].repeat(1, 2)
        )


@pytest.mark.slow
def test_operators_that_pytorch_writes_are_allowed() -> None:
    batch, example = torch.export.Dim("batch"), torch.randn(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            ManyOperators().eval(),
            (example, example),
            dynamo=True,
            opset_version=20,
            dynamic_shapes=({0: batch}, {0: batch}),
            verbose=False,
        )
    proto = program.model_proto
    proto.ir_version = 10
    assert {n.op_type for n in proto.graph.node} >= {
        "LSTM",
        "Einsum",
        "Conv",
        "InstanceNormalization",
    }
    inspect(PATH, proto.SerializeToString())
