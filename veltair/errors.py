"""Every error veltair raises on purpose, each with a stable `code` that also crosses the wire.

    VeltairError
    ├── ConfigError                  bad_config
    ├── CompileError                 compile_failed
    │   ├── NotAnOnnxModel           not_onnx
    │   ├── NotATorchProgram         not_torch_program
    │   ├── UnsupportedOperator      unsupported_operator
    │   ├── DynamicShape             dynamic_shape
    │   ├── UnknownInput             unknown_input
    │   ├── ModelTooLarge            model_too_large
    │   ├── GateFailed               gate_failed
    │   ├── ToolMissing              tool_missing
    │   └── OutOfDisk                out_of_disk
    ├── BundleError                  bundle_invalid
    │   ├── BundleMissing            bundle_missing
    │   ├── BundleCorrupt            bundle_corrupt
    │   ├── BundleSchemaUnknown      bundle_schema
    │   └── BundleTargetMismatch     bundle_target
    ├── ServerError                  server_failed
    │   └── AddressInUse             address_in_use
    ├── LogError                     bad_log
    ├── ProfileError                 bad_profile
    │   ├── ProfileMissing           no_profile
    │   └── ProfileSchemaUnknown     profile_schema
    ├── SourceUnavailable            no_such_source        (of pressure: refused by the kernel, or gone)
    └── RequestError                 request_failed        (answers one request; crosses the wire)
        ├── UnknownModel             unknown_model
        ├── UnknownTenant            unknown_tenant
        ├── BadTensor                bad_tensor
        ├── BadDeadline              bad_deadline
        ├── BadMessage               bad_message
        ├── DeadlineUnmeetable       deadline_unmeetable   (refused on arrival)
        ├── DeadlineMissed           deadline_missed       (given up while waiting)
        ├── Draining                 draining
        ├── Cancelled                cancelled
        ├── EngineFailed             engine_failed
        ├── RequestTimeout           timeout
        └── ServerUnreachable        server_unreachable

A message names the thing, the value and the remedy, in that order.
"""

from typing import ClassVar


class VeltairError(Exception):
    """Base of all errors that veltair raises on purpose."""

    code: ClassVar[str] = "veltair_error"


class ConfigError(VeltairError):
    code = "bad_config"


class CompileError(VeltairError):
    code = "compile_failed"


class NotAnOnnxModel(CompileError):
    code = "not_onnx"


class NotATorchProgram(CompileError):
    code = "not_torch_program"


class UnsupportedOperator(CompileError):
    code = "unsupported_operator"


class DynamicShape(CompileError):
    code = "dynamic_shape"


class UnknownInput(CompileError):
    code = "unknown_input"


class ModelTooLarge(CompileError):
    code = "model_too_large"


class GateFailed(CompileError):
    code = "gate_failed"


class ToolMissing(CompileError):
    code = "tool_missing"


class OutOfDisk(CompileError):
    code = "out_of_disk"


class BundleError(VeltairError):
    code = "bundle_invalid"


class BundleMissing(BundleError):
    code = "bundle_missing"


class BundleCorrupt(BundleError):
    code = "bundle_corrupt"


class BundleSchemaUnknown(BundleError):
    code = "bundle_schema"


class BundleTargetMismatch(BundleError):
    code = "bundle_target"


class ServerError(VeltairError):
    code = "server_failed"


class AddressInUse(ServerError):
    code = "address_in_use"


class LogError(VeltairError):
    code = "bad_log"


class ProfileError(VeltairError):
    code = "bad_profile"


class ProfileMissing(ProfileError):
    code = "no_profile"


class ProfileSchemaUnknown(ProfileError):
    code = "profile_schema"


class SourceUnavailable(VeltairError):
    code = "no_such_source"


class RequestError(VeltairError):
    """One request was not answered with outputs. `earliest_ms` is the soonest deadline that could be met, if known."""

    code = "request_failed"

    def __init__(self, message: str, *, earliest_ms: float | None = None) -> None:
        super().__init__(message)
        self.earliest_ms = earliest_ms


class UnknownModel(RequestError):
    code = "unknown_model"


class UnknownTenant(RequestError):
    code = "unknown_tenant"


class BadTensor(RequestError):
    code = "bad_tensor"


class BadDeadline(RequestError):
    code = "bad_deadline"


class BadMessage(RequestError):
    code = "bad_message"


class DeadlineUnmeetable(RequestError):
    code = "deadline_unmeetable"


class DeadlineMissed(RequestError):
    code = "deadline_missed"


class Draining(RequestError):
    code = "draining"


class Cancelled(RequestError):
    code = "cancelled"


class EngineFailed(RequestError):
    code = "engine_failed"


class RequestTimeout(RequestError):
    code = "timeout"


class ServerUnreachable(RequestError):
    code = "server_unreachable"


def request_error(code: str, message: str, earliest_ms: float | None = None) -> RequestError:
    """The typed error for a `code` that came over the wire; a code from a newer server becomes a plain RequestError."""
    for cls in RequestError.__subclasses__():
        if cls.code == code:
            return cls(message, earliest_ms=earliest_ms)
    return RequestError(f"{message} (code {code})", earliest_ms=earliest_ms)
