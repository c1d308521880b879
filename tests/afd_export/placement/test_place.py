from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from afd_export.placement import rules as delegates
from afd_export.placement.operations import Operation, read_operations
from afd_export.placement.place import (
    GraphPlacement,
    Placement,
    node_subsets,
    place,
    place_file,
    placement_section,
)
from afd_export.placement.rules import Delegate, Rules, delegates_dir, load_rules
from afd_mobile.common.errors import UsageError
from tests.afd_export.conftest import Exported
from tests.afd_export.delegate_cases import CASES, S, floats, halves
from tests.afd_export.tflite_graphs import Fed, Graph, Stored
from tests.delegate_engines import GpuVerdict, gpu_engine, xnnpack_engine

F32 = Fed(S)


@pytest.fixture(scope="session")
def rules() -> dict[Delegate, Rules]:
    return {d: load_rules(d) for d in Delegate}


def placed(content: bytes, rules: Rules, folder: Path) -> Placement:
    path = folder / "graph.tflite"
    path.write_bytes(content)
    return place(read_operations(path), rules)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Operation]]:
    """The operations of every case."""
    path = tmp_path_factory.mktemp("cases") / "graph.tflite"

    def read(content: bytes) -> list[Operation]:
        path.write_bytes(content)
        return read_operations(path)

    return {name: read(case.content) for name, case in CASES.items()}


def check_every_case(complaint: Callable[[str], object]) -> None:
    """Fails with every case's name and `complaint(NAME)`, where that is not None."""
    complaints = {name: complaint(name) for name in CASES}
    wrong = [f"{name}: {found}" for name, found in complaints.items() if found is not None]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(CASES)} cases", *wrong])


# --- the rules, graph by graph --------------------------------------------------------------------


@pytest.mark.parametrize("delegate", list(Delegate))
def test_each_rule_on_its_graph(
    delegate: Delegate, rules: dict[Delegate, Rules], graphs: dict[str, list[Operation]]
) -> None:
    def complaint(name: str) -> str | None:
        expected = getattr(CASES[name], delegate.value)
        refusal = place(graphs[name], rules[delegate]).refusals[-1]
        right = (refusal and refusal.check) == expected and (refusal is None or refusal.reason)
        return None if right else f"{refusal}, but expected {expected}"

    check_every_case(complaint)


@pytest.mark.parametrize("delegate", list(Delegate))
def test_every_check_of_every_delegate_has_a_graph_that_it_refuses(
    delegate: Delegate, rules: dict[Delegate, Rules]
) -> None:
    named = {check for rule in rules[delegate].operators.values() for check in rule}
    refusing = {getattr(case, delegate.value) for case in CASES.values()}
    assert named - refusing == set()


@pytest.mark.parametrize("delegate", list(Delegate))
def test_every_operator_on_a_list_has_a_graph_that_is_taken(
    delegate: Delegate, rules: dict[Delegate, Rules], graphs: dict[str, list[Operation]]
) -> None:
    taken = {
        graphs[name][-1].operator
        for name, case in CASES.items()
        if getattr(case, delegate.value) is None
    }
    assert set(rules[delegate].operators) - taken == set()


def test_every_rule_states_where_it_was_read(rules: dict[Delegate, Rules]) -> None:
    for one in rules.values():
        assert all(len(source.rpartition(" at ")[2]) == 40 for source in one.read_from)
        assert one.name and one.runtime


# --- the rules against the engines ----------------------------------------------------------------


def test_xnnpack_takes_what_its_rules_take(
    rules: dict[Delegate, Rules], graphs: dict[str, list[Operation]]
) -> None:
    def complaint(name: str) -> str | None:
        expected = place(graphs[name], rules[Delegate.XNNPACK])
        engine = xnnpack_engine(CASES[name].content)
        counts = (expected.delegated, expected.total, len(expected.partitions))
        found = (engine.delegated, engine.total, engine.kernels)
        return None if found == counts else f"{found}, but expected {counts} by {expected.refusals}"

    check_every_case(complaint)


@pytest.fixture(scope="session")
def gpu_verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, GpuVerdict]:
    """The GPU engine's word on every graph of this file."""
    folder = tmp_path_factory.mktemp("gpu")
    contents = {name: case.content for name, case in CASES.items()} | SEVERAL
    paths = {name: folder / f"{number}.tflite" for number, name in enumerate(contents)}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    verdicts = gpu_engine(list(paths.values()), folder)
    return {name: verdicts[path] for name, path in paths.items()}


@pytest.mark.engine
def test_the_gpu_engine_takes_what_its_rules_take(
    rules: dict[Delegate, Rules],
    graphs: dict[str, list[Operation]],
    gpu_verdicts: dict[str, GpuVerdict],
) -> None:
    gpu = rules[Delegate.GPU]

    def complaint(name: str) -> str | None:
        operations = graphs[name]
        refusals = [
            refusal.check
            for operation, refusal in zip(operations, place(operations, gpu).refusals, strict=True)
            if refusal is not None
            # What the desktop engine takes although phones do not is stated beside the rule.
            and operation.operator not in gpu.desktop_operators
            and refusal.check not in (*gpu.desktop_takes.get(operation.operator, ()), "folding")
        ]
        verdict = gpu_verdicts[name]
        return None if verdict.whole == (not refusals) else f"{refusals}, but {verdict.log}"

    check_every_case(complaint)


# --- partitions -----------------------------------------------------------------------------------


def chain(*operators: str) -> bytes:
    graph = Graph()
    tensor = graph.feed(F32)
    for operator in operators:
        tensor = graph.run(operator, [tensor], [graph.tensor(F32)])
    return graph.finish([tensor])


def diamond() -> bytes:
    """RELU, then SIGN beside RELU6, then their sum; XNNPACK does not take SIGN."""
    graph = Graph()
    top = graph.run("RELU", [graph.feed(F32)], [graph.tensor(F32)])
    left = graph.run("SIGN", [top], [graph.tensor(F32)])
    right = graph.run("RELU6", [top], [graph.tensor(F32)])
    return graph.finish([graph.run("ADD", [left, right], [graph.tensor(F32)])])


def shared_constant(second: str, last: str = "RELU", values: Stored | None = None) -> bytes:
    """DEQUANTIZE of constant channels; ADD of them, then `second` of them, then `last`."""
    graph = Graph()
    given, constant = graph.feed(F32), graph.store(values or halves(8))
    added = graph.run("ADD", [given, constant], [graph.tensor(F32)])
    combined = graph.run(second, [added, constant], [graph.tensor(F32)])
    return graph.finish([graph.run(last, [combined], [graph.tensor(F32)])])


def unpacked_weights() -> bytes:
    """A convolution in float32 whose weights a DEQUANTIZE makes of int8."""
    graph = Graph()
    weights = Stored(np.ones((8, 3, 3, 8), np.int8), 0.1, unpacked=True)
    inputs = [graph.feed(F32), graph.store(weights), graph.store(Stored(floats(8)))]
    made = graph.tensor(F32)
    graph.run("CONV_2D", inputs, [made], strideW=1, strideH=1)
    return graph.finish([made])


int8_channels = Stored(np.arange(-4, 4, dtype=np.int8), 0.1, unpacked=True)
# (delegated, of how many, partitions) by XNNPACK; and how many the GPU runs, None where desktop and
# phones differ.
EXPECTED = {
    "taken": ((3, 3, [3]), 3),
    "refused in the middle": ((4, 5, [3, 1]), 3),
    "refused at both ends": ((2, 4, [2]), 2),
    "diamond": ((3, 4, [2, 1]), 4),
    "float16 constant": ((4, 4, [4]), 4),
    "float16 constant that the CPU needs too": ((2, 4, [1, 1]), 4),
    "float16 constant, CPU elsewhere": ((3, 4, [3]), 2),
    "int8 constant": ((4, 4, [4]), None),
    "int8 weights": ((2, 2, [2]), None),
}
SEVERAL = {
    "taken": chain("RELU", "TANH", "RELU6"),
    "refused in the middle": chain("RELU", "TANH", "RELU", "L2_NORMALIZATION", "RELU6"),
    "refused at both ends": chain("LOG_SOFTMAX", "RELU", "TANH", "LOG_SOFTMAX"),
    "diamond": diamond(),
    "float16 constant": shared_constant("MUL"),
    "float16 constant that the CPU needs too": shared_constant("FLOOR_MOD"),
    "float16 constant, CPU elsewhere": shared_constant("MUL", "L2_NORMALIZATION"),
    "int8 constant": shared_constant("MUL", values=int8_channels),
    "int8 weights": unpacked_weights(),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_partitions_are_counted_as_the_runtime_cuts_them(
    name: str, rules: dict[Delegate, Rules], tmp_path: Path
) -> None:
    placement = placed(SEVERAL[name], rules[Delegate.XNNPACK], tmp_path)
    (delegated, total, partitions), _ = EXPECTED[name]
    assert (placement.delegated, placement.total) == (delegated, total)
    assert list(placement.partitions) == partitions
    assert placement.whole == (delegated == total)
    engine = xnnpack_engine(SEVERAL[name])
    assert (engine.delegated, engine.total, engine.kernels) == (delegated, total, len(partitions))


@pytest.mark.engine
@pytest.mark.parametrize("name", [name for name, (_, gpu) in EXPECTED.items() if gpu is not None])
def test_the_gpu_delegate_keeps_its_largest_partition(
    name: str,
    rules: dict[Delegate, Rules],
    gpu_verdicts: dict[str, GpuVerdict],
    tmp_path: Path,
) -> None:
    placement = placed(SEVERAL[name], rules[Delegate.GPU], tmp_path)
    _, delegated = EXPECTED[name]
    assert placement.delegated == delegated
    verdict = gpu_verdicts[name]
    assert verdict.whole == placement.whole
    assert verdict.whole or verdict.delegated == delegated, verdict.log


def test_partitions_beyond_the_delegates_limit_are_counted_but_not_delegated(
    rules: dict[Delegate, Rules], tmp_path: Path
) -> None:
    gpu = rules[Delegate.GPU]
    content = SEVERAL["refused in the middle"]
    one = placed(content, gpu, tmp_path)
    assert (one.partitions, one.delegated) == ((3, 1), 3)
    every = placed(content, dataclasses.replace(gpu, max_partitions=None), tmp_path)
    assert (every.partitions, every.delegated) == ((3, 1), 4)


def test_subsets_follow_the_dependencies_and_skip_what_is_of_the_other_kind(
    tmp_path: Path,
) -> None:
    # 0 RELU -> 1 SIGN -> 3 ADD, 0 -> 2 RELU6 -> 3: the second RELU6 joins the first kernel although
    # SIGN comes before it.
    path = tmp_path / "graph.tflite"
    path.write_bytes(diamond())
    operations = read_operations(path)
    assert node_subsets(operations, [True, False, True, True]) == [
        (True, [0, 2]),
        (False, [1]),
        (True, [3]),
    ]
    assert node_subsets(operations, [False, True, True, False]) == [
        (False, [0]),
        (True, [1, 2]),
        (False, [3]),
    ]


# --- a real export ------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic", "int8"])
def test_rules_and_xnnpack_agree_on_exported_files(exported: Exported, precision: str) -> None:
    path = exported.tflite(precision)
    placement = place_file(path).placements[Delegate.XNNPACK]
    engine = xnnpack_engine(path.read_bytes())
    assert (engine.delegated, engine.total) == (placement.delegated, placement.total)
    assert engine.kernels == len(placement.partitions)
    assert placement.whole == (precision != "int8")


@pytest.mark.engine
def test_rules_and_gpu_engine_agree_on_exported_files(exported: Exported, tmp_path: Path) -> None:
    paths = [exported.tflite(p) for p in ("float32", "float16", "dynamic", "int8")]
    for path, verdict in gpu_engine(paths, tmp_path).items():
        assert verdict.whole == place_file(path).placements[Delegate.GPU].whole, verdict.log


# --- what is written ------------------------------------------------------------------------------


@pytest.fixture
def two_files(tmp_path: Path) -> dict[str, GraphPlacement]:
    files = {}
    for name, graph in {"float32": "refused in the middle", "float16": "float16 constant"}.items():
        path = tmp_path / f"{name}.tflite"
        path.write_bytes(SEVERAL[graph])
        files[name] = place_file(path)
    return files


def test_the_json_names_every_operation_and_why_it_is_refused(
    two_files: dict[str, GraphPlacement],
) -> None:
    content = json.loads(json.dumps(two_files["float32"].as_dict()))
    gpu = content["delegates"]["gpu"]
    assert (gpu["delegated"], gpu["total"], gpu["partitions"]) == (3, 5, 2)
    assert gpu["partition_operations"] == [3, 1]
    assert any("model_builder.cc at " in source for source in gpu["read_from"])
    assert [o["operator"] for o in content["operations"]] == [
        "RELU", "TANH", "RELU", "L2_NORMALIZATION", "RELU6",
    ]  # fmt: skip
    assert [o["index"] for o in content["operations"]] == list(range(5))
    refused = [o["refused"] for o in content["operations"]]
    reason = "L2_NORMALIZATION is not on the delegate's list"
    assert refused == [{}, {}, {}, {"xnnpack": reason, "gpu": reason}, {}]
    assert content["operations"][3]["shape"] == [1, 4, 4, 8]


def test_the_tables_have_a_row_for_every_refusal_and_none_for_what_all_take(
    two_files: dict[str, GraphPlacement],
) -> None:
    lines = placement_section(two_files)
    assert "| float32 | 4 of 5, 2 partitions | 3 of 5, 2 partitions, the largest 1 kept | " in (
        "\n".join(lines)
    )
    assert "| float16 | all 4, 1 partition | all 4, 1 partition | all 4, 1 partition |" in lines
    reason = "L2_NORMALIZATION is not on the delegate's list"
    assert f"| 3 L2_NORMALIZATION | 1x4x4x8 float32 | {reason} | {reason} | yes |" in lines
    rows = [line for line in lines if line.startswith("| ") and line[2].isdigit()]
    assert len(rows) == 1
    headings = [line for line in lines if line.startswith("### ")]
    assert headings == ["### What is refused of float32"]


def test_a_type_is_refused_with_those_that_are_taken(exported: Exported) -> None:
    graph = place_file(exported.tflite("int8"))
    refused = [r.reason for r in graph.placements[Delegate.XNNPACK].refusals if r is not None]
    assert refused == ["uint8 to int8 (takes: float32 to int8; float32 to uint8; int8; uint8)"]


def test_constants_that_are_unpacked_alike_share_a_row(exported: Exported) -> None:
    operations = read_operations(exported.tflite("float16"))
    nothing = dataclasses.replace(load_rules(Delegate.GPU), operators={})
    graph = GraphPlacement(tuple(operations), {Delegate.GPU: place(operations, nothing)})
    unpacking = [o for o in graph.operations if o.unpacks == "float16"]
    rows = [r for r in placement_section({"float16": graph}) if "DEQUANTIZE" in r]
    assert len(unpacking) > len(rows) == 1
    assert f"{unpacking[0].index} to {unpacking[-1].index} DEQUANTIZE" in rows[0]


# --- the data -------------------------------------------------------------------------------------


@pytest.fixture
def own_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of gpu.toml in the place where rules are looked for."""
    copy = Path(shutil.copy(delegates_dir() / "gpu.toml", tmp_path))
    monkeypatch.setattr(delegates, "delegates_dir", lambda: tmp_path)
    assert load_rules(Delegate.GPU).name == "GPU"
    return copy


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ('[[operators]]\nnames = ["ADD"]\n', "two rules for ADD"),
        ('[[operators]]\nnames = ["NEW"]\nmax_versoin = 2\n', "the rule of NEW has keys"),
    ],
)
def test_a_wrong_rule_is_refused(own_rules: Path, added: str, message: str) -> None:
    own_rules.write_text(f"{own_rules.read_text('utf-8')}\n{added}", "utf-8")
    with pytest.raises(UsageError, match=message):
        load_rules(Delegate.GPU)


@pytest.mark.parametrize(("old", "new"), [("folding =", "foldings ="), ("name =", "names =")])
def test_an_unknown_key_is_refused(own_rules: Path, old: str, new: str) -> None:
    own_rules.write_text(own_rules.read_text("utf-8").replace(f"\n{old}", f"\n{new}", 1), "utf-8")
    with pytest.raises(UsageError, match=r"gpu\.toml: the file has keys"):
        load_rules(Delegate.GPU)


def test_there_are_no_rules_without_a_delegate() -> None:
    assert {p.stem for p in delegates_dir().glob("*.toml")} == {d.value for d in Delegate}
