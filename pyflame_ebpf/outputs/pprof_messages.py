"""The messages of the pprof format as classes of the protobuf library.

They are made from a table at their first use, since code that protoc generates runs with some releases of the library
only.  Names and numbers are from google/pprof, proto/profile.proto (package perftools.profiles), the published format.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "perftools.profiles"
_INT64, _UINT64, _BOOL, _MESSAGE = 3, 4, 8, 11  # FieldDescriptorProto.Type
_OPTIONAL, _REPEATED = 1, 3  # FieldDescriptorProto.Label

# message → field → (number, type); a type in a list is repeated, a text is a message.  Texts are indices into the
# string table throughout.
_Type = int | str
_MESSAGES: dict[str, dict[str, tuple[int, _Type | list[_Type]]]] = {
    "Profile": {
        "sample_type": (1, ["ValueType"]),
        "sample": (2, ["Sample"]),
        "mapping": (3, ["Mapping"]),
        "location": (4, ["Location"]),
        "function": (5, ["Function"]),
        "time_nanos": (9, _INT64),
        "duration_nanos": (10, _INT64),
        "period_type": (11, "ValueType"),
        "period": (12, _INT64),
        "comment": (13, [_INT64]),
        "default_sample_type": (14, _INT64),
    },
    "ValueType": {"type": (1, _INT64), "unit": (2, _INT64)},
    "Sample": {"location_id": (1, [_UINT64]), "value": (2, [_INT64]), "label": (3, ["Label"])},
    "Label": {"key": (1, _INT64), "str": (2, _INT64), "num": (3, _INT64), "num_unit": (4, _INT64)},
    "Mapping": {
        "id": (1, _UINT64),
        "memory_start": (2, _UINT64),
        "memory_limit": (3, _UINT64),
        "file_offset": (4, _UINT64),
        "filename": (5, _INT64),
        "build_id": (6, _INT64),
        "has_functions": (7, _BOOL),
        "has_filenames": (8, _BOOL),
        "has_line_numbers": (9, _BOOL),
        "has_inline_frames": (10, _BOOL),
    },
    "Location": {"id": (1, _UINT64), "mapping_id": (2, _UINT64), "address": (3, _UINT64), "line": (4, ["Line"])},
    "Line": {"function_id": (1, _UINT64), "line": (2, _INT64)},
    "Function": {
        "id": (1, _UINT64),
        "name": (2, _INT64),
        "system_name": (3, _INT64),
        "filename": (4, _INT64),
        "start_line": (5, _INT64),
    },
}
_STRING_TABLE = ("string_table", 6, 9)  # of Profile: name, number, TYPE_STRING


def profile_class() -> Any:
    """The class of the message Profile."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(_file().SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Profile"))


def _file() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="profile.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
        if name == "Profile":
            field, number, kind = _STRING_TABLE
            message.field.add(name=field, number=number, type=kind, label=_REPEATED)
    return file


def _add_field(message: Any, name: str, number: int, kind: _Type | list[_Type]) -> None:
    label = _REPEATED if isinstance(kind, list) else _OPTIONAL
    (single,) = kind if isinstance(kind, list) else (kind,)
    if isinstance(single, str):
        message.field.add(name=name, number=number, label=label, type=_MESSAGE, type_name=f".{_PACKAGE}.{single}")
    else:
        message.field.add(name=name, number=number, label=label, type=single)
