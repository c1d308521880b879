"""What /proc/cpuinfo says of a processor: its exact model, and what kernels are chosen by."""

from __future__ import annotations

# The kernel's flag -> the extension's own name, as far as LiteRT's kernels care.
_X86 = {
    "fma": "FMA",
    "f16c": "F16C",
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512F",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_fp16": "AVX512-FP16",
    "amx_int8": "AMX-INT8",
}
_ARM = {
    "asimd": "NEON",
    "neon": "NEON",
    "asimdhp": "FP16",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "bf16": "BF16",
    "sve": "SVE",
    "sme": "SME",
}
_NAMES = _X86 | _ARM
_FLAGS = ("flags", "Features")  # x86, Arm
# What identifies a model, and the words before it.
_MODEL = {
    "model name": "",
    "cpu family": "family",
    "model": "model",
    "stepping": "stepping",
    "CPU implementer": "implementer",
    "CPU part": "part",
}


def processor_features(cpuinfo: str) -> list[str] | None:
    """Such as ["FMA", "AVX2"], of what every core has; None where it is not said."""
    cores = [set(value.split()) for key, value in _lines(cpuinfo) if key in _FLAGS]
    if not cores:
        return None
    common = set.intersection(*cores)
    return list(dict.fromkeys(name for flag, name in _NAMES.items() if flag in common))


def processor_model(cpuinfo: str) -> str | None:
    """The first core's name, and what tells processors of one name apart; None where unsaid.

    "AMD EPYC, family 25, model 17, stepping 1"; Arm's cores have numbers alone.
    """
    first = dict(reversed(_lines(cpuinfo)))
    named = {
        key: f"{words} {first[key]}".strip() for key, words in _MODEL.items() if first.get(key)
    }
    return ", ".join(named.values()) or None


def _lines(cpuinfo: str) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    return [(key.strip(), value.strip()) for key, _, value in pairs]
